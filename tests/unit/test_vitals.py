"""The judgement of the board's vitals: what is plausible, how far the trips are, how hot that is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.vitals import (
    LEVELS,
    Trip,
    Vitals,
    Zone,
    as_health,
    headroom_c,
    nearest_trip,
    plausible_c,
    plausible_trip,
    without_sleepers,
)
from edged.core.vitals import (
    level as level_within,
)

PASSIVE = Trip("passive", 85.0, 2.0)
CRITICAL = Trip("critical", 115.0, 0.0)

trips = st.builds(
    Trip,
    kind=st.sampled_from(["active", "passive", "hot", "critical", "odd"]),
    temp_c=st.floats() | st.floats(40, 130),
    hysteresis_c=st.none() | st.floats(),
)
zones = st.builds(
    Zone,
    name=st.text(min_size=1, max_size=8),
    temp_c=st.none() | st.floats() | st.floats(-40, 150),
    trips=st.lists(trips, max_size=4).map(tuple),
)

level = partial(level_within, warm_c=15.0, hot_c=5.0, critical_c=5.0)


def at(temp_c: float | None, *trips: Trip) -> Vitals:
    """Make a board of one zone."""
    return Vitals(zones=(Zone("soc", temp_c, trips),))


@pytest.mark.parametrize(
    ("temps_c", "expected"),
    [
        ((0.0, 45.0), (None, 45.0)),
        ((0.0, 1.5), (0.0, 1.5)),
        ((0.0, -3.0), (0.0, -3.0)),
        ((0.0, None), (None, None)),
    ],
)
def test_zero_is_believed_only_in_the_cold(
    temps_c: tuple[float | None, ...], expected: tuple[float | None, ...]
) -> None:
    """A zone at exactly 0 is asleep beside a warm one and real beside a cold one."""
    found = without_sleepers([Zone(str(n), temp_c) for n, temp_c in enumerate(temps_c)])
    assert tuple(zone.temp_c for zone in found) == expected


@pytest.mark.parametrize("temp_c", [-273.0, -274.0, -40.1, 150.1, 1e6, float("nan"), float("inf"), None])
def test_implausible_temperatures(temp_c: float | None) -> None:
    """No sensor on a board says such a thing."""
    assert plausible_c(temp_c) is None


@pytest.mark.parametrize("temp_c", [-40.0, -0.5, 25.0, 150.0])
def test_plausible_temperatures(temp_c: float) -> None:
    """What a sensor can say passes unchanged."""
    assert plausible_c(temp_c) == temp_c


@pytest.mark.parametrize(
    "trip",
    [
        Trip("passive", 0.0),
        Trip("passive", -274.0),
        Trip("critical", 20.8),
        Trip("critical", 255.0),
        Trip("critical", float("nan")),
    ],
)
def test_trips_that_are_not_set(trip: Trip) -> None:
    """Placeholders of drivers and firmware are no trips."""
    assert not plausible_trip(trip)


@pytest.mark.parametrize("trip", [Trip("active", 35.0), Trip("passive", 40.0), PASSIVE, CRITICAL])
def test_trips_that_are_set(trip: Trip) -> None:
    """What throttles lies above any room's temperature; a fan may start early."""
    assert plausible_trip(trip)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((CRITICAL, Trip("hot", 100.0), Trip("passive", 95.0), PASSIVE), PASSIVE),
        ((CRITICAL, Trip("hot", 100.0)), Trip("hot", 100.0)),
        ((Trip("active", 50.0), CRITICAL), CRITICAL),
        ((Trip("active", 50.0),), None),
        ((Trip("passive", 0.0), CRITICAL), CRITICAL),
    ],
)
def test_nearest_trip(found: tuple[Trip, ...], expected: Trip | None) -> None:
    """The lowest passive trip, else hot, else critical; never a fan's or one that is not set."""
    assert nearest_trip(Zone("soc", 40.0, found)) == expected


def test_headroom_is_the_smallest_of_the_usable_zones() -> None:
    """Zones without a temperature or a trip do not count; past the trip it is negative."""
    assert headroom_c([Zone("a", 80.0, (PASSIVE,)), Zone("b", 100.0), Zone("c", None, (PASSIVE,))]) == 5.0
    assert headroom_c([Zone("a", 87.0, (PASSIVE,)), Zone("b", 20.0, (PASSIVE,))]) == -2.0
    assert headroom_c([]) is None


