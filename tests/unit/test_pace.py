"""The duty cycle: work fills its share of the time, whatever the passes take and however the share changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.pace import PACE_MIN, Pace


def test_full_pace_never_rests() -> None:
    """Without a limit the next pass is due at once."""
    pace = Pace()
    pace.worked(10.0, 14.0)
    assert pace.rest_s(14.0) == 0.0


def test_nothing_done_nothing_owed() -> None:
    """The first pass is due at once, at any pace."""
    assert Pace(0.1).rest_s(5.0) == 0.0


@given(st.floats(PACE_MIN, 1.0), st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.0, 0.5)), min_size=5))
def test_share(share: float, passes: list[tuple[float, float]]) -> None:
    """Over any sequence of passes, begun as late as one likes, work is at most its share of the time."""
    pace, now, worked = Pace(share), 0.0, 0.0
    for length, idle in passes:
        now += pace.rest_s(now) + idle
        pace.worked(now, now + length)
        now, worked = now + length, worked + length
    now += pace.rest_s(now)
    assert worked <= share * now * (1 + 1e-9)


def test_change_holds_at_once() -> None:
    """A rest is measured by the pace that holds now, not by the one it began under."""
    pace = Pace(0.5)
    pace.worked(10.0, 12.0)
    assert pace.rest_s(12.5) == pytest.approx(1.5)
    pace.share = 0.25
    assert pace.rest_s(12.5) == pytest.approx(5.5)
    pace.share = 1.0
    assert pace.rest_s(12.5) == 0.0


@pytest.mark.parametrize("share", [0.0, -1.0, 2.0])
def test_out_of_bounds(share: float) -> None:
    """A pace out of its bounds is the nearest one inside: the engine neither stops for ever nor runs ahead."""
    pace = Pace(share)
    pace.worked(0.0, 1.0)
    assert pace.rest_s(1.0) == pytest.approx(0.0 if share > 1 else 1 / PACE_MIN - 1)
