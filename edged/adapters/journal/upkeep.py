"""What keeps the journal small: its own clock, pruning by age and size, giving free pages back.

Each function runs within a transaction of `writer`, in the thread that owns the connection.

Ages are counted in the journal's own time: the seconds during which it has been in use, plus those between
two uses within one boot. A wall clock that jumps by a year, or stands in 1970, deletes nothing; time spent
without power does not count, so a finished question is kept longer than asked for, never shorter (the size
bounds it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edged.core.records import PUBLISHES_MAX, SECONDS_MAX, Instant

if TYPE_CHECKING:
    import sqlite3

PRUNE_STEP: Final = 64  # rows a transaction may delete: keeps a commit short while a backlog goes
SLACK_SHARE: Final = 1 / 32  # of a bound, by which what goes between two upkeeps goes together
VACUUM_STEP_PAGES: Final = 128
UNSAVED_S: Final = 7200.0  # more than what may have passed since the clock was saved, once an hour

_OLDEST_FINISHED = f"""SELECT number, finished_s FROM jobs WHERE finished_s IS NOT NULL
    AND number < (SELECT max(number) FROM jobs)
    AND NOT EXISTS (SELECT 1 FROM outbox
        WHERE outbox.id BETWEEN number * {PUBLISHES_MAX} AND number * {PUBLISHES_MAX} + {PUBLISHES_MAX - 1})
    ORDER BY number LIMIT 1"""  # noqa: S608 - a constant of ours


class Upkeep:
    """The bounds of one journal: `max_age_s` of journal time, `max_bytes` of database pages in use."""

    def __init__(self, connection: sqlite3.Connection, max_age_s: float, max_bytes: int) -> None:
        self._sql = connection
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._page_bytes = self._number("PRAGMA page_size")
        self._offset_s = 0.0

    def resume_clock(self, now: Instant) -> None:
        """Go on from the journal's time as last saved; time since then counts within the same boot only.

        A power cut leaves sessions that were used after that: a new one counts as used later than these.
        """
        meta = dict(self._sql.execute("SELECT key, value FROM meta"))
        clock_s = _figure(meta.get("clock_s"), 0.0)
        if meta.get("boot_id") == now.boot_id:
            clock_s += max(0.0, now.monotonic_s - _figure(meta.get("monotonic_s"), now.monotonic_s))
        used = self._sql.execute("SELECT max(used_s) FROM sessions WHERE used_s < ?", (clock_s + UNSAVED_S,))
        self._offset_s = max(clock_s, used.fetchone()[0] or 0.0) - now.monotonic_s

    def time_s(self, now: Instant) -> float:
        """Return the journal's time at `now`."""
        return now.monotonic_s + self._offset_s

    def save_clock(self, now: Instant) -> None:
        """Record the journal's time, so that the next start goes on from it."""
        entries = (("clock_s", self.time_s(now)), ("boot_id", now.boot_id), ("monotonic_s", now.monotonic_s))
        self._sql.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", entries)

    def prune(self, now: Instant, *, late: bool = False) -> bool:
        """Delete some of the oldest finished questions beyond age or size; tell whether more may have to go.

        Where some go, a few that come next go with them: rows that lie together share pages, and one with each new
        question wrote a seventh more to the card. `late` lets questions grow a little too old for that.

        Never unfinished ones, never ones with messages in the outbox, and never the newest row: its number
        must not be given again. Oldest is meant by number: they finish in about that order.
        """
        horizon_s = self.time_s(now) - self._max_age_s
        too_old_s, most = horizon_s - SLACK_SHARE * self._max_age_s * late, self._max_bytes
        for _ in range(PRUNE_STEP):
            oldest = self._sql.execute(_OLDEST_FINISHED).fetchone()
            if oldest is None or (oldest[1] >= too_old_s and self._used_bytes() <= most):
                return False
            too_old_s, most = horizon_s, int((1 - SLACK_SHARE) * self._max_bytes)
            self._sql.execute("DELETE FROM jobs WHERE number = ?", (oldest[0],))
        return True

    def vacuum(self) -> bool:
        """Give some free pages back to the file system if a quarter is free; tell whether more may go.

        Below a quarter they are kept: the next questions use them, and moving pages wears the card.
        """
        free = self._number("PRAGMA freelist_count")
        if free < VACUUM_STEP_PAGES or free * 4 < self._number("PRAGMA page_count"):
            return False
        # One at a time: Python's sqlite3 stops the pragma after its first page.
        for _ in range(VACUUM_STEP_PAGES):
            self._sql.execute("PRAGMA incremental_vacuum(1)")
        return True

    def _used_bytes(self) -> int:
        """Bytes of pages in use, sessions left out: they have bounds of their own."""
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self._page_bytes - self._number("SELECT coalesce(sum(bytes), 0) FROM sessions")

    def _number(self, query: str) -> int:
        return int(self._sql.execute(query).fetchone()[0])


def _figure(value: object, otherwise: float) -> float:
    """Seconds as they were recorded; a worn card may have made them anything, and beyond an age all is pruned."""
    return value if isinstance(value, int | float) and 0 <= value < SECONDS_MAX else otherwise
