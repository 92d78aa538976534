"""What Prometheus and Grafana are given is in order: rules by promtool, dashboards as the code has them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "edged.rules.yml"
TESTS = DEPLOY / "prometheus" / "edged.rules.test.yml"


def run(*command: str) -> tuple[int, str]:
    """Exit code and what was said."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of a kind, `alert` or `record`."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def test_the_rules_pass_their_own_tests() -> None:
    """Each alert comes when it should and where it should, and nowhere else."""
    code, said = run("promtool", "test", "rules", str(TESTS))
    assert code == 0, said


def test_a_wrong_rule_would_be_noticed(tmp_path: Path) -> None:
    """The test above can fail."""
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("> 60\n", "> 6000\n"))
    code, said = run("promtool", "test", "rules", str(tmp_path / TESTS.name))
    assert code != 0
    assert "EdgedSlow" in said


def test_every_rule_has_a_test() -> None:
    """An alert without a story, or a recording nobody has looked at, is missed here."""
    stories = yaml.safe_load(TESTS.read_text())["tests"]
    told = {
        case["alertname"]
        for story in stories
        for case in story.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    assert told == {rule["alert"] for rule in rules("alert")}
    recorded = {case["expr"] for story in stories for case in story.get("promql_expr_test", [])}
    assert recorded - {'ALERTS{alertstate="firing"}'} == {rule["record"] for rule in rules("record")}


def test_every_alert_says_what_to_do() -> None:
    """A person who is woken up reads where, what, and what next."""
    for alert in rules("alert"):
        assert alert["labels"]["severity"] in {"warning", "critical"}, alert["alert"]
        assert "{{ $labels.instance }}" in alert["annotations"]["summary"], alert["alert"]
        assert alert["annotations"]["description"].endswith("."), alert["alert"]


def test_the_dashboards_are_those_that_the_code_makes() -> None:
    """Nobody has edited the JSON, or forgotten to make it anew."""
    assert {path.name for path in (DEPLOY / "grafana").glob("*.json")} == {"node.json", "fleet.json"}
    code, said = run(sys.executable, str(DEPLOY / "grafana" / "dashboards.py"), "--check")
    assert code == 0, said


def test_the_trip_that_is_drawn_is_the_first_one(tmp_path: Path) -> None:
    """A Raspberry Pi is slowed down from 80 C on, though its zone has a trip at 85 C as well."""
    panels = json.loads((DEPLOY / "grafana" / "node.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    [expr] = [query for query in queries if "edged_trip_celsius" in query]
    trips = {("passive", 80): 0, ("passive", 85): 1, ("critical", 110): 2, ("active", 50): 3}
    story = {
        "rule_files": [],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {
                        "series": f'edged_trip_celsius{{instance="pi", zone="cpu", trip="{trip}", kind="{kind}"}}',
                        "values": f"{temp_c}x5",
                    }
                    for (kind, temp_c), trip in trips.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": expr.replace("$instance", ".*"),
                        "eval_time": "2m",
                        "exp_samples": [
                            {"labels": '{instance="pi", kind="passive"}', "value": 80},
                            {"labels": '{instance="pi", kind="critical"}', "value": 110},
                        ],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "trips.test.yml"
    file.write_text(yaml.safe_dump(story))
    code, said = run("promtool", "test", "rules", str(file))
    assert code == 0, said


def test_the_list_of_metrics_is_the_one_that_the_code_makes() -> None:
    """Whoever writes a rule of their own reads names, labels and meanings as they are."""
    code, said = run(sys.executable, str(DEPLOY / "prometheus" / "metrics.py"), "--check")
    assert code == 0, said
