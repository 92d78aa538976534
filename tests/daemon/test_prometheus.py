"""A real Prometheus scrapes a running node: its rules can be evaluated, and no panel of the dashboards is empty.

That is what finds a misspelt metric: an expression nobody answers is an empty panel, and no error anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boards
import pytest
from broker import Mosquitto, free_port
from daemon_process import MakeDaemon
from device import MakeDevice
from prometheus import ROOT, Prometheus

DASHBOARDS = ("node.json", "fleet.json")
RANGES = {"$__rate_interval": "20s", '"$instance"': '".*"'}


def expressions(name: str) -> Iterator[tuple[str, str]]:
    """Title and expression of every query of a dashboard, its variables filled in."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / name).read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            # Of a range Grafana shows the last value there was, also one that ended hours ago (grafana #10524).
            assert panel["type"] != "stat" or target["instant"], panel["title"]
            expr = target["expr"]
            for variable, value in RANGES.items():
                expr = expr.replace(variable, value)
            assert "$" not in expr, f"{panel['title']}: an unknown variable: {expr}"
            yield panel["title"], expr


@pytest.fixture
def prometheus(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a node's HTTP face, with its key."""
    key = tmp_path / "key"
    key.write_text("a-key-of-thirty-two-characters--\n")
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}", key)
    try:
        yield prometheus.start()
    finally:
        prometheus.stop()


def test_a_real_prometheus(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, prometheus: Prometheus, tmp_path: Path
) -> None:
    """Numbers arrive, alerts follow, and no panel is empty."""
    root = boards.rk3588_mainline(tmp_path / "board")
    alarm = root / "sys/class/hwmon/hwmon9"  # a supply that is watched, as a Raspberry Pi's is
    alarm.mkdir(parents=True)
    (alarm / "name").write_text("rpi_volt\n")
    (alarm / "in0_lcrit_alarm").write_text("1\n")
    node = daemon(
        broker,
        {
            "paths": {"sys": str(root / "sys")},
            "http": {"enabled": True, "port": prometheus.target_port, "key_file": str(prometheus.key)},
            "node": {"id": "n1", "pools": ["hall"]},
            "upstream": {"url": f"http://127.0.0.1:{free_port()}/v1", "model": "big", "when": ["asked"]},
        },
        scripted=True,
    ).start()
    asking = device(broker, "d1")
    prometheus.wait(lambda: prometheus.query("edged_online == 1"))
    for _ in range(3):
        asking.answer(asking.ask("tokens=20 step_ms=10 read_ms=20 long enough a prompt to be measured"))
    asking.answer(asking.ask(max_tokens=3))  # neither prompt nor messages: refused
    boards.set_temp_c(root, "bigcore0-thermal", 84.0)

    prometheus.wait(lambda: prometheus.query("rate(edged_answer_seconds_count[20s]) > 0"))
    prometheus.wait(lambda: prometheus.query("instance:edged_heat_level:index == 2"))
    [hottest] = prometheus.wait(lambda: prometheus.query("max(edged_temperature_celsius) == 84"))
    assert hottest["value"][1] == "84"
    [alert] = prometheus.wait(lambda: prometheus.query('ALERTS{alertname="EdgedUnderVoltage"}'))
    assert alert["metric"]["alertstate"] == "firing"
    assert alert["metric"]["job"] == "edged"

    empty = [
        f"{name}, {title}: {expr}"
        for name in DASHBOARDS
        for title, expr in expressions(name)
        if not prometheus.query(expr)
    ]
    assert empty == []
    prometheus.wait(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()))
    assert len(prometheus.rules()) > 15
    assert node.terminate() == 0
    prometheus.wait(lambda: prometheus.query("up == 0"))
    fleet = dict(expressions("fleet.json"))
    shown = [
        prometheus.query(fleet[title])[0]["value"][1] for title in ("Nodes that answer", "Nodes that do not")
    ]
    assert shown == ["0", "1"], "a node that is gone is counted with those that do not answer"
