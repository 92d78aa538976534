"""Measured speeds and the estimates made of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.rates import Rates

NANOSECONDS = st.integers(0, 10**11).map(lambda count: count / 1e9)
PASSES = st.lists(
    st.tuples(NANOSECONDS, st.integers(0, 8), st.integers(0, 512)).filter(lambda one: one[1] + one[2] > 0)
)


def test_before_the_first() -> None:
    """Nothing measured promises nothing, and does not divide by it."""
    rates = Rates()
    assert (rates.step_s, rates.read_s, rates.written_per_s) == (0.0, 0.0, 0.0)
    assert rates.work_s(read=100, write=100) == 0.0


def test_first_measurements_count_in_full() -> None:
    """The first pass of a kind is the estimate."""
    rates = Rates()
    rates.passed(0.1, written=2, read=0)
    rates.passed(0.5, written=0, read=50)
    assert rates.step_s == 0.1
    assert rates.written_per_s == 20
    assert rates.read_s == pytest.approx(0.01)
    assert rates.work_s(read=100, write=10) == pytest.approx(2.0)


def test_moving_average() -> None:
    """Later passes move the estimate by a tenth, and many of them all the way."""
    rates = Rates()
    rates.passed(0.1, written=1, read=0)
    rates.passed(0.2, written=1, read=0)
    assert rates.step_s == pytest.approx(0.11)
    for _ in range(100):
        rates.passed(0.2, written=1, read=0)
    assert rates.step_s == pytest.approx(0.2, rel=1e-3)


def test_mixed_passes() -> None:
    """A pass that does both tells of reading what is left after the writing, and nothing of writing."""
    rates = Rates()
    rates.passed(0.1, written=1, read=0)
    rates.passed(0.3, written=1, read=20)
    assert rates.step_s == 0.1
    assert rates.read_s == pytest.approx(0.01)


def test_short_reads_do_not_count() -> None:
    """A few rows cost a whole pass: they say nothing of the speed of reading."""
    rates = Rates()
    rates.passed(0.1, written=0, read=3)
    assert rates.read_s == 0.0


def test_a_pass_with_drafts_counts_by_what_it_wrote() -> None:
    """Six tokens of two answers in 0.3 s are as three passes of 0.1 s."""
    rates = Rates()
    rates.drafted(0.3, answers=2, written=6)
    assert rates.step_s == pytest.approx(0.1)
    assert rates.written_per_s == pytest.approx(20)


def test_reading_follows_the_cores_at_once() -> None:
    """Also where a question would be refused, which goes by the last passes; or by what is expected before any."""
    rates = Rates()
    rates.expect(0.1, 0.02)
    assert rates.kinder().work_s(read=1, write=1) == pytest.approx(0.12)
    rates = Rates()
    rates.passed(0.5, written=0, read=50)
    rates.cores_changed(0.5)
    assert rates.read_s == rates.kinder().read_s == pytest.approx(0.02)


def test_refusals_go_by_the_last_passes() -> None:
    """One that stood still for ten seconds is no reason; two quick ones are believed at once."""
    rates = Rates()
    for seconds in (*[0.5] * 8, 10.0):
        rates.passed(seconds, written=1, read=0)
    assert rates.step_s > 1
    assert rates.kinder().step_s == 0.5
    for seconds in (0.2, 0.1):
        rates.passed(seconds, written=1, read=0)
    assert rates.kinder().step_s == 0.2


def test_answers() -> None:
    """The length of an average answer moves with those that were finished."""
    rates = Rates()
    for _ in range(100):
        rates.answered(10)
    assert rates.answer_tokens == pytest.approx(10, abs=1)


@given(PASSES)
def test_any_passes(passes: list[tuple[float, int, int]]) -> None:
    """Whatever clocks say, rates are finite and not negative."""
    rates = Rates()
    for seconds, written, read in passes:
        rates.passed(seconds, written=written, read=read)
        for value in (rates.step_s, rates.read_s, rates.written_per_s, rates.work_s(read=9, write=9)):
            assert value >= 0
            assert math.isfinite(value)
