"""What heat allows: the policy's table, the controller that holds a temperature, settings that contradict."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.heat.control import EFFORT_MIN, Control
from edged.core.heat.policy import TABLE, Ceiling, limits
from edged.core.pace import PACE_MIN
from edged.core.vitals import LEVELS

CEILING = Ceiling(context_max=2048, context_min=1024, slots=4, decode_threads=4, prefill_threads=4)
CEILINGS = st.builds(
    Ceiling,
    st.integers(1024, 8192),
    st.integers(256, 1024),
    st.integers(1, 16),
    st.integers(1, 8),
    st.integers(1, 8),
)
EFFORTS = st.floats(PACE_MIN, 1.0)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("cool", (2048, 4, False)),
        ("warm", (1536, 4, False)),
        ("hot", (1024, 2, False)),
        ("critical", (1024, 1, True)),
    ],
)
def test_levels(level: str, expected: tuple[int, int, bool]) -> None:
    """Context, slots and pause of each level, for the usual settings."""
    [row] = [name for name in LEVELS if name == level]
    told = limits(row, 1.0, CEILING)
    assert (told.context, told.slots, told.paused) == expected


@given(EFFORTS, CEILINGS)
def test_hotter_is_never_more(effort: float, ceiling: Ceiling) -> None:
    """From level to level nothing grows, and all stays within the ceiling."""
    told = [limits(level, effort, ceiling) for level in LEVELS]
    for one in told:
        assert ceiling.context_min <= one.context <= ceiling.context_max
        assert 1 <= one.slots <= ceiling.slots
        assert 1 <= one.decode_threads <= ceiling.decode_threads
        assert 1 <= one.prefill_threads <= ceiling.prefill_threads
        assert PACE_MIN <= one.pace <= 1.0
    for cooler, hotter in itertools.pairwise(told):
        assert hotter.context <= cooler.context
        assert hotter.slots <= cooler.slots
        assert hotter.decode_threads * hotter.pace <= cooler.decode_threads * cooler.pace + 1e-9
        assert hotter.paused >= cooler.paused
    rows = [TABLE[level] for level in LEVELS]
    for above, below in itertools.pairwise(rows):
        assert set(below.admits) <= set(above.admits)
        assert below.pools <= above.pools


@given(EFFORTS, EFFORTS, CEILINGS)
def test_more_effort_is_never_less(one: float, other: float, ceiling: Ceiling) -> None:
    """Threads go first and time last, and an effort is never overspent by more than its rounding."""
    low, high = sorted((one, other))
    less, more = limits("cool", low, ceiling), limits("cool", high, ceiling)
    assert less.decode_threads <= more.decode_threads
    assert less.pace <= more.pace
    assert more.pace == 1.0 or more.decode_threads == 1
    assert less.decode_threads / ceiling.decode_threads * less.pace <= max(PACE_MIN, low) + 0.01


# the controller -------------------------------------------------------------------------------------------


def settle(control: Control, ambient_c: float, full_c: float, seconds: int = 3600) -> tuple[float, float]:
    """A board of one time constant under the controller; returns the last temperature and the highest."""
    temp_c = highest_c = ambient_c
    rise = 0.0
    for n in range(seconds // 2):
        effort = control.step(80.0 - temp_c, rise, 2.0 * n, 1.0)
        rise = (ambient_c + full_c * effort - temp_c) / 120.0
        temp_c += 2.0 * rise
        highest_c = max(highest_c, temp_c)
    return temp_c, highest_c


@pytest.mark.parametrize("ambient_c", [20.0, 35.0, 45.0])
def test_holds_its_target(ambient_c: float) -> None:
    """A board that full power would take far beyond its target is held there, with little overshoot."""
    last_c, highest_c = settle(Control(), ambient_c, 70.0)
    assert last_c == pytest.approx(80.0, abs=0.5)
    assert highest_c <= 82.0


def test_leaves_a_cool_board_alone() -> None:
    """Where full power stays below the target the effort is 1 throughout."""
    control = Control()
    settle(control, 20.0, 40.0)
    assert control.effort == 1.0


def test_no_windup() -> None:
    """A day far below the target, or above it, does not delay the answer to a change."""
    for room_c, then, sign in ((40.0, -5.0, -1), (-40.0, 30.0, 1)):
        control = Control()
        for n in range(43_200):
            control.step(room_c, 0.0, 2.0 * n, 1.0)
        before = control.effort
        after = control.step(then, 0.0, 2.0 * 43_200, 1.0)
        assert (after - before) * sign > 0.2


def test_a_bound_that_is_lifted_is_left_from_where_it_was() -> None:
    """A supply that gave way is not asked for all of it again at once."""
    control = Control()
    for n in range(600):
        control.step(1.0, 0.0, 2.0 * n, 1.0)
    assert control.effort > 0.9
    control.step(0.0, 0.0, 1200.0, 0.5)
    assert control.step(0.0, 0.0, 1202.0, 1.0) == pytest.approx(0.5)


def test_hours_asleep_count_as_seconds() -> None:
    """A degree too warm before and after is not held to have been one all night."""
    control = Control()
    control.step(-1.0, 0.0, 0.0, 1.0)
    assert control.step(-1.0, 0.0, 30_000.0, 1.0) > 0.4


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-5, 5), st.floats(0, 1e5)), min_size=1))
def test_bounded(steps: list[tuple[float, float, float]]) -> None:
    """Whatever comes, the effort is a number between its bounds."""
    control, now = Control(), 0.0
    for room_c, rise, gap in steps:
        now += gap
        effort = control.step(room_c, rise, now, 0.5)
        assert EFFORT_MIN <= effort <= 0.5
        assert math.isfinite(effort)
