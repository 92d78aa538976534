"""Which cores the two processes really run on, read back from the kernel while an answer is being written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import MakeDevice

from edged.core.topology import parse_cores


def cores_of_threads(pid: int) -> dict[int, tuple[int, ...]]:
    """Cores that each thread of a process may run on, by thread id (proc(5), Cpus_allowed_list)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("Cpus_allowed_list:"):
                found[int(task.name)] = parse_cores(line.split()[1])
    return found


@pytest.fixture
def two_cores() -> tuple[int, int]:
    """Two cores of this machine that we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    assert len(allowed) >= 2, "pinning needs two cores to be seen"
    return allowed[-2], allowed[-1]


def test_named_cores(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, two_cores: tuple[int, int]
) -> None:
    """All of the engine's threads stay on the chosen core, all of the daemon's on the others; info says so."""
    _, chosen = two_cores
    others = tuple(sorted(os.sched_getaffinity(0) - {chosen}))
    engine = {"cores": str(chosen), "slots": 2}
    node = daemon(broker, {"model": {"path": str(small_model)}, "engine": engine}).start()
    asking = device(broker, "c1")
    job = asking.ask("Count from one to one hundred.", max_tokens=200)
    asking.wait_reply(job, "delta")
    engine_threads, daemon_threads = cores_of_threads(node.engine_pid()), cores_of_threads(node.pid)
    assert set(engine_threads.values()) == {(chosen,)}
    assert set(daemon_threads.values()) == {others}
    assert len(daemon_threads) >= 4
    asking.control("cancel", job)
    asking.answer(job).check()
    info = node.wait_info()
    assert info["cores"]["engine"] == [chosen]
    assert info["cores"]["daemon"] == list(others)
    assert info["cores"]["reason"]
    assert (info["decode_threads"], info["prefill_threads"]) == (1, 1)
    assert node.log("engine_ready")[0]["cores"] == [chosen]


def test_restarted_engine_is_pinned_again(
    broker: Mosquitto, daemon: MakeDaemon, two_cores: tuple[int, int]
) -> None:
    """An engine that replaces a lost one runs on the same cores, though the daemon does not."""
    _, chosen = two_cores
    node = daemon(broker, {"engine": {"cores": str(chosen)}}, scripted=True).start()
    first = node.engine_pid()
    os.kill(first, 9)
    node.wait_info(lambda info: info["engine"] == "starting")
    second = node.engine_pid(other_than=first)
    node.wait_log("engine_ready", lambda _: len(node.log("engine_ready")) == 2)
    assert set(cores_of_threads(second).values()) == {(chosen,)}


def test_cores_that_are_not_there(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """A core that this machine does not have is a wrong setting: one line that names it, exit 78."""
    node = daemon(broker, {"engine": {"cores": "900"}}).launch()
    assert node.wait_end() == 78
    said = b"".join(node.raw).decode()
    assert said.count("\n") == 1
    assert "900" in said
    assert "engine" in said
