"""What heat and other programs leave of the engine, and how much slower its cores are for it."""

from __future__ import annotations

from math import prod

import pytest

from edged.core.pace import PACE_MIN
from edged.engine.limits import CLOCK_SHARE_MIN, Limits
from edged.engine.messages import SetLimits


def limits() -> Limits:
    """Of an engine with four slots, two threads to write and four to read."""
    return Limits(slots=4, decode_threads=2, prefill_threads=4)


def told(prefill_threads: int = 4, clock: float = 1.0) -> SetLimits:
    """What heat leaves."""
    return SetLimits(
        context=2048, slots=4, decode_threads=2, prefill_threads=prefill_threads, pace=1.0, clock=clock
    )


def test_nothing_beyond_the_start_and_never_nothing() -> None:
    """Whatever is told, the engine has a slot, a thread, some of the time; and no more than at its start."""
    one = limits()
    one.obey(SetLimits(context=2048, slots=0, decode_threads=0, prefill_threads=0, pace=0.0, clock=1.0))
    assert (one.slots, one.decode_threads, one.prefill_threads, one.pace.share) == (1, 1, 1, PACE_MIN)
    one.obey(SetLimits(context=2048, slots=9, decode_threads=9, prefill_threads=9, pace=9.0, clock=1.0))
    assert (one.slots, one.decode_threads, one.prefill_threads, one.pace.share) == (4, 2, 4, 1.0)
    assert one.threads_max == 4


def test_how_much_slower() -> None:
    """By threads and clock; those left to other programs do not count."""
    one = limits()
    assert one.obey(told(prefill_threads=1)) == 0.25
    assert one.obey(told(prefill_threads=2, clock=0.5)) == 1.0
    assert one.obey(told(clock=9.0)) == 4.0
    assert one.obey(told(clock=0.0)) == CLOCK_SHARE_MIN
    one = limits()
    assert one.confine(2, 0) == 0.5
    assert (one.prefill_threads, one.decode_threads) == (2, 2)
    assert one.confine(2, 1) == 1.0
    assert (one.prefill_threads, one.decode_threads) == (1, 1)
    assert one.confine(4, 0) == 2.0
    assert one.confine(0, 0) == 0.25
    assert (one.prefill_threads, one.decode_threads) == (1, 1)


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2)])
def test_as_fast_as_before_when_all_is_as_before(before: int, after: int) -> None:
    """Threads that were left to others when heat came, and not when it went, made all twice as fast for good."""
    one = limits()
    steps = [
        one.confine(4, before),
        one.obey(told(prefill_threads=2)),
        one.confine(4, after),
        one.obey(told()),
        one.confine(4, 0),
    ]
    assert prod(steps) == 1.0
