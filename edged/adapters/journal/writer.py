"""The journal's one writer thread: group commit, retries, upkeep.

The only user of the only connection. It takes all the commands that wait, applies them in one transaction,
commits once (the group commit: while one commit waits for the disk, the next group gathers), and only then
reports, one event a command, through `emit`. Only `Entered` comes before the commit: a question that runs at
once may be computed meanwhile. A clear has no event and waits a little for another commit to ride on.

When the disk refuses (full, I/O error, read-only), questions are reported as `Failed`, with the answer where one
stands there and can be read, while what is already under way (attempts, terminal messages, clears) is kept in
memory and tried again with growing pauses. That memory is bounded by the questions that stand unfinished in the
journal: each can owe one attempt and one finish.

Not here: SQL (`store`, `upkeep`), the file (`schema`), what to do with an event (the dispatcher).
"""

from __future__ import annotations

import math
import queue
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edged.core.records import Accepted, Broken, Entered, Failed, Instant, JournalEvent

from .commands import Accept, Ask, Attempt, Clear, Close, Command, Finish, Forget, Owed, Recall, Status
from .failpoint import Failpoint
from .place import TakenAwayError
from .schema import passing, reason
from .store import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .store import Store
    from .upkeep import Upkeep

GROUP_MAX: Final = 256  # commands in one transaction: bounds the time until the first of them is reported
CLEAR_DELAY_S: Final = 0.2  # how long clears wait for another commit to ride on
PAUSE_MIN_S: Final = 0.1  # between two tries on a disk that refuses; doubles up to the longest
PAUSE_MAX_S: Final = 2.0
UPKEEP_S: Final = 3600.0  # pruning by age and saving the clock: 24 small commits a day


