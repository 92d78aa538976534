"""The keeper of the engine: one that never comes up is tried for ever, and when one heats the board."""

from __future__ import annotations

from configured import configured
from kept_engine import KeptEngine

from edged.engine.client import EngineGone
from edged.engine.messages import Pulse
from edged.node.supervision import RETRY_MAX_S, Supervision

SIGILL = -4


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


def test_an_engine_that_crashes_for_days() -> None:
    """A build for another processor: the waits grow to their bound, and the daemon outlives the 1,025th crash."""
    now = 0.0
    process = KeptEngine()
    keeper = Supervision(process, configured(), 256, 30.0, 60.0, lambda: now)
    keeper.start()
    for run in range(1, 1100):
        assert process.run == run
        keeper.gone(EngineGone(run, SIGILL))
        now += RETRY_MAX_S
        keeper.tick()
    assert keeper.phase == "broken"
    assert keeper.restarts == 1099
