"""Telemetry of the whole daemon, read from trees of files that stand in for boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boards
import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import MakeDevice


def board_node(broker: Mosquitto, daemon: MakeDaemon, root: Path) -> DaemonProcess:
    """A node that reads its vitals from a tree of files."""
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    heat = {"interval_s": 0.2, "dwell_s": 0.5}
    return daemon(broker, {"paths": paths, "heat": heat}, scripted=True).start()


def test_telemetry_of_a_board(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """Zones with their trips are in health; heat changes the level, is an event, and is seen in health."""
    root = boards.rk3588_mainline(tmp_path / "board")
    node = board_node(broker, daemon, root)
    board: Any = node.wait_health(lambda h: h["board"])["board"]
    assert len(board["zones"]) == 7
    big = board["zones"]["bigcore0-thermal"]
    assert big["temp_c"] == pytest.approx(48.076)
    assert {"kind": "passive", "temp_c": 85.0, "hysteresis_c": 2.0} in big["trips"]
    assert [clock["cores"] for clock in board["clocks"]] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert board["throttled"] is False
    assert "under_voltage" not in board
    since = node.watcher.mark
    boards.set_temp_c(root, "bigcore0-thermal", 84.2)
    changed = node.watcher.wait_for("/event", lambda h: h.json.get("level") == "hot", since=since).json
    assert (changed["event"], changed["before"]) == ("level_changed", "warm")
    hot = node.wait_health(lambda h: h["level"] == "hot", since=since)
    assert hot["board"]["zones"]["bigcore0-thermal"]["temp_c"] == 84.2
    assert hot["board"]["headroom_c"] == 0.8
    boards.set_temp_c(root, "bigcore0-thermal", 50.0)
    node.watcher.wait_for("/event", lambda h: h.json.get("level") == "cool", since=since)
    node.wait_log("level_changed", lambda line: line["level"] == "cool")
    assert [line["level"] for line in node.log("level_changed")] == ["warm", "hot", "cool"]
    assert node.wait_info()["board"] == "Radxa ROCK 5B"


def test_sensor_that_goes_away(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """A sensor that vanishes while the node runs is absent from then on, not zero; the rest stays.

    It was the only one that told how hot the board is: the level is a careful one from then on.
    """
    root = boards.pi5(tmp_path / "board")
    node = board_node(broker, daemon, root)
    board = node.wait_health(lambda h: h["board"])["board"]
    assert board["under_voltage"] is False
    assert board["zones"]["cpu-thermal"]["temp_c"] == pytest.approx(52.35)
    assert board["headroom_c"] == pytest.approx(27.65), (
        "to the firmware's trip at 80 C, which no kernel tells"
    )
    (root / "sys/class/thermal/thermal_zone0/temp").unlink()
    (root / "sys/class/hwmon/hwmon1/in0_lcrit_alarm").unlink()
    left = node.wait_health(
        lambda h: "temp_c" not in h["board"]["zones"]["cpu-thermal"] and h["level"] == "warm",
        since=node.watcher.mark,
    )
    assert left["board"]["zones"]["cpu-thermal"]["trips"]
    assert "under_voltage" not in left["board"]
    assert left["heat"]["sensors"] == {"cpu-thermal": "missing"}
    assert node.wait_event("sensor_failed")["state"] == "missing"


def test_board_without_any_sensor(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """A board that shows nothing has empty telemetry, and answers."""
    node = board_node(broker, daemon, boards.nothing(tmp_path / "board"))
    health = node.wait_health()
    assert health["board"] == {}
    assert health["level"] == "cool"
    asking = device(broker, "d27")
    assert asking.answer(asking.ask("x")).check().text == "w0 w1 w2 "
