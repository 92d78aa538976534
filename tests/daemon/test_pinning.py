"""Which cores the two processes really run on, read back from the kernel while an answer is being written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import WAIT_S, MakeDevice

from edged.core.topology import parse_cores
from edged.engine.trial_client import Trials
from edged.engine.trial_messages import LoadTrial, ReadMemory, RunPasses


def cores_of_threads(pid: int) -> dict[int, tuple[int, ...]]:
    """Cores that each thread of a process may run on, by thread id (proc(5), Cpus_allowed_list).

    A thread that ends between the list and the look at it is left out.
    """
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("Cpus_allowed_list:"):
                found[int(task.name)] = parse_cores(line.split()[1])
    return found


def masks_until(pids: Sequence[int], over: Callable[[], object]) -> list[set[tuple[int, ...]]]:
    """Every mask that any thread of each process had at any look until `over`: threads come and go under load."""
    seen: list[set[tuple[int, ...]]] = [set() for _ in pids]
    end = time.monotonic() + WAIT_S
    while not over():
        assert time.monotonic() < end, "it is never over"
        for masks, pid in zip(seen, pids, strict=True):
            masks.update(cores_of_threads(pid).values())
        time.sleep(0.01)
    return seen


@pytest.fixture
def two_cores() -> tuple[int, int]:
    """Two cores of this machine that we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    assert len(allowed) >= 2, "pinning needs two cores to be seen"
    return allowed[-2], allowed[-1]


def test_named_cores(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, two_cores: tuple[int, int]
) -> None:
    """Reading a long prompt, a schema's tables, several answers at once: no thread ever strays; info says so.

    All of the engine's stay on the chosen core, all of the daemon's on the others. That takes in what starts
    threads of its own: OpenMP in llama.cpp, numpy, llguidance, paho, SQLite's writer.
    """
    _, chosen = two_cores
    others = tuple(sorted(os.sched_getaffinity(0) - {chosen}))
    engine = {"cores": str(chosen), "slots": 3}
    node = daemon(broker, {"model": {"path": str(small_model)}, "engine": engine}).start()
    asking = device(broker, "c1")
    long = "The pump in hall three runs at 1480 turns a minute. " * 40
    schema = {"type": "object", "properties": {"hot": {"type": "boolean"}}, "required": ["hot"]}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    jobs = [
        asking.ask(f"{long} What runs?", max_tokens=30),
        asking.ask("Count from one to thirty.", max_tokens=60),
        asking.ask("Is 90 C hot?", max_tokens=40, response_format=wanted),
    ]

    def over() -> bool:
        answers = asking.answers()
        return all(job in answers and answers[job].terminals for job in jobs)

    engine_masks, daemon_masks = masks_until([node.engine_pid(), node.pid], over)
    assert engine_masks == {(chosen,)}
    assert daemon_masks == {others}
    assert len(cores_of_threads(node.pid)) >= 4
    for job in jobs:
        asking.answer(job).check()
    info = node.wait_info()
    assert info["cores"]["engine"] == [chosen]
    assert info["cores"]["daemon"] == list(others)
    assert info["cores"]["reason"]
    assert (info["decode_threads"], info["prefill_threads"]) == (1, 1)
    assert node.wait_log("engine_ready")["cores"] == [chosen]


def test_a_narrow_cpuset(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, two_cores: tuple[int, int]
) -> None:
    """Where systemd (AllowedCPUs=), a cgroup or taskset leaves one core, both processes stay on it.

    All three end in the mask that sched_getaffinity(2) tells; taskset is the one that works everywhere.
    """
    left, kept = two_cores
    narrow = ("taskset", "--cpu-list", str(kept))
    node = daemon(broker, {"model": {"path": str(small_model)}}, wrapper=narrow).start()
    asking = device(broker, "c1")
    job = asking.ask("Count from one to one hundred.", max_tokens=60)
    asking.wait_reply(job, "delta")
    for pid in (node.engine_pid(), node.pid):
        assert set(cores_of_threads(pid).values()) == {(kept,)}
    asking.answer(job).check()
    info = node.wait_info()
    assert (info["cores"]["engine"], info["cores"]["daemon"]) == ([kept], [kept])
    assert (info["decode_threads"], info["prefill_threads"]) == (1, 1)
    refused = daemon(broker, {"engine": {"cores": str(left)}}, wrapper=narrow).launch()
    assert refused.wait_end() == 78
    assert f"may use {kept}" in b"".join(refused.raw).decode()


def test_trials_are_pinned(small_model: Path, two_cores: tuple[int, int]) -> None:
    """What measures runs where the engine would: all its threads, also after it moved to other cores."""
    first, second = two_cores
    setup = LoadTrial(str(small_model), None, 64, 256, (first,), 1)
    with Trials(setup) as trials:
        for core in (first, second):
            trials.passes(RunPasses("decode", (core,), 1, 4))
            trials.memory(ReadMemory((core,), 2, 1 << 20))
            assert set(cores_of_threads(trials.pid).values()) == {(core,)}


def test_a_busy_neighbour_has_a_core(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, two_cores: tuple[int, int]
) -> None:
    """Two threads would wait for each other beside a program that never rests: one goes on, and the log says so."""
    first, second = two_cores
    engine = {"cores": f"{first},{second}", "decode_threads": 2, "prefill_threads": 2}
    node = daemon(broker, {"model": {"path": str(small_model)}, "engine": engine}).start()
    asking = device(broker, "c1")
    busy = ("taskset", "--cpu-list", str(second), sys.executable, "-c", "while True: pass")
    with subprocess.Popen(busy) as neighbour:
        try:
            job = asking.ask("Write a very long story about a pump.", max_tokens=900)
            line = node.wait_log("cores_shared")
            asking.control("cancel", job)
            asking.answer(job).check()
        finally:
            neighbour.kill()
    assert (line["threads"], line["of"], line["severity"]) == (1, 2, "info")


def test_restarted_engine_is_pinned_again(
    broker: Mosquitto, daemon: MakeDaemon, two_cores: tuple[int, int]
) -> None:
    """An engine that replaces a lost one runs on the same cores, though the daemon does not."""
    _, chosen = two_cores
    node = daemon(broker, {"engine": {"cores": str(chosen)}}, scripted=True).start()
    first, since = node.engine_pid(), node.watcher.mark
    os.kill(first, 9)
    node.wait_info(lambda info: info["engine"] == "starting", since=since)
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
