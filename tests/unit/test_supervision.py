"""The keeper of the engine on a day that does not end: an engine that never comes up is tried for ever."""

from __future__ import annotations

from configured import configured

from edged.engine.client import EngineGone
from edged.engine.messages import Configure, Order
from edged.node.supervision import RETRY_MAX_S, Supervision

SIGILL = -4


class Process:
    """A process that ends as soon as it is started."""

    def __init__(self) -> None:
        self.run = 0

    def start(self, setup: Configure) -> None:
        """Start."""
        del setup
        self.run += 1

    def send(self, order: Order) -> None:
        """Nobody takes it."""

    def kill(self) -> None:
        """It is gone already."""


def test_an_engine_that_crashes_for_days() -> None:
    """A build for another processor: the waits grow to their bound, and the daemon outlives the 1,025th crash."""
    now = 0.0
    process = Process()
    keeper = Supervision(process, configured(), 256, 30.0, 60.0, lambda: now)
    keeper.start()
    for run in range(1, 1100):
        assert process.run == run
        keeper.gone(EngineGone(run, SIGILL))
        now += RETRY_MAX_S
        keeper.tick()
    assert keeper.phase == "broken"
    assert keeper.restarts == 1099
