"""The keeper of the engine: one that never comes up is tried for ever, and when one heats the board."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from configured import configured
from kept_engine import READY, KeptEngine

from edged.engine.client import EngineGone
from edged.engine.messages import LoadFailed, Pulse
from edged.errors import DiedError
from edged.node.supervision import AGAIN_MAX_S, AGAIN_MIN_S, LOOK_S, RETRY_MAX_S, SAY_AGAIN, Supervision

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and a template, neither of which may be what it should."""
    for name in ("model", "template"):
        (tmp_path / name).write_text("nonsense")
    return tmp_path


def failed(folder: Path) -> tuple[Supervision, KeptEngine]:
    """The keeper of an engine that could not use them, and the engine."""
    process = KeptEngine()
    setup = configured(model_path=str(folder / "model"), chat_template=str(folder / "template"))
    keeper = Supervision(process, setup, 256, 30.0, 60.0, lambda: 0.0)
    keeper.start()
    fails(keeper)
    return keeper, process


def fails(keeper: Supervision) -> None:
    """It says that it cannot, and ends."""
    keeper.load_failed(LoadFailed("the model cannot be used"))
    keeper.gone(EngineGone(keeper.run, 0))


@pytest.mark.parametrize(
    "mend",
    [
        lambda folder: (folder / "model").chmod(0o640),
        lambda folder: (folder / "template").write_text("{{ messages[0].content }}"),
    ],
    ids=["the right to read it", "its template"],
)
def test_a_model_that_is_mended(folder: Path, mend: Callable[[Path], object]) -> None:
    """What the log asks for is seen: only other bytes of the model were, so the node waited for a restart."""
    keeper, process = failed(folder)
    mend(folder)
    keeper.clock = lambda: 2 * LOOK_S
    keeper.tick()
    keeper.clock = lambda: 4 * LOOK_S
    keeper.tick()
    assert (process.run, keeper.phase) == (2, "starting")


def test_a_model_that_did_not_load_once(folder: Path) -> None:
    """A card that did not read leaves no trace in the file: ever more seldom, and nobody waits for it meanwhile."""
    keeper, process = failed(folder)
    now = 0.0
    starts: list[float] = []
    keeper.clock = lambda: now
    while len(starts) < 9:
        now += LOOK_S
        keeper.tick()
        if process.run > len(starts) + 1:
            starts.append(now)
            assert keeper.phase == "failed"
            fails(keeper)
    waits = [after - before for before, after in zip([0.0, *starts], starts, strict=False)]
    assert waits == [AGAIN_MIN_S * 2**n for n in range(6)] + [AGAIN_MAX_S] * 3
    now += AGAIN_MAX_S
    keeper.tick()
    keeper.became_ready(READY)
    assert keeper.ready
