"""The heat of one board over time: readings in, verdicts out.

A verdict is all that the node acts on and tells: level and reason, the controller's effort, the time to the trip
and to cooler days, what has changed since the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edged.core.heat.control import Control
from edged.core.heat.edges import Edges
from edged.core.heat.levels import Levels
from edged.core.heat.margins import Margins, Nearest, nearest, with_known_trips
from edged.core.heat.policy import BLIND_EFFORT, TABLE, UNDER_VOLTAGE_EFFORT
from edged.core.heat.sensors import Sensors, State
from edged.core.heat.slope import Slope, time_to_trip_s
from edged.core.vitals import LEVELS, Level, Vitals, Zone, plausible_c

UNDER_VOLTAGE_S = 60.0
BLIND_HOLD_S = 60.0
"""A board that was hot when its last sensor failed counts as that hot for so long, and as warm afterwards."""
AMBIENT_C = 25.0
"""Assumed around the board until it has shown that it can be cooler."""
COOLING_S = 120.0
"""Assumed time constant of a heatsink that is not seen cooling just now."""
RETRY_S = (5.0, 600.0)
WARM = LEVELS.index("warm")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one reading means.

    Attributes:
        level, reason: how hot, and why in words.
        effort: share of its power that the engine may spend, see `policy.limits`.
        nearest: the zone that decides; None where no sensor tells.
        target_c: temperature that the controller holds in that zone.
        rise_c_per_s: its present rise.
        trip_in_s: time to its trip at that rise; None while it does not rise.
        retry_after_ms: when a refused question may come in; 0 where none is refused.
        sensors: what is wrong with which sensor.
        blind: there are sensors, and none can be believed.
        throttles, under_voltages: beginnings of each in this boot, as far as a daemon was there to see them.
        throttled, under_voltage: whether one begins (True) or has ended (False) with this reading, for `dwell_s`;
            None for neither.
        failed, mended: sensors that are not believed from this reading on, or have been again for `dwell_s`.
    """

    level: Level
    reason: str
    effort: float
    nearest: Nearest | None = None
    target_c: float | None = None
    rise_c_per_s: float = 0.0
    trip_in_s: float | None = None
    retry_after_ms: int = 0
    sensors: Mapping[str, State] = field(default_factory=dict)
    blind: bool = False
    throttles: int = 0
    under_voltages: int = 0
    throttled: bool | None = None
    under_voltage: bool | None = None
    failed: Mapping[str, State] = field(default_factory=dict)
    mended: tuple[str, ...] = ()


