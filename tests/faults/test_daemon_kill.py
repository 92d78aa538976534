"""kill -9 of the daemon under load, at random moments and at each failpoint around its commits.

A kill between a commit and its PUBACK, or between the last message and its acknowledgement, is where a question
would be lost or answered twice over.
"""

from __future__ import annotations

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from faults.load import Load, MakeLoad
from faults.nursery import ForkedDaemon, MakeNode
from faults.record import Trial

FAULT = "kill -9 of the daemon"
FAILPOINTS = ("before_accept_commit", "after_accept_commit", "before_finish_commit", "after_finish_commit")
LIMITS = {"limits": {"attempts": 10}}
"""Kills come faster here than answers: what is killed along three times shall not count as poison."""
SMALL = {"context_max": 512, "context_min": 512, "decode_threads": 1, "prefill_threads": 1}
"""Threads of llama.cpp wait for each other in a loop: on busy cores one is faster than two."""


def test_kill_at_failpoints(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """Killed before and after each commit, the node answers everything that was acknowledged, once."""
    nodes = [node(broker, name, LIMITS).start() for name in ("n1", "n2")]
    loads = [load(broker, node=n.node, name=f"{n.node}-").start() for n in nodes]

    def kill(which: int) -> int:
        process = nodes[which]
        assert isinstance(process, ForkedDaemon)
        process.kill()
        for turn in range(20 * trial.factor):
            process.failpoint = f"{FAILPOINTS[turn % 4]}:{1 + turn // 4 % 5}"
            process.launch()
            assert process.wait_end(20.0) == -signal.SIGKILL, "the failpoint was not reached"
        process.launch()
        return 20 * trial.factor

    with ThreadPoolExecutor(2) as pool:
        kills = sum(pool.map(kill, range(2)))
    _judge(loads, kills, "kills at failpoints", trial)


def test_kill_at_random_moments(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """Killed at any moment, from its first line on, the node answers everything that was acknowledged, once."""
    nodes = [node(broker, name, LIMITS).start() for name in ("n1", "n2")]
    loads = [load(broker, node=n.node, name=f"{n.node}-").start() for n in nodes]

    def kill(which: int) -> int:
        rng = random.Random(which)  # noqa: S311 - moments, not secrets
        process: DaemonProcess = nodes[which]
        process.kill()
        for _ in range(30 * trial.factor):
            process.launch()
            time.sleep(rng.uniform(0.0, 1.2))
            assert process.kill() == -signal.SIGKILL
        process.launch()
        return 30 * trial.factor

    with ThreadPoolExecutor(2) as pool:
        kills = sum(pool.map(kill, range(2)))
    _judge(loads, kills, "kills at random moments", trial)


@pytest.mark.model
def test_kill_with_the_real_model(
    broker: Mosquitto, node: MakeNode, load: MakeLoad, small_model: object, trial: Trial
) -> None:
    """The same for the daemon as it is installed, with llama.cpp and a real model."""
    sections: Sections = {"model": {"path": str(small_model)}, "engine": SMALL, **LIMITS}
    process = node(broker, "n1", sections, forked=False, scripted=False).start()
    asking = load(
        broker,
        devices=2,
        open_each=2,
        rate_per_s=4,
        prompt=lambda words: f"Count to {words}.",
        fields={"max_tokens": 48},  # long enough that a kill always finds one running
    ).start()
    rng = random.Random(3)  # noqa: S311 - moments, not secrets
    kills = 4 * trial.factor
    for turn in range(kills):
        if turn:
            process.launch()
        if turn % 2:  # every other life gets as far as an answer
            asking.wait_ended(asking.ended() + 1)
        time.sleep(rng.uniform(0.0, 1.5))
        assert process.kill() == -signal.SIGKILL
    process.launch()
    _judge([asking], kills, "kills, real model", trial)


def _judge(loads: list[Load], kills: int, unit: str, trial: Trial) -> None:
    verdicts = [each.settle().check("poison") for each in loads]
    again = sum(sum(v.attempts.values()) - v.attempts[1] for v in verdicts)
    assert again, "no question was ever interrupted"
    acknowledged = sum(v.acknowledged for v in verdicts)
    poison = sum(v.kinds["poison"] for v in verdicts)
    trial.note(
        FAULT,
        kills,
        unit,
        also=f"{acknowledged} questions, {again} run again"
        + (f", {poison} killed along too often" if poison else ""),
    )
