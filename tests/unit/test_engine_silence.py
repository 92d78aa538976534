"""The engine's keeper: when silence is a hang, and when nobody was there to listen."""

from __future__ import annotations

from configured import configured
from kept_engine import READY, KeptEngine

from edged.node.supervision import AWAY_S, Supervision

HANG_S, START_S, TICK_S = 30.0, 60.0, 0.25


class Rig:
    """A keeper, its engine, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now, self.engine = 1000.0, KeptEngine()
        self.keeper = Supervision(self.engine, configured(), 256, HANG_S, START_S, lambda: self.now)
        self.keeper.start()
        self.keeper.became_ready(READY)

    def wait(self, seconds: float) -> None:
        """Let time pass in an idle dispatcher."""
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            self.keeper.tick()

    def stop(self, seconds: float) -> None:
        """Let time pass while the daemon itself is stopped."""
        self.now += seconds
        self.keeper.tick()


def test_silence_is_a_hang() -> None:
    """An engine that says nothing for as long as it may is killed, once."""
    rig = Rig()
    rig.wait(HANG_S)
    assert rig.engine.kills == 0
    rig.wait(1.0)
    assert rig.engine.kills == 1


def test_a_daemon_that_was_stopped_itself_blames_no_engine() -> None:
    """What the engine said meanwhile is still to be read: it was killed, and its questions ended as poison."""
    rig = Rig()
    for _ in range(4):
        rig.stop(10 * HANG_S)
        assert rig.keeper.healthy()
        rig.keeper.heard()
    assert rig.engine.kills == 0


def test_a_hang_is_found_by_a_daemon_that_is_held_up_now_and_then() -> None:
    """Only the time away is left out, so that a write that takes seconds again and again hides no hang."""
    rig = Rig()
    for _ in range(round(HANG_S) + 1):
        rig.stop(2 * AWAY_S)
        rig.wait(1.0)
    assert rig.engine.kills == 1


def test_a_pause_before_the_start_is_none_of_the_new_engine() -> None:
    """A new process has its time for itself."""
    rig = Rig()
    rig.now += 10 * HANG_S
    rig.keeper.start()
    rig.wait(START_S)
    assert rig.engine.kills == 0
    rig.wait(1.0)
    assert rig.engine.kills == 1