class Heat:
    """One board.

    Args:
        margins: from settings `[heat]`.
        board: its name, for trips that its kernel does not tell.
        trip_c: the operator's word on where it throttles.
        edges: what was counted before.
    """

    def __init__(
        self,
        margins: Margins,
        board: str | None = None,
        trip_c: float | None = None,
        edges: Edges | None = None,
    ) -> None:
        self._margins = margins
        self._board = board
        self._trip_c = trip_c
        self._sensors = Sensors(margins.critical_c)
        self._slopes: dict[str, Slope] = {}
        self._levels = Levels(margins)
        self._control = Control()
        self._coolest_c = math.inf
        self._seen_at: float | None = None
        self._seen_rank = 0
        self.edges = Edges() if edges is None else edges
        self._low_at = -math.inf
        self._failed: set[str] = set()
        self._well_since: dict[str, float] = {}

    def known(self, vitals: Vitals) -> Vitals:
        """The reading with the trips that the kernel does not tell, for whoever shows it; twice is as once."""
        return replace(vitals, zones=with_known_trips(vitals.zones, self._board, self._trip_c))

    def step(self, vitals: Vitals, now: float, *, busy: bool) -> Verdict:
        """Judge one reading.

        Args:
            vitals: as read, or as `known` gives it.
            now: monotonic seconds, later than the time before.
            busy: whether the engine computed since then.
        """
        margins = self._margins
        zones = self.known(vitals).zones
        believed = replace(vitals, zones=self._sensors.look(zones, now, busy=busy))
        # Also where the first reading ever hangs, and it is not known yet that there are sensors.
        states, blind = self._sensors.states, self._sensors.blind or vitals.late
        near = nearest(believed.zones, margins.critical_c)
        rise = self._rise(believed.zones, near, now)
        trip_in_s = None if near is None else time_to_trip_s(near.excess_c, rise)
        throttled, low = self.edges.step(vitals, now, margins.dwell_s)
        if vitals.under_voltage:  # the firmware clears its word on the supply itself
            self._low_at = now
        relieved = now - self._low_at < UNDER_VOLTAGE_S
        floor = max(WARM if relieved else 0, self._blind_floor(now, blind=blind))
        level, reason = self._levels.step(believed, now, trip_in_s, floor)
        if vitals.late:
            reason = "no sensor can be believed: reading them hangs"
        elif blind:
            reason = "no sensor can be believed: " + _listed(states)
        elif relieved:
            reason += "; the supply's voltage was too low"
        if not blind:
            self._seen_at, self._seen_rank = now, self._levels.rank
        most = min(
            TABLE[level].effort,
            UNDER_VOLTAGE_EFFORT if relieved else 1.0,
            BLIND_EFFORT if blind else 1.0,
        )
        room_c = math.inf if near is None else -near.excess_c - margins.target_c
        effort = most if near is None else self._control.step(room_c, rise, now, most)
        failed, mended = self._news_of_sensors(states, now)
        return Verdict(
            level=level,
            reason=reason,
            effort=effort,
            nearest=near,
            target_c=None if near is None else near.trip_c - margins.target_c,
            rise_c_per_s=rise,
            trip_in_s=trip_in_s,
            retry_after_ms=self._retry_ms(level, near, rise),
            sensors={name: state for name, state in states.items() if state != "ok"},
            blind=blind,
            throttles=self.edges.throttling.count,
            under_voltages=self.edges.supply.count,
            throttled=throttled,
            under_voltage=low,
            failed=failed,
            mended=mended,
        )

    def _news_of_sensors(
        self, states: Mapping[str, State], now: float
    ) -> tuple[dict[str, State], tuple[str, ...]]:
        """Which failed, and which were well for `dwell_s` since: a loose contact is no news by the second."""
        failed: dict[str, State] = {}
        mended = []
        for name, state in states.items():
            if state != "ok":
                self._well_since.pop(name, None)
                if name not in self._failed:
                    failed[name] = state
            elif (
                name in self._failed and now - self._well_since.setdefault(name, now) >= self._margins.dwell_s
            ):
                mended.append(name)
                del self._well_since[name]
        self._failed = (self._failed | failed.keys()) - set(mended)
        return failed, tuple(mended)

    def _rise(self, zones: Sequence[Zone], near: Nearest | None, now: float) -> float:
        """Of the zone that decides; all are followed, for two of nearly the same heat take turns."""
        for zone in zones:
            if (temp_c := plausible_c(zone.temp_c)) is None:
                self._slopes.pop(zone.name, None)
            else:
                self._slopes.setdefault(zone.name, Slope()).add(now, temp_c)
        if near is None:
            return 0.0
        self._coolest_c = min(self._coolest_c, near.temp_c)
        return self._slopes[near.zone].c_per_s

    def _blind_floor(self, now: float, *, blind: bool) -> int:
        if not blind:
            return 0
        held = self._seen_at is not None and now - self._seen_at < BLIND_HOLD_S
        return max(WARM, self._seen_rank if held else 0)

    def _retry_ms(self, level: Level, near: Nearest | None, rise: float) -> int:
        """When the level may have ended, by Newton's law of cooling; its time constant as it is seen now."""
        margins = self._margins
        if TABLE[level].pools:
            return 0
        wait_s = margins.dwell_s
        if near is not None:
            ambient_c = min(AMBIENT_C, self._coolest_c)
            ends_c = near.trip_c - margins.hot_c - margins.ends_below_c(LEVELS.index("hot"))
            above_c, left_c = near.temp_c - ambient_c, max(1.0, ends_c - ambient_c)
            constant_s = min(900.0, max(30.0, above_c / -rise)) if rise < 0 else COOLING_S
            if above_c > left_c:
                wait_s += constant_s * math.log(above_c / left_c)
        return round(1000 * min(RETRY_S[1], max(RETRY_S[0], wait_s)))


def _listed(states: Mapping[str, State]) -> str:
    return ", ".join(f"{name} is {state}" for name, state in states.items() if state != "ok")