class Writer:
    """Serves one queue of commands until told to close; any thread may read its public attributes."""

    def __init__(
        self,
        commands: queue.SimpleQueue[Command],
        emit: Callable[[JournalEvent], None],
        store: Store,
        upkeep: Upkeep,
        clock: Callable[[], Instant],
    ) -> None:
        self._commands = commands
        self._emit = emit
        self._store = store
        self._upkeep = upkeep
        self._clock = clock
        self._failpoint = Failpoint.from_environment()
        self._open = True
        self._owed: list[Owed] = []
        self._due_s = math.inf  # time.monotonic() at which what is owed is to be written
        self._upkeep_s = time.monotonic()
        self._pause_s = 0.0
        self._retry_s = 0.0  # no try before this while failing
        self._turn_s: float | None = None  # since when the file is used
        self.failing: str | None = None

    @property
    def owed(self) -> int:
        """Commands kept until the disk takes them."""
        return len(self._owed)

    @property
    def writing_s(self) -> float:
        """How long it has been at the file, which a disk may make last for ever; any thread."""
        since_s = self._turn_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def run(self) -> None:
        """Be the thread. However it ends, unless it was told to, `Broken` is the last event."""
        ended: str | None = "the journal's writer met a defect"
        try:
            while self._open:
                self._turn()
            self._last_words()
            ended = None
        except sqlite3.Error as error:  # the passing ones are dealt with in _write
            ended = reason(error)
        except TakenAwayError:
            ended = "its file was taken away; the next start takes up what it held"
        finally:
            with suppress(sqlite3.Error):
                self._store.close()
            if ended is not None:
                self._emit(Broken(ended))

    def _turn(self) -> None:
        self._turn_s = None
        asks = self._gather()
        self._turn_s = now_s = time.monotonic()
        if self.failing is not None and now_s < self._retry_s:
            self._refuse(asks, self.failing)
        elif asks or self.failing is not None or now_s >= min(self._due_s, self._upkeep_s):
            if self.failing is not None:
                with suppress(sqlite3.Error):  # on a full disk, this makes the log's room usable again
                    self._store.checkpoint()
            self._write(asks)

    def _gather(self) -> list[Ask]:
        """Wait until there is something to do; return the asks; what must not be lost joins the owed."""
        wake_s = self._retry_s if self.failing is not None else min(self._due_s, self._upkeep_s)
        asks: list[Ask] = []
        with suppress(queue.Empty):
            self._sort(self._commands.get(timeout=max(0.0, wake_s - time.monotonic())), asks)
            for _ in range(GROUP_MAX - 1):
                self._sort(self._commands.get_nowait(), asks)
        return asks

    def _sort(self, command: Command, asks: list[Ask]) -> None:
        match command:
            case Accept() | Recall() | Status() | Forget():
                asks.append(command)
            case Attempt() | Finish():
                self._owed.append(command)
                self._due_s = time.monotonic()
            case Clear():
                self._owed.append(command)
                self._due_s = min(self._due_s, time.monotonic() + CLEAR_DELAY_S)
            case Close():
                self._open = False

    def _write(self, asks: list[Ask]) -> None:
        asks = self._in_place(asks)
        try:
            events = self._commit([*self._owed, *asks])
        except sqlite3.Error as error:
            if not passing(error):
                raise
            self._refuse(asks, reason(error))
            if asks and self._owed:
                self._write([])  # without the questions it may fit
            else:
                self._pause(reason(error))
            return
        self.failing, self._pause_s = None, 0.0
        self._owed.clear()
        self._due_s = math.inf
        for event in events:
            self._emit(event)

    def _in_place(self, asks: list[Ask]) -> list[Ask]:
        """Which questions may be stored: none where the file has no place to come back to.

        Its folder is gone, or another file lies there. What is under way may end then, in the file without a name,
        for its answers reach their devices.

        Raises:
            TakenAwayError: nothing more can be lost.
        """
        if not self._store.place.lost:
            return asks
        try:
            self._store.place.restore()
        except (OSError, sqlite3.Error) as error:
            if self._store.counts != Counts():
                self._refuse(asks, f"its file was taken away: {error}")
                return []
        raise TakenAwayError

    def _commit(self, commands: list[Ask | Owed]) -> list[JournalEvent]:
        now, now_s = self._clock(), time.monotonic()
        kinds = sorted({type(command).__name__.lower() for command in commands})
        probing = self.failing is not None  # the upkeep has something to write, even when nobody else has
        full_upkeep = probing or now_s >= self._upkeep_s
        more = False
        with self._store.transaction():
            events = [event for command in commands if (event := self._apply(command, now)) is not None]
            self._tell_entered(commands, events)
            if full_upkeep or "finish" in kinds:
                more = self._upkeep.prune(now, late=not full_upkeep)
            if full_upkeep:
                self._store.sessions.prune(self._upkeep.time_s(now))
                self._upkeep.save_clock(now)
                more = self._upkeep.vacuum() or more
            self._pass("before", kinds)
        self._pass("after", kinds)
        if more:
            self._upkeep_s = now_s
        elif full_upkeep:
            self._upkeep_s = now_s + UPKEEP_S
        return events

    def _tell_entered(self, commands: list[Ask | Owed], events: list[JournalEvent]) -> None:
        """Tell of new questions that run at once before the disk is waited for."""
        begun = [c.ticket for c in commands if isinstance(c, Accept) and c.attempts]
        for event in events if begun else ():
            if isinstance(event, Accepted) and any(event.ticket is ticket for ticket in begun):
                self._emit(Entered(event.ticket, event.session))

    def _apply(self, command: Ask | Owed, now: Instant) -> JournalEvent | None:  # noqa: PLR0911 - one a command
        match command:
            case Accept(ticket, row, attempts):
                return self._store.accept(ticket, row, attempts, self._upkeep.time_s(now))
            case Recall(ticket, client, job_id, digest):
                return self._store.recall(ticket, client, job_id, digest)
            case Status(ticket, client, job_id):
                return self._store.status(ticket, client, job_id)
            case Forget(ticket, client, name):
                return self._store.forget(ticket, client, name)
            case Attempt(number):
                return self._store.attempt(number, now)
            case Finish():
                return self._store.finish(command, self._upkeep.time_s(now))
            case Clear(outbox_id):
                self._store.clear(outbox_id)
                return None

    def _refuse(self, asks: Iterable[Ask], why: str) -> None:
        for ask in asks:
            answer: JournalEvent = Failed(ask.ticket, why)
            with suppress(sqlite3.OperationalError):  # a disk that takes nothing may still be read
                match ask:
                    case Status(ticket, client, job_id):
                        answer = self._store.status(ticket, client, job_id)
                    case Accept(ticket, row):
                        answer = Failed(ticket, why, self._store.answer(row.client, row.id, row.digest))
                    case Recall(ticket, client, job_id, digest):
                        answer = Failed(ticket, why, self._store.answer(client, job_id, digest))
            self._emit(answer)

    def _pause(self, why: str) -> None:
        self.failing = why
        self._pause_s = min(max(2 * self._pause_s, PAUSE_MIN_S), PAUSE_MAX_S)
        self._retry_s = time.monotonic() + self._pause_s

    def _pass(self, side: str, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self._failpoint.passage(f"{side}_{kind}_commit")

    def _last_words(self) -> None:
        """Write what is still owed, and what is left of the deadlines: known best should the power go."""
        self._write([])
        with suppress(sqlite3.OperationalError), self._store.transaction():
            now = self._clock()
            self._store.save_deadlines(now)
            self._store.mark_stopped()
            self._upkeep.save_clock(now)
