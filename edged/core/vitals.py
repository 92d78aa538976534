"""What was read from the board, and what it means for heat.

Here live the readings as values and the judgement of them: which are plausible, how far each zone is from
its own trip points, how hot that is in one word, how it looks in `health`. Reading files is the vitals
adapter's; how levels change over time (hysteresis, slope, what is shed) is the heat policy's. Pure
functions, any thread.

No absolute temperature decides anything here: boards differ by 30 C in what they call hot, so a zone is
judged against the trip points that its own kernel reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Level = Literal["cool", "warm", "hot", "critical"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""In ascending order."""

READABLE_C = (-40.0, 150.0)
"""What a junction sensor can say: Rockchip's TSADC table runs from -40 to 125 C. -273 and the like mean
"off"."""

TRIP_C = (40.0, 200.0)
"""What a trip that throttles or shuts down can be. Drivers report 0 or -274 for one that is not set, and
some PC firmwares 20 C for a zone that is not there."""

NEAR_ZERO_C = 20.0
"""An exact 0.0 is what a sleeping sensor says; it is believed only beside another zone within this of it."""

_THROTTLING = ("passive", "hot", "critical")  # nearest to farthest; "active" only starts a fan


@dataclass(frozen=True, slots=True)
class Trip:
    """A trip point: `kind` is the kernel's `active`, `passive`, `hot` or `critical`; degrees Celsius."""

    kind: str
    temp_c: float
    hysteresis_c: float | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """A thermal zone, its name unique on the board; `temp_c` None where the sensor told nothing plausible."""

    name: str
    temp_c: float | None = None
    trips: tuple[Trip, ...] = ()


@dataclass(frozen=True, slots=True)
class Clock:
    """Clock of the cores that change it together.

    Attributes:
        cores: their indices, ascending.
        now_hz: the clock asked for; what runs may be lower where firmware throttles by itself (Raspberry Pi).
        max_hz: the highest allowed at the moment.
        hardware_max_hz: the highest the hardware has.
        governor: cpufreq's.
    """

    cores: tuple[int, ...]
    now_hz: int | None = None
    max_hz: int | None = None
    hardware_max_hz: int | None = None
    governor: str | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """One reading of the board; what has no working sensor is None, never zero.

    Attributes:
        zones: thermal zones in the kernel's order.
        clocks: one per cpufreq policy.
        throttled: the kernel holds some core's clock below its hardware maximum (for heat, or because an
            operator said so). Firmware that throttles behind the kernel's back is not seen.
        cpu_cooling: one of the kernel's cooling devices does so.
        under_voltage: Raspberry Pi: the supply fell too low within the last 2 s.
        load_1m: load average of a minute.
        memory_total_bytes: of the board.
        memory_available_bytes: what can be had without swapping.
        late: no reading: one that hangs, told in its place, so all the rest is absent.
    """

    zones: tuple[Zone, ...] = ()
    clocks: tuple[Clock, ...] = ()
    throttled: bool | None = None
    cpu_cooling: bool | None = None
    under_voltage: bool | None = None
    load_1m: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    late: bool = False


def plausible_c(temp_c: float | None) -> float | None:
    """Return the temperature, or None where no working sensor would say that (-273, not a number, 10^6)."""
    if temp_c is None or not READABLE_C[0] <= temp_c <= READABLE_C[1]:  # also False for NaN
        return None
    return temp_c


def plausible_trip(trip: Trip) -> bool:
    """Whether the trip is set at all: a fan's at any readable temperature, the others within `TRIP_C`."""
    lowest, highest = TRIP_C if trip.kind in _THROTTLING else READABLE_C
    return lowest <= trip.temp_c <= highest


def without_sleepers(zones: Sequence[Zone]) -> tuple[Zone, ...]:
    """Take the temperature from zones that say exactly 0.0 while no other zone is cold."""
    awake = [abs(zone.temp_c) for zone in zones if zone.temp_c]
    if awake and min(awake) <= NEAR_ZERO_C:
        return tuple(zones)
    return tuple(replace(zone, temp_c=None) if zone.temp_c == 0 else zone for zone in zones)


def nearest_trip(zone: Zone) -> Trip | None:
    """Return the trip a heating zone meets first: its lowest `passive`, else `hot`, else `critical` one."""
    for kind in _THROTTLING:
        trips = [trip for trip in zone.trips if trip.kind == kind and plausible_trip(trip)]
        if trips:
            return min(trips, key=lambda trip: trip.temp_c)
    return None


def headroom_c(zones: Sequence[Zone]) -> float | None:
    """Return degrees left to the nearest trip, the smallest over all zones; below 0 past it.

    None where no zone has both a plausible temperature and a trip.
    """
    rooms = [
        trip.temp_c - temp_c
        for zone in zones
        if (temp_c := plausible_c(zone.temp_c)) is not None and (trip := nearest_trip(zone)) is not None
    ]
    return min(rooms, default=None)


