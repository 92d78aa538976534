"""How levels change: up at once (to hot at the second reading that says so), down late.

A level ends when the board has been some degrees below its beginning for `dwell_s`; critical, which stops every
answer, already after `CRITICAL_DWELL_S`. A rise that would reach the trip soon lifts the level before its time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edged.core.heat.margins import Margins
from edged.core.vitals import LEVELS, Level, Vitals, level, plausible_c

HOT = LEVELS.index("hot")
CRITICAL_DWELL_S = 5.0
WARM_AHEAD_S, HOT_AHEAD_S = 60.0, 8.0
"""A cool board counts as warm when its rise would reach the trip within the first, a warm one as hot within the
second. The first readings after a start of load rise steeply and then slow down: hence the low figures."""


@dataclass(slots=True)
class Levels:
    """The level of one board over time."""

    margins: Margins
    rank: int = 0
    _hot_before: bool = False
    _cooler_since: float | None = None

    def step(self, vitals: Vitals, now: float, trip_in_s: float | None, floor: int) -> tuple[Level, str]:
        """The level after this reading, and why in words.

        Args:
            vitals: believable zones, all trips known.
            now: monotonic seconds.
            trip_in_s: time to the trip at the present rise; None for no rise.
            floor: index of the lowest level that something else than temperature asks for.
        """
        at, reason = self._judge(vitals, 0.0)
        ahead = self._ahead(at, trip_in_s)
        hot = max(at, ahead) >= HOT
        if max(at, ahead) == HOT and not self._hot_before and self.rank < HOT:
            at = ahead = HOT - 1  # one reading of a noisy sensor does not turn questions away
        self._hot_before = hot
        up = max(at, ahead, floor)
        down = max(self._judge(vitals, self.margins.ends_below_c(self.rank))[0], ahead, floor)
        if ahead > at:
            reason += f", which it would reach in {trip_in_s:.0f} s at this rise"
        if up > self.rank:
            self.rank, self._cooler_since = up, None
        elif down >= self.rank:
            self._cooler_since = None
        else:
            if self._cooler_since is None:
                self._cooler_since = now
            critical = self.rank == len(LEVELS) - 1
            dwell_s = min(self.margins.dwell_s, CRITICAL_DWELL_S) if critical else self.margins.dwell_s
            if now - self._cooler_since >= dwell_s:
                self.rank, self._cooler_since = down, None
        return LEVELS[self.rank], reason

    def _judge(self, vitals: Vitals, warmer_c: float) -> tuple[int, str]:
        """Index of the level at this temperature and some degrees more."""
        margins = self.margins
        zones = tuple(
            zone if (temp_c := plausible_c(zone.temp_c)) is None else replace(zone, temp_c=temp_c + warmer_c)
            for zone in vitals.zones
        )
        name, reason = level(
            replace(vitals, zones=zones),
            warm_c=margins.warm_c,
            hot_c=margins.hot_c,
            critical_c=margins.critical_c,
        )
        return LEVELS.index(name), reason

    def _ahead(self, at: int, trip_in_s: float | None) -> int:
        if trip_in_s is None:
            return 0
        if at >= 1 and trip_in_s <= HOT_AHEAD_S:
            return 2
        return 1 if trip_in_s <= WARM_AHEAD_S else 0
