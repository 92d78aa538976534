"""Metrics of the whole daemon: the textfile follows the work, and goes with the node."""

from __future__ import annotations

import time
from pathlib import Path

import boards
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import WAIT_S, MakeDevice
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(path: Path) -> Samples:
    """Every sample of a metrics file; none while there is no file."""
    if not path.exists():
        return {}
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def wait_value(path: Path, value: float, name: str, **labels: str) -> Samples:
    """All samples, once this one has this value."""
    end = time.monotonic() + WAIT_S
    while (found := read(path)).get((name, frozenset(labels.items()))) != value:
        assert time.monotonic() < end, f"{name} did not become {value}: {found}"
        time.sleep(0.05)
    return found


def test_the_textfile_follows_the_work(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """Answers, refusals, latencies, heat and the engine's end are counted; an orderly stop takes the file away."""
    root = boards.rk3588_mainline(tmp_path / "board")
    path = tmp_path / "edged.prom"
    node = daemon(
        broker,
        {
            "paths": {"sys": str(root / "sys"), "proc": str(root / "proc")},
            "metrics": {"textfile": str(path)},
        },
        scripted=True,
    ).start()
    asking = device(broker, "d1")
    for _ in range(3):
        asking.answer(asking.ask("tokens=5"))
    asking.answer(asking.ask(max_tokens=3))  # neither prompt nor messages: bad_request
    wait_value(path, 3, "edged_answer_seconds_count")
    found = wait_value(path, 1, "edged_questions_refused_total", code="bad_request")
    assert found["edged_questions_ended_total", frozenset({("outcome", "done")})] == 3
    assert found["edged_questions_accepted_total", frozenset()] == 3
    assert found["edged_answer_tokens_total", frozenset()] >= 15
    assert found["edged_online", frozenset()] == 1
    assert found["edged_temperature_celsius", frozenset({("zone", "npu-thermal")})] > 40
    asking.answer(asking.ask("crash=SIGKILL", id="breaks"))
    wait_value(path, 3, "edged_engine_restarts_total")
    wait_value(path, 1, "edged_questions_failed_total", code="poison")
    boards.set_temp_c(root, "bigcore0-thermal", 84.2)
    wait_value(path, 1, "edged_heat_level", level="hot")
    asking.answer(asking.ask("tokens=5"))
    wait_value(path, 1, "edged_questions_refused_total", code="hot")
    assert node.terminate() == 0
    assert not path.exists()


def test_a_broker_that_goes_is_seen(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """Without its broker no device reaches the node: Prometheus hears so, for MQTT tells nobody."""
    path = tmp_path / "edged.prom"
    seldom = {"interval_s": 3600.0}  # it is told at once, not with the next health
    daemon(broker, {"metrics": {"textfile": str(path)}, "health": seldom}, scripted=True).start()
    wait_value(path, 1, "edged_online")
    broker.kill()
    wait_value(path, 0, "edged_online")
    broker.start()
    wait_value(path, 1, "edged_online")
