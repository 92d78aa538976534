"""The engine process obeys `SetLimits` between two passes, with a scripted model: pauses, paces, fewer slots."""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from configured import configured
from device import WAIT_S
from scripted import submit

from edged.core.question import Message
from edged.engine.client import EngineClient, EngineGone, EngineSaid
from edged.engine.messages import (
    Cancel,
    Configure,
    Ended,
    Piece,
    Prepared,
    Pulse,
    Ready,
    Report,
    SetLimits,
    Started,
)

ENGINE = (sys.executable, str(Path(__file__).parents[1] / "scripted_engine.py"))
SETUP = configured(
    slots=2, context=1024, decode_threads=2, prefill_threads=2, cores=tuple(sorted(os.sched_getaffinity(0)))
)
FREE = SetLimits(1024, 2, 2, 2)


class Engine:
    """A running engine process, and everything it says."""

    def __init__(self, setup: Configure = SETUP) -> None:
        self.said: list[Report] = []
        self._inbox: queue.SimpleQueue[EngineSaid | EngineGone] = queue.SimpleQueue()
        self.client = EngineClient(self._inbox.put, ENGINE)
        self.client.start(setup)
        self.wait(lambda report: isinstance(report, Ready))

    def wait(self, test: Callable[[Report], object]) -> Report:
        """The next report that passes."""
        end = time.monotonic() + WAIT_S
        while True:
            event = self._inbox.get(timeout=max(0.01, end - time.monotonic()))
            assert isinstance(event, EngineSaid), f"the engine ended: {event}"
            self.said.append(event.report)
            if test(event.report):
                return event.report

    def ask(self, number: int, text: str) -> None:
        """Submit a question that begins at once."""
        self.client.send(submit(number, Message("user", text)))

    def limit(self, limits: SetLimits) -> Pulse:
        """Give limits; returns the first pulse that shows them."""
        self.client.send(limits)
        shown = (limits.slots, limits.pace, limits.paused, limits.context)
        pulse = self.wait(lambda r: isinstance(r, Pulse) and (r.slots, r.pace, r.paused, r.context) == shown)
        assert isinstance(pulse, Pulse)
        return pulse

    def ended(self, number: int) -> Ended:
        """How a question ends."""
        ended = self.wait(lambda r: isinstance(r, Ended) and r.number == number)
        assert isinstance(ended, Ended)
        return ended


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine process."""
    running = Engine()
    yield running
    running.client.stop(5.0)


def test_pause_and_resume(engine: Engine) -> None:
    """Paused, the engine pulses on without a step and answers a cancel; resumed, the answer is whole."""
    engine.ask(1, "tokens=40 step_ms=20")
    engine.ask(2, "tokens=40 step_ms=20")
    engine.wait(lambda r: isinstance(r, Piece) and r.number == 2)
    first = engine.limit(SetLimits(1024, 2, 2, 2, paused=True))
    engine.client.send(Cancel(2))
    assert engine.ended(2).outcome == "cancelled"
    later = engine.wait(lambda r: isinstance(r, Pulse))
    assert isinstance(later, Pulse)
    assert (later.steps, later.running, later.busy) == (first.steps, 1, False)
    engine.client.send(FREE)
    assert engine.ended(1).text == "".join(f"w{n} " for n in range(40))


def test_pace_leaves_time(engine: Engine) -> None:
    """At a quarter of the pace an answer of 20 passes of 20 ms takes at least 1.6 s, and cancels come through."""
    engine.limit(SetLimits(1024, 2, 2, 2, pace=0.25))
    engine.ask(1, "tokens=20 step_ms=20")
    ended = engine.ended(1)
    assert ended.text == "".join(f"w{n} " for n in range(20))
    assert ended.timings.decode_ms >= 0.9 * 1600
    engine.ask(2, "tokens=20 step_ms=2000")
    engine.wait(lambda r: isinstance(r, Piece) and r.number == 2)
    engine.client.send(Cancel(2))
    assert engine.ended(2).outcome == "cancelled"


def test_no_pass_looks_like_a_hang() -> None:
    """However many tokens a pass may hold, it takes a share of `hang_s` at most, and pulses go on."""
    setup = msgspec.structs.replace(SETUP, batch_tokens=4096, step_s=0.01, read_s=0.01, hang_s=4.0)
    engine = Engine(setup)
    engine.ask(1, "read_ms=10 tokens=3 " + "word " * 400)
    at, gaps = time.monotonic(), [0.0]
    while not isinstance(engine.wait(lambda _: True), Ended):
        gaps.append(time.monotonic() - at)
        at += gaps[-1]
    engine.client.stop(5.0)
    assert max(gaps) < setup.hang_s / 2


def test_fewer_slots_and_less_context(engine: Engine) -> None:
    """What runs keeps its slot and its context; the next question is measured and admitted by the new limits."""
    engine.ask(1, "tokens=30 step_ms=20")
    engine.ask(2, "tokens=30 step_ms=20")
    engine.wait(lambda r: isinstance(r, Piece) and r.number == 2)
    engine.limit(SetLimits(512, 1, 1, 1))
    engine.ask(3, "tokens=3")
    prepared = engine.wait(lambda r: isinstance(r, Prepared) and r.number == 3)
    assert isinstance(prepared, Prepared)
    assert prepared.context == 512
    engine.ended(3)
    order = [r.number for r in engine.said if isinstance(r, Ended | Started)]
    assert order.index(3) > 2, "the third began before one of the others had ended"
    texts = {r.number: r.text for r in engine.said if isinstance(r, Ended)}
    assert texts == {n: "".join(f"w{at} " for at in range(30 if n < 3 else 3)) for n in (1, 2, 3)}
