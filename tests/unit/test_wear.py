"""The allowance of writes: no more than a day's share for each day of running, and one more at the start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.core.wear import DAY_S, Allowance


def test_it_runs_out_and_fills_up() -> None:
    """What is used up comes back with the time that the node runs, up to a day's share."""
    allowance = Allowance(1000, 1000.0, 0.0)
    assert allowance.take(700, 0.0)
    assert not allowance.take(301, 0.0)
    assert allowance.take(300, 0.0)
    assert not allowance.take(501, DAY_S / 2)
    assert allowance.take(500, DAY_S / 2)
    assert not allowance.take(1, DAY_S / 2)
    assert not allowance.take(1001, 100 * DAY_S)
    assert allowance.take(1000, 100 * DAY_S)


@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 3 * DAY_S)), max_size=40))
def test_the_bound(asked: list[tuple[int, float]]) -> None:
    """Whatever is asked for and when, no more is given than was promised."""
    allowance, now, given_out = Allowance(1000, 1000.0, 0.0), 0.0, 0
    for size, pause_s in asked:
        now += pause_s
        given_out += size * allowance.take(size, now)
        assert given_out <= 1000 + 1000 * now / DAY_S + 1e-6
        assert 0 <= allowance.left_bytes <= 1000
