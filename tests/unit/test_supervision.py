"""The keeper of the engine: one that never comes up is tried for ever, and when one heats the board."""

from __future__ import annotations

import signal

import pytest
import structlog
from configured import configured
from kept_engine import READY, KeptEngine

from edged.engine.client import EngineGone
from edged.engine.messages import Pulse
from edged.errors import DiedError
from edged.node.supervision import RETRY_MAX_S, SAY_AGAIN, Supervision

SIGILL = -signal.SIGILL


def pulse(*, running: int, paused: bool = False) -> Pulse:
    """A sign of life of an engine that answers so many questions."""
    return Pulse(1, running, 0, False, 5.0, 50.0, 100, 512, paused=paused)


def test_what_heats_the_board() -> None:
    """Work of the engine does, and neither a question that something else answers nor one in a pause."""
    keeper = Supervision(KeptEngine(), configured(), 256, 30.0, 60.0, lambda: 0.0)
    assert not keeper.computing, "it has not said anything yet"
    for running, paused, computing in [(0, False, False), (1, False, True), (2, True, False)]:
        keeper.pulse = pulse(running=running, paused=paused)
        assert keeper.computing is computing
    keeper.pulse = pulse(running=1)
    keeper.gone(EngineGone(0, SIGILL))
    assert not keeper.computing, "it is gone"


def test_an_update_in_place() -> None:
    """An engine of other files than the daemon's is not started: it would not understand what it is told."""
    updated = False
    process = KeptEngine()
    keeper = Supervision(process, configured(), 256, 30.0, 60.0, lambda: 0.0, updated=lambda: updated)
    keeper.start()
    keeper.gone(EngineGone(process.run, SIGILL))
    updated = True
    keeper.tick()
    keeper.clock = lambda: RETRY_MAX_S
    with pytest.raises(DiedError, match="updated while it ran"):
        keeper.tick()
    assert process.run == 1


def test_an_engine_that_crashes_for_days() -> None:
    """A build for another processor: the waits grow to their bound, and the daemon outlives the 1,025th crash.

    Of crashes that are all alike ever fewer lines are written; another one's is news.
    """
    now = 0.0
    process = KeptEngine()
    keeper = Supervision(process, configured(), 256, 30.0, 60.0, lambda: now)

    def crash(code: int) -> None:
        nonlocal now
        keeper.gone(EngineGone(process.run, code))
        now += RETRY_MAX_S
        keeper.tick()

    keeper.start()
    with structlog.testing.capture_logs() as lines:
        for run in range(1, 2 * SAY_AGAIN + 1):
            assert process.run == run
            crash(SIGILL)
        crash(-signal.SIGSEGV)
    assert keeper.phase == "broken"
    assert keeper.restarts == 2 * SAY_AGAIN + 1
    told = [line for line in lines if line["log_level"] != "debug"]
    doublings = [1, 2, 3, *(2**n for n in range(2, 13)), 2 * SAY_AGAIN + 1]
    assert [line["crashes"] for line in told if line["event"] == "engine_gone"] == doublings
    assert len(told) == 2 * len(doublings), "a start is told where its crash was"
    keeper.became_ready(READY)
    with structlog.testing.capture_logs() as lines:
        crash(-signal.SIGSEGV)
    assert [line["log_level"] for line in lines] == ["error", "info"]
