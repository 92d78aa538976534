"""The real journal without its thread: a test takes the writer's turns, and the world goes on within a commit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edged.adapters.journal import Journal
from edged.adapters.journal.schema import connect
from edged.adapters.journal.sessions import Sessions
from edged.adapters.journal.store import Store
from edged.adapters.journal.upkeep import Upkeep
from edged.adapters.journal.writer import Writer
from edged.core.records import Instant, JournalEvent, Recovered, SessionBounds

LONG_S = 1e6
"""Longer than any test."""


class SlowStore(Store):
    """Tables whose commits take a while: `meanwhile` is called within each, and may raise what a disk does."""

    meanwhile: Callable[[], None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, or undo all of it."""
        with super().transaction():
            yield
            if self.meanwhile is not None:
                self.meanwhile()


class SteppedJournal(Journal):
    """A journal that writes when `turn` says so.

    Args:
        path: the database.
        emit: gets each event.
        clock: the present moment.
        meanwhile: called while the disk commits.
    """

    def __init__(
        self,
        path: Path,
        emit: Callable[[JournalEvent], None],
        clock: Callable[[], Instant],
        meanwhile: Callable[[], None],
    ) -> None:
        super().__init__(path, emit, clock=clock)
        self._meanwhile = meanwhile

    def open(self) -> Recovered:
        """Read what is unfinished."""
        self.sql = connect(self._path)
        self.sql.execute("PRAGMA synchronous = OFF")  # no power is lost here
        self.store = SlowStore(self.sql, Sessions(self.sql, SessionBounds()))
        upkeep = Upkeep(self.sql, self._max_age_s, self._max_bytes)
        now = self._clock()
        with self.store.transaction():
            upkeep.resume_clock(now)
            recovered = self.store.recover(now, upkeep.time_s(now))
            upkeep.save_clock(now)
        self.store.meanwhile = self._meanwhile
        self.writer = Writer(self._commands, self._emit, self.store, upkeep, self._clock)
        return recovered

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return self._commands.empty() and not self.writer.owed

    def turn(self, *, retry: bool) -> None:
        """Have the writer take a turn, if anything waits; `retry`: a disk that refused is tried again."""
        if self.idle:
            return
        if self._commands.empty() or self.writer.owed:
            self.status(
                None, "nobody", "nothing"
            )  # what is owed waits for company, else for a clock not ours
        self.writer._retry_s = 0.0 if retry else time.monotonic() + LONG_S  # noqa: SLF001 - the thread's own
        self.writer._turn()  # noqa: SLF001

    def kill(self) -> None:
        """End it as kill -9 does: what was not committed is gone."""
        self.sql.close()


def disk_full() -> sqlite3.OperationalError:
    """What SQLite says when the disk is full."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
    return error