def level(vitals: Vitals, *, warm_c: float, hot_c: float, critical_c: float) -> tuple[Level, str]:
    """Say how hot the board is, each zone measured by its own trips, and why in words.

    - warm: within `warm_c` of the nearest trip (`nearest_trip`);
    - hot: within `hot_c` of it;
    - critical: at the last passive trip or above, or within `critical_c` of a critical one.

    Between two passive trips a zone is hot: Rockchip's vendor kernels set the first (75 C) where their
    regulation begins to watch and the second (85 C) at the temperature it holds. A zone with a critical
    trip alone is measured from `critical_c` below that. The hottest zone decides; without any usable zone
    the board is cool.

    Args:
        vitals: one reading; nothing is remembered from the last.
        warm_c: degrees, 0 or more.
        hot_c: degrees, 0 to `warm_c`.
        critical_c: degrees, 0 or more.
    """
    judged = [
        (_zone_level(temp_c, begin_c, end_c, warm_c, hot_c), temp_c - trip.temp_c, zone.name, temp_c, trip)
        for zone in vitals.zones
        if (temp_c := plausible_c(zone.temp_c)) is not None and (trip := nearest_trip(zone)) is not None
        for begin_c, end_c in [span(zone, trip, critical_c)]
    ]
    if not judged:
        return "cool", "no zone tells both its temperature and a trip point"
    rank, excess_c, name, temp_c, trip = max(judged, key=lambda item: item[:2])
    side = "above" if excess_c > 0 else "below"
    distance = f"{abs(excess_c):.1f} C {side} its {trip.kind} trip of {trip.temp_c:.1f} C"
    reason = f"{name} is at {temp_c:.1f} C, {distance}"
    if vitals.throttled:
        reason += "; a clock is held below its hardware maximum"
    return LEVELS[rank], reason


def as_health(vitals: Vitals) -> dict[str, Any]:
    """Return the part of `health` that comes from the board, JSON-able, with what is absent left out.

    `zones` maps names to `temp_c` and `trips`; `clocks` lists `cores`, `now_hz`, `max_hz`,
    `hardware_max_hz` and `governor`; the rest are the fields of `Vitals`, and `headroom_c`.
    """
    clocks = [
        present(
            cores=list(clock.cores),
            now_hz=clock.now_hz,
            max_hz=clock.max_hz,
            hardware_max_hz=clock.hardware_max_hz,
            governor=clock.governor,
        )
        for clock in vitals.clocks
    ]
    room_c = headroom_c(vitals.zones)
    return present(
        zones=zones_as_json(vitals.zones),
        clocks=clocks,
        headroom_c=None if room_c is None else round(room_c, 3),
        throttled=vitals.throttled,
        under_voltage=vitals.under_voltage,
        load_1m=vitals.load_1m,
        memory_total_bytes=vitals.memory_total_bytes,
        memory_available_bytes=vitals.memory_available_bytes,
    )


def zones_as_json(zones: Iterable[Zone]) -> dict[str, Any]:
    """Return zones by name; what is absent is left out, and so are temperatures that no sensor can mean."""
    return {
        zone.name: present(
            temp_c=plausible_c(zone.temp_c),
            trips=[
                present(kind=trip.kind, temp_c=trip.temp_c, hysteresis_c=trip.hysteresis_c)
                for trip in zone.trips
            ],
        )
        for zone in zones
    }


def span(zone: Zone, nearest: Trip, critical_c: float) -> tuple[float, float]:
    """Return where the zone's throttling begins and where it is critical; the second is never the lower."""
    end_c = max(
        (trip.temp_c for trip in zone.trips if trip.kind == nearest.kind and plausible_trip(trip)),
        default=nearest.temp_c,
    )
    ceiling_c = shutdown_c(zone) - critical_c
    return min(nearest.temp_c, ceiling_c), min(end_c, ceiling_c)


def shutdown_c(zone: Zone) -> float:
    """Return where the kernel switches the board off for this zone's sake; infinite where it does not."""
    trips = [trip.temp_c for trip in zone.trips if trip.kind == "critical" and plausible_trip(trip)]
    return min(trips, default=math.inf)


def _zone_level(temp_c: float, begin_c: float, end_c: float, warm_c: float, hot_c: float) -> int:
    """Return the index into `LEVELS`."""
    if temp_c >= end_c:
        return 3
    if temp_c >= begin_c - hot_c:
        return 2
    return int(temp_c >= begin_c - warm_c)


def present(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return the fields that are there: neither None nor an empty collection."""
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}
