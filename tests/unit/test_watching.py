"""What Prometheus and Grafana are given is in order: rules by promtool, dashboards as the code has them."""

from __future__ import annotations

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
    assert recorded == {rule["record"] for rule in rules("record")}


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


def test_the_list_of_metrics_is_the_one_that_the_code_makes() -> None:
    """Whoever writes a rule of their own reads names, labels and meanings as they are."""
    code, said = run(sys.executable, str(DEPLOY / "prometheus" / "metrics.py"), "--check")
    assert code == 0, said
