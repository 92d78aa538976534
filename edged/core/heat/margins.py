"""How near a zone may come to its own trip points, and the trips of boards whose kernels do not tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from edged.core.vitals import Trip, Zone, nearest_trip, plausible_c, span

RASPBERRY = "Raspberry Pi"
FIRMWARE_TRIPS_C = (80.0, 85.0)
"""A Raspberry Pi's firmware slows the cores from 80 C on, and all it has at 85 C, behind the kernel's back: no trip
point says so (Raspberry Pi documentation, "Frequency management and thermal control"). The 3B+ loses 0.2 GHz at
60 C already, which costs less than holding it below would."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Degrees Celsius below a zone's trips, from settings `[heat]`; warm > target > hot.

    Attributes:
        warm_c, hot_c: below the first trip that throttles, where the levels begin.
        critical_c: below a trip that switches the board off.
        target_c: below the first trip that throttles: the temperature that the pace holds.
        hysteresis_c: how far below its beginning a level ends; hot ends above the target in any case, or a board
            that is held there would stay hot for ever.
        dwell_s: how long it must have been that cool.
    """

    warm_c: float = 15.0
    hot_c: float = 1.0
    critical_c: float = 5.0
    target_c: float = 2.5
    hysteresis_c: float = 3.0
    dwell_s: float = 30.0

    def ends_below_c(self, rank: int) -> float:
        """How far below its beginning the level of this index ends."""
        hot = 2
        return min(self.hysteresis_c, (self.target_c - self.hot_c) / 2) if rank == hot else self.hysteresis_c


@dataclass(frozen=True, slots=True)
class Nearest:
    """The zone that is nearest to its trip, or farthest beyond it.

    Attributes:
        zone: its name.
        temp_c: its temperature.
        trip_c: where its throttling begins.
    """

    zone: str
    temp_c: float
    trip_c: float

    @property
    def excess_c(self) -> float:
        """Degrees beyond the trip; negative below it."""
        return self.temp_c - self.trip_c


def of_section(section: object) -> Margins:
    """The margins of a section of settings, which names them alike."""
    return Margins(**{one.name: getattr(section, one.name) for one in fields(Margins)})


def with_known_trips(zones: Sequence[Zone], board: str | None, trip_c: float | None) -> tuple[Zone, ...]:
    """Add the trips that the kernel does not tell: the operator's `trip_c`, else a Raspberry Pi's firmware's.

    A zone with a `passive` trip of its own keeps what it says. The firmware's go to the processor's zone only,
    an operator's to every zone that has a sensor.
    """
    raspberry = board is not None and board.startswith(RASPBERRY)
    if trip_c is None and not raspberry:
        return tuple(zones)
    temps = FIRMWARE_TRIPS_C if trip_c is None else (trip_c,)
    added = tuple(Trip("passive", temp_c) for temp_c in temps)
    return tuple(
        zone
        if any(trip.kind == "passive" for trip in zone.trips)
        or (trip_c is None and not zone.name.startswith("cpu"))
        else replace(zone, trips=(*zone.trips, *added))
        for zone in zones
    )


def nearest(zones: Sequence[Zone], critical_c: float) -> Nearest | None:
    """The zone that decides; None where no zone tells both its temperature and a trip."""
    found = [
        Nearest(zone.name, temp_c, span(zone, trip, critical_c)[0])
        for zone in zones
        if (temp_c := plausible_c(zone.temp_c)) is not None and (trip := nearest_trip(zone)) is not None
    ]
    return max(found, key=lambda one: one.excess_c, default=None)
