"""The thread that reads the board: a sensor that hangs holds up nobody, and is told as one that says nothing."""

from __future__ import annotations

import queue
import threading

import pytest

from edged.core.heat.heat import Heat
from edged.core.heat.margins import Margins
from edged.core.link import ThreadDied
from edged.core.vitals import Trip, Vitals, Zone
from edged.node.vitals_thread import VitalsRead, VitalsThread

WAIT_S = 20.0
WARM = Vitals(zones=(Zone("soc", 60.0, (Trip("passive", 85.0),)),))


class Board:
    """A board whose bus may hang."""

    def __init__(self) -> None:
        self.works = threading.Event()
        self.works.set()
        self.readings = 0

    def read(self) -> Vitals:
        """One reading, as soon as the bus works."""
        self.readings += 1
        assert self.works.wait(2 * WAIT_S)
        return WARM


def test_a_reading_that_hangs() -> None:
    """It goes on being told as a board that says nothing, so that heat takes it for blind; no second one hangs."""
    board, inbox = Board(), queue.SimpleQueue[VitalsRead | ThreadDied]()
    thread = VitalsThread(board.read, 0.05, inbox.put, late_s=0.2)
    thread.start()
    heat, now = Heat(Margins()), 1000.0
    try:
        assert inbox.get(timeout=WAIT_S) == VitalsRead(WARM)
        heat.step(WARM, now, busy=True)
        board.works.clear()
        while (told := inbox.get(timeout=WAIT_S)) == VitalsRead(WARM):
            pass
        readings = board.readings
        for _ in range(5):
            assert told == VitalsRead(Vitals(late=True))
            now += 2.0
            verdict = heat.step(told.vitals, now, busy=True)
            told = inbox.get(timeout=WAIT_S)
        assert (verdict.blind, verdict.level) == (True, "warm")
        assert board.readings == readings
        board.works.set()
        while inbox.get(timeout=WAIT_S) != VitalsRead(WARM):
            pass
    finally:
        board.works.set()
        thread.stop(WAIT_S)


def test_a_reading_that_gets_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that started process after process took all that the service may have, and that ended the daemon."""
    inbox, start = queue.SimpleQueue[VitalsRead | ThreadDied](), threading.Thread.start
    refusals = ["can't start new thread"] * 2

    def scarce(thread: threading.Thread) -> None:
        if thread.name == "sensors" and refusals:
            raise RuntimeError(refusals.pop())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    thread = VitalsThread(lambda: WARM, 0.05, inbox.put)
    thread.start()
    told = [inbox.get(timeout=WAIT_S) for _ in range(3)]
    thread.stop(WAIT_S)
    assert told == [VitalsRead(Vitals(late=True))] * 2 + [VitalsRead(WARM)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reading_that_raises() -> None:
    """That is a defect: the thread ends, and says so."""
    inbox = queue.SimpleQueue[VitalsRead | ThreadDied]()

    def read() -> Vitals:
        raise RuntimeError("a defect")

    thread = VitalsThread(read, 0.05, inbox.put)
    thread.start()
    assert isinstance(inbox.get(timeout=WAIT_S), ThreadDied)
    thread.stop(WAIT_S)
