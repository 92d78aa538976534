"""A server that fails is left alone for a while, then tried by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.breaker import FAILURES, PAUSE_MAX_S, PAUSE_S, Breaker


def broken(now: float = 0.0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker()
    for number in range(FAILURES):
        breaker = breaker.entered(number).failed(number, now)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """And an answer in between begins the count anew."""
    breaker = Breaker().failed(1, 0).failed(2, 0).succeeded().failed(3, 0).failed(4, 0)
    assert (breaker.state, breaker.allows(0)) == ("closed", True)
    assert (breaker.failed(5, 0).state, breaker.failed(5, 0).allows(0)) == ("open", False)


def test_one_tries_after_the_pause() -> None:
    """Others wait for its luck: success closes, failure doubles the pause, a cancel lets the next one try."""
    breaker = broken()
    assert not breaker.allows(PAUSE_S - 0.1)
    assert breaker.retry_after_s(4.0) == PAUSE_S - 4
    assert breaker.allows(PAUSE_S)
    trying = breaker.entered(9)
    assert (trying.state, trying.allows(PAUSE_S + 1)) == ("probing", False)
    assert trying.retry_after_s(PAUSE_S + 1) > 0
    assert trying.succeeded() == Breaker()
    again = trying.failed(9, PAUSE_S)
    assert not again.allows(PAUSE_S + 2 * PAUSE_S - 0.1)
    assert again.allows(PAUSE_S + 2 * PAUSE_S)
    assert trying.left(9).allows(PAUSE_S)


def test_a_server_that_is_gone_for_hours_is_tried_again_and_again() -> None:
    """The pause doubles up to a bound."""
    breaker, now = broken(), 0.0
    for number in range(20):
        now += PAUSE_MAX_S
        assert breaker.allows(now)
        breaker = breaker.entered(number).failed(number, now)
    assert not breaker.allows(now + PAUSE_MAX_S - 0.1)


def test_those_who_passed_before_it_opened_change_nothing() -> None:
    """Their failures come late and are no news; nor do they end the try of another one."""
    trying = broken().entered(9)
    assert broken().failed(1, 5.0) == broken()
    assert trying.failed(1, PAUSE_S) == trying.left(1) == trying


def test_the_others_do_not_wait_for_the_end_of_the_first_answer() -> None:
    """Which may take minutes; a server that breaks in the midst of it is left alone for twice as long."""
    trying = broken().entered(9)
    assert trying.begun(8) == trying
    begun = trying.begun(9)
    assert (begun.state, begun.allows(PAUSE_S)) == ("closed", True)
    assert begun.succeeded() == Breaker()
    again = begun.failed(9, PAUSE_S)
    assert (again.state, again.retry_after_s(PAUSE_S)) == ("open", 2 * PAUSE_S)
    assert Breaker().failed(1, 0).begun(1) == Breaker().failed(1, 0)


@pytest.mark.parametrize(("told_s", "waits_s"), [(0.0, 1.0), (7.0, 7.0), (86_400.0, PAUSE_MAX_S)])
def test_a_server_that_says_when(told_s: float, waits_s: float) -> None:
    """It is left alone for so long, from the first time on and however often it says so."""
    breaker, now = Breaker(), 0.0
    for number in range(3):
        breaker = breaker.entered(number).failed(number, now, told_s)
        assert breaker.retry_after_s(now) == waits_s
        assert breaker.failed(99, now, 50.0) == breaker
        now += waits_s
        assert breaker.allows(now)
    assert breaker.entered(9).failed(9, now).pause_s == 2 * PAUSE_S


@given(
    st.lists(
        st.tuples(st.sampled_from(["fail", "wait", "begin", "succeed", "leave"]), st.floats(0, 400)),
        max_size=40,
    )
)
def test_it_never_locks_for_ever(steps: list[tuple[str, float]]) -> None:
    """Whatever happened, after the longest pause somebody may try."""
    breaker, now = Breaker(), 0.0
    for number, (what, wait) in enumerate(steps):
        now += wait
        if breaker.allows(now):
            breaker = breaker.entered(number)
            match what:
                case "fail":
                    breaker = breaker.failed(number, now)
                case "wait":
                    breaker = breaker.failed(number, now, wait)
                case "begin":
                    breaker = breaker.begun(number)
                case "succeed":
                    breaker = breaker.succeeded()
                case _:
                    breaker = breaker.left(number)
        assert breaker.allows(now + PAUSE_MAX_S)
        assert breaker.pause_s <= PAUSE_MAX_S