@pytest.mark.parametrize(
    ("temp_c", "found", "expected"),
    [
        (69.9, (PASSIVE, CRITICAL), "cool"),
        (70.0, (PASSIVE, CRITICAL), "warm"),
        (79.9, (PASSIVE, CRITICAL), "warm"),
        (80.0, (PASSIVE, CRITICAL), "hot"),
        (84.9, (PASSIVE, CRITICAL), "hot"),
        (85.0, (PASSIVE, CRITICAL), "critical"),
        # a critical trip close above the passive one comes first
        (82.0, (PASSIVE, Trip("critical", 87.0)), "critical"),
        (78.0, (PASSIVE, Trip("critical", 87.0)), "hot"),
        # a critical trip alone
        (89.9, (CRITICAL,), "cool"),
        (95.0, (CRITICAL,), "warm"),
        (105.0, (CRITICAL,), "hot"),
        (110.0, (CRITICAL,), "critical"),
        # where regulation begins and what it holds
        (70.0, (Trip("passive", 75.0), PASSIVE, CRITICAL), "hot"),
        (80.0, (Trip("passive", 75.0), PASSIVE, CRITICAL), "hot"),
        (85.0, (Trip("passive", 75.0), PASSIVE, CRITICAL), "critical"),
        # nothing to measure by
        (140.0, (), "cool"),
        (-273.0, (PASSIVE,), "cool"),
        (None, (PASSIVE,), "cool"),
    ],
)
def test_level_goes_by_the_zone_s_own_trips(
    temp_c: float | None, found: tuple[Trip, ...], expected: str
) -> None:
    """Warm within 15 C of the nearest trip, hot within 5; critical at the last passive, 5 below critical."""
    assert level(at(temp_c, *found))[0] == expected


def test_the_hottest_zone_decides_and_is_named() -> None:
    """The reason names zone, temperature, distance and trip."""
    cool, hot = Zone("littlecore", 50.0, (PASSIVE,)), Zone("bigcore0", 82.0, (PASSIVE, CRITICAL))
    assert level(Vitals(zones=(cool, hot))) == (
        "hot",
        "bigcore0 is at 82.0 C, 3.0 C below its passive trip of 85.0 C",
    )
    above = level(at(86.0, PASSIVE))
    assert above == ("critical", "soc is at 86.0 C, 1.0 C above its passive trip of 85.0 C")


def test_margins_can_be_set() -> None:
    """Wider margins make the same temperature hotter."""
    assert level(at(60.0, PASSIVE))[0] == "cool"
    assert level(at(60.0, PASSIVE), warm_c=30.0)[0] == "warm"
    assert level(at(60.0, PASSIVE), warm_c=30.0, hot_c=25.0)[0] == "hot"
    assert level(at(60.0, CRITICAL), critical_c=60.0)[0] == "critical"


@given(st.builds(Vitals, zones=st.lists(zones, max_size=5).map(tuple), throttled=st.none() | st.booleans()))
def test_any_reading_has_a_level_and_a_reason(vitals: Vitals) -> None:
    """Whatever the sensors say, judging it does not raise."""
    heat, reason = level(vitals)
    assert heat in LEVELS
    assert reason
    headroom_c(vitals.zones)


@given(st.lists(zones, min_size=1, max_size=4), st.floats(-40, 150), st.floats(0, 190))
def test_a_hotter_zone_never_makes_the_board_cooler(found: list[Zone], temp_c: float, rise_c: float) -> None:
    """The level does not fall when one zone's temperature rises, within what sensors can say."""
    before = Vitals(zones=(replace(found[0], temp_c=temp_c), *found[1:]))
    after = Vitals(zones=(replace(found[0], temp_c=min(temp_c + rise_c, 150.0)), *found[1:]))
    assert LEVELS.index(level(after)[0]) >= LEVELS.index(level(before)[0])


def test_health_leaves_out_what_is_absent() -> None:
    """A zone that cannot be read keeps its trips; a trip without hysteresis has none."""
    assert as_health(at(None, Trip("critical", 115.0))) == {
        "zones": {"soc": {"trips": [{"kind": "critical", "temp_c": 115.0}]}}
    }
