"""Whom to believe: sensors that vanish, stand still or jump are taken out before anything is judged by them.

Only zones with a trip are watched: the others decide nothing. What is out of all reason (-273, text, nothing)
was turned into "no temperature" where it was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edged.core.vitals import Zone, nearest_trip, shutdown_c, span

State = Literal["ok", "missing", "stuck", "jumping"]

MISSING_S = 5.0
"""A sensor that says nothing for so long, and twice in a row, is missing; until then its last word counts. One that
is asked in the midst of a conversion answers "try again" (EAGAIN), which is no failure."""
JUMP_C = 20.0
"""A step larger than this is believed when the next reading agrees. A bare chip gains some 15 C in the first
second of full load, less on a board with any heatsink."""
JUMPS_MAX, JUMPS_S = 3, 60.0
"""A sensor that took back so many jumps within this time is not believed until it has been calm for as long."""
STUCK_S = 900.0
STUCK_BUSY_S = 120.0
"""A reading that never changed for `STUCK_S`, though the engine was busy and idle for `STUCK_BUSY_S` each, or
another zone moved by `STUCK_OTHER_C`, comes from a sensor that stands still."""
STUCK_OTHER_C = 10.0
OUTLIVED_S, OUTLIVED_C = 60.0, 30.0
"""A reading at or beyond the trip at which the kernel switches the board off is not believed where it has not moved
by the least step for so long, and all other zones that are believed are so much cooler: the board would be off, and
a chip so hot whose work was taken away cools down. Zones of one chip differ by some 10 C. Drivers say 125 or 127 C
where they can read nothing, often from the first reading on. Where no other zone tells, `STUCK_S` holds."""
STUCK_NEAR_C = 5.0
"""So near its trip a reading that never changed for `STUCK_S` is not believed either once the engine has rested
for `STUCK_BUSY_S`, and beyond the trip in any case: heat takes the work away there, so the engine may never be
busy again, and a chip that really is that hot cools down."""
PLACEHOLDER_C = 45.0
"""A reading that has stood still since the first one, and is so far below its trip, is no sensor's that broke but a
figure that a firmware makes up: `acpitz` of many PCs says 27.8 C for ever. It is not believed; nothing is lost."""


@dataclass(slots=True)
class _Track:
    """One sensor's history."""

    state: State = "ok"
    believed_c: float | None = None
    doubted_c: float | None = None
    seen: float = 0.0
    heard: float = 0.0
    silent: bool = False
    taken_back: tuple[float, ...] = ()
    still_since: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    others: tuple[float, float] | None = None
    room_c: float = 0.0
    outlived: bool = False
    first_c: float | None = None
    moved: bool = False

    @property
    def made_up(self) -> bool:
        """There never was a sensor behind it."""
        return self.state == "stuck" and not self.moved and self.room_c >= PLACEHOLDER_C


class Sensors:
    """The sensors of one board.

    Args:
        critical_c: how far below a trip that switches the board off its zone counts as beyond it.
    """

    def __init__(self, critical_c: float) -> None:
        self._critical_c = critical_c
        self._tracks: dict[str, _Track] = {}

    @property
    def states(self) -> dict[str, State]:
        """By zone, in the order in which they were first seen."""
        return {name: track.state for name, track in self._tracks.items()}

    @property
    def blind(self) -> bool:
        """There are sensors, and none of them can be believed."""
        states = [track.state for track in self._tracks.values() if not track.made_up]
        return bool(states) and all(state != "ok" for state in states)

    def look(self, zones: Sequence[Zone], now: float, *, busy: bool) -> tuple[Zone, ...]:
        """The zones with believable temperatures; the rest lose theirs.

        Args:
            zones: one reading, trips included.
            now: monotonic seconds.
            busy: whether the engine computed since the last reading.
        """
        trips = {
            zone.name: span(zone, trip, self._critical_c)[0]
            for zone in zones
            if (trip := nearest_trip(zone)) is not None
        }
        ends = {zone.name: shutdown_c(zone) for zone in zones}
        told = {zone.name: zone.temp_c for zone in zones if zone.name in trips}
        for name in told:
            self._tracks.setdefault(name, _Track(still_since=now, seen=now))
        for name, track in self._tracks.items():
            temp_c = told.get(name)
            if temp_c is None:
                if track.believed_c is None or (track.silent and now - track.heard >= MISSING_S):
                    track.state, track.believed_c, track.doubted_c = "missing", None, None
                track.silent = True
            else:
                track.heard, track.silent, track.room_c = now, False, trips[name] - temp_c
                others = [at for other, at in told.items() if other != name and at is not None]
                track.outlived = temp_c >= ends[name] and self._is_alone(name, temp_c, told)
                _follow(track, temp_c, others, now, busy=busy)
            track.seen = now
        return tuple(replace(zone, temp_c=self._believed(zone)) for zone in zones)

    def _is_alone(self, name: str, temp_c: float, told: Mapping[str, float | None]) -> bool:
        """Whether there are other zones to believe, and all are far cooler."""
        others = [
            at
            for other, at in told.items()
            if other != name and at is not None and self._tracks[other].state == "ok"
        ]
        return bool(others) and temp_c - max(others) >= OUTLIVED_C

    def _believed(self, zone: Zone) -> float | None:
        track = self._tracks.get(zone.name)
        if track is None:
            return zone.temp_c
        return track.believed_c if track.state == "ok" else None


def _follow(track: _Track, temp_c: float, others: list[float], now: float, *, busy: bool) -> None:
    before_c = track.believed_c
    track.first_c = temp_c if track.first_c is None else track.first_c
    track.moved = track.moved or temp_c != track.first_c
    jumps = before_c is not None and abs(temp_c - before_c) > JUMP_C
    confirmed = track.doubted_c is not None and abs(temp_c - track.doubted_c) <= JUMP_C / 2
    if jumps and not confirmed:
        if track.doubted_c is not None:
            track.taken_back = (*track.taken_back, now)
        track.doubted_c = temp_c
    else:
        if track.doubted_c is not None and not jumps:
            track.taken_back = (*track.taken_back, now)
        track.doubted_c, track.believed_c = None, temp_c
    _stillness(track, temp_c != before_c, others, now, busy=busy)
    track.taken_back = tuple(at for at in track.taken_back if now - at < JUMPS_S)
    if len(track.taken_back) >= JUMPS_MAX or (track.state == "jumping" and track.taken_back):
        track.state = "jumping"
    else:
        track.state = "stuck" if _stands_still(track, now) else "ok"


def _stillness(track: _Track, changed: bool, others: list[float], now: float, *, busy: bool) -> None:  # noqa: FBT001
    """Count how long the reading has not changed, and what happened around it meanwhile."""
    if changed:
        track.still_since, track.busy_s, track.idle_s, track.others = now, 0.0, 0.0, None
        return
    passed_s = now - track.seen
    track.busy_s += passed_s if busy else 0.0
    track.idle_s += 0.0 if busy else passed_s
    if others:
        coolest = min(others)
        low, high = track.others or (coolest, coolest)
        track.others = min(low, coolest), max(high, coolest)


def _stands_still(track: _Track, now: float) -> bool:
    still_s = now - track.still_since
    if track.outlived and still_s >= OUTLIVED_S:
        return True
    if still_s < STUCK_S:
        return False
    low, high = track.others or (0.0, 0.0)
    worked, rested = track.busy_s >= STUCK_BUSY_S, track.idle_s >= STUCK_BUSY_S
    hot = track.room_c <= 0 or (rested and track.room_c <= STUCK_NEAR_C)
    return (worked and rested) or high - low >= STUCK_OTHER_C or hot
