"""kill -9, SIGSEGV and SIGSTOP of the engine process under load, and a question that crashes it each time."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from device import Device
from faults.load import Load, MakeLoad
from faults.nursery import MakeNode
from faults.record import Trial

FAULT = "kill -9, SIGSEGV, SIGSTOP of the engine"
HANG_S = 5.0
SECTIONS: Sections = {"engine": {"hang_s": HANG_S, "slots": 2}, "limits": {"attempts": 10}}
"""Kills come faster here than answers: what is killed along three times shall not count as poison."""
NODES = 5


def test_engine_ends_under_load(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """However the engine ends or stops, the daemon stays up, says so, and everything is answered once."""
    nodes = [node(broker, f"n{i}", SECTIONS).start() for i in range(NODES)]
    loads = [
        load(broker, node=n.node, name=f"{n.node}-", devices=2, rate_per_s=12.0, words=(10, 60)).start()
        for n in nodes
    ]
    how = [signal.SIGKILL, signal.SIGSEGV] * 4 + [signal.SIGSTOP] * 2

    def harm(which: int) -> int:
        process, asking = nodes[which], loads[which]
        for _ in range(trial.factor):
            for number in how:
                asking.wait_ended(asking.ended() + 2)  # it answers again, and was well in between
                _harm(process, number)
        return trial.factor * len(how)

    with ThreadPoolExecutor(NODES) as pool:
        faults = sum(pool.map(harm, range(NODES)))
    verdicts = [each.settle().check("poison") for each in loads]
    assert all(process.running for process in nodes)
    again = sum(sum(v.attempts.values()) - v.attempts[1] for v in verdicts)
    assert again >= faults // 5, "too few questions were interrupted"
    questions = sum(v.acknowledged for v in verdicts)
    trial.note(FAULT, faults, "ends of the engine", also=f"{questions} questions, {again} run again")


def test_poison(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """A question that crashes the engine three times is `poison`; all that others ask is answered."""
    process = node(broker, "n1").start()
    asking: Load = load(broker, devices=2, open_each=2, rate_per_s=10.0).start()
    attacker = Device(broker.host, broker.port, "attacker").start()
    for number in range(4 * trial.factor):
        crash = "SIGSEGV" if number % 2 else "SIGKILL"
        answer = attacker.answer(attacker.ask(f"crash={crash} tokens=9"), timeout_s=60.0)
        assert (answer.last["type"], answer.last.get("code")) == ("error", "poison"), answer.last
        assert answer.last["details"]["attempts"] == 3
    attacker.stop()
    verdict = asking.settle().check()
    assert process.running
    trial.note(FAULT, 4 * trial.factor, "poisonous questions", also=f"{verdict.acknowledged} others answered")


@pytest.mark.model
def test_real_engine_ends(
    broker: Mosquitto, node: MakeNode, load: MakeLoad, small_model: object, trial: Trial
) -> None:
    """The same with llama.cpp and a real model."""
    engine = {"context_max": 512, "context_min": 512, "decode_threads": 1, "prefill_threads": 1}
    sections: Sections = {"model": {"path": str(small_model)}, "engine": engine}
    process = node(broker, "n1", sections, forked=False, scripted=False).start()
    asking = load(
        broker,
        devices=1,
        open_each=2,
        rate_per_s=4,
        prompt=lambda words: f"Count to {words}.",
        fields={"max_tokens": 8},
    ).start()
    kills = 2 * trial.factor
    for turn in range(kills):
        asking.wait_ended(asking.ended() + 1)
        _harm(process, (signal.SIGKILL, signal.SIGSEGV)[turn % 2])
    verdict = asking.settle().check()
    trial.note(FAULT, kills, "ends of the engine, real model", also=f"{verdict.acknowledged} questions")


def _harm(process: DaemonProcess, number: signal.Signals) -> None:
    """Do it, and wait until another engine is ready."""
    since, before = process.watcher.mark, process.engine_pid()
    began_s = time.monotonic()
    os.kill(before, number)
    process.wait_event("engine_ready", since=since, timeout_s=60.0)
    took_s = time.monotonic() - began_s
    assert process.engine_pid(other_than=before) != before
    if number is signal.SIGSTOP:
        assert took_s > HANG_S - 1, "it was not the hang that ended it"
