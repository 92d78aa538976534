"""`Journal`: what the rest of the daemon sees of the journal.

Its methods only put commands into a queue, so they never wait for the disk and may be called from any
thread (`open` and `close` excepted, which wait). What became of a command is told through `emit`, by the
writer thread.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edged.core.records import (
    PUBLISHES_MAX,
    Depth,
    Instant,
    JobRow,
    JournalEvent,
    Publish,
    Recovered,
    SessionBounds,
    SessionTurn,
)

from .clock import read_instant
from .commands import Accept, Attempt, Clear, Close, Command, Finish, Forget, Recall, Status
from .schema import DamagedError, JournalError, connect, passing, reason, set_aside, strangers, unusable
from .sessions import Sessions
from .store import Store, encoded
from .upkeep import Upkeep
from .writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKED_BYTES_PER_S = 4 * 2**20
"""Of a file that is being opened, on a slow card: all of it is read, in no good order."""


class Journal:
    """A journal in the file `path`.

    Args:
        path: the database; its folder is made (mode 0700) if absent.
        emit: gets each event once it is durable (`Entered` before that), in the writer thread; must not raise
            or block (`queue.SimpleQueue.put`).
        max_age_s: finished questions older than this in journal time are pruned (see `upkeep`).
        max_bytes: above this size of database pages in use, the oldest finished questions are pruned; the
            write-ahead log adds up to 4 MiB.
        sessions: how many conversations are kept, and for how long.
        clock: the present moment; tests put their own here.
    """

    def __init__(
        self,
        path: Path,
        emit: Callable[[JournalEvent], None],
        *,
        max_age_s: float = 604_800.0,
        max_bytes: int = 64 * 1024 * 1024,
        sessions: SessionBounds | None = None,
        clock: Callable[[], Instant] = read_instant,
    ) -> None:
        self._path = path
        self._emit = emit
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._session_bounds = sessions or SessionBounds()
        self._clock = clock
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._closing = False
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._thread: threading.Thread | None = None

    @property
    def opening_s(self) -> float:
        """How long `open` may take, by the size of the file."""
        return _size_bytes(self._path) / CHECKED_BYTES_PER_S

    def open(self) -> Recovered:
        """Open or make the file, read what is unfinished, start the writer. Blocks; once in an object's life.

        A corrupt or foreign file is moved to `<path>.corrupt-N` (named in the result) and a fresh one made.

        Raises:
            JournalVersionError: a newer edged wrote the file.
            JournalBusyError: it cannot be used just now (disk full, another process has it).
            JournalError: it cannot be used (permissions).
        """
        aside: Path | None = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                store, upkeep, recovered = self._read()
            except (DamagedError, sqlite3.Error, UnicodeDecodeError) as error:
                # The last where SQLite's own message names what a worn card has damaged.
                if isinstance(error, sqlite3.Error) and passing(error):
                    raise
                aside = set_aside(self._path)
                store, upkeep, recovered = self._read()
        except sqlite3.Error as error:
            hint = "; is another edged running?" if "locked" in str(error) else strangers(self._path)
            raise unusable(error, f"{self._path}: {reason(error)}{hint}") from error
        except OSError as error:
            text = f"{error.filename or self._path}: {error.strerror}"
            mend = strangers(self._path) or "; a folder that this account may write is accepted"
            raise unusable(error, text, mend) from error
        except DamagedError as error:
            raise unusable(error, f"{self._path}: {error}") from error
        self._store = store
        self._writer = Writer(self._commands, self._emit, store, upkeep, self._clock)
        # A daemon thread: a process that ends without close() loses nothing that was reported, and must end.
        self._thread = threading.Thread(target=self._writer.run, name="journal", daemon=True)
        self._thread.start()
        return msgspec.structs.replace(recovered, set_aside=str(aside) if aside else None)

    def accept(self, ticket: object, row: JobRow, *, begun: bool = False) -> None:
        """Store a question: `Accepted`, `Duplicate`, `Conflict` or `Failed` with this ticket follows.

        `begun` counts the first attempt in the same commit, for a question that runs as soon as it is
        accepted; `Entered` comes before the commit then, where it is a new one.

        Raises:
            ValueError: client, id or session is not ASCII.
        """
        if not (row.client.isascii() and row.id.isascii() and (row.session or "").isascii()):
            raise ValueError("client, id and session are ASCII by contract")
        self._put(Accept(ticket, row, int(begun)))

    def recall(self, ticket: object, client: str, job_id: str, digest: bytes) -> None:
        """Owe the answer to a question again, where it was answered before, and store nothing where not.

        `Duplicate`, `Conflict`, `NotKnown` or `Failed` with this ticket follows.
        """
        self._put(Recall(ticket, client, job_id, digest))

    def attempt(self, number: int) -> None:
        """Count a run before it begins: `AttemptCounted` follows, however long the disk refuses."""
        self._put(Attempt(number))

    def finish(
        self,
        number: int,
        publishes: tuple[Publish, ...],
        turn: SessionTurn | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Store the terminal messages and owe them to the broker: `Finished` follows, however long it takes.

        The first finish of a question counts; a second one changes nothing. `turn` goes to its session in
        the same commit. `again`: the messages say to ask again; who does so under its id once the broker has
        them is accepted as new.

        Raises:
            ValueError: more than PUBLISHES_MAX messages.
            TypeError: a property of a kind that cannot be stored.
        """
        if len(publishes) > PUBLISHES_MAX:
            raise ValueError(f"at most {PUBLISHES_MAX} messages finish a question")
        self._put(Finish(number, publishes, encoded(publishes), turn, again))

    def clear(self, outbox_id: int) -> None:
        """Forget a message that the broker has acknowledged; no event; durable within 0.2 s."""
        self._put(Clear(outbox_id))

    def status(self, ticket: object, client: str, job_id: str) -> None:
        """Ask where a question stands: `StatusFound` with this ticket follows, or `Failed`."""
        self._put(Status(ticket, client, job_id))

    def forget(self, ticket: object, client: str, name: str) -> None:
        """Forget a session and what was said in it: `SessionForgotten` with this ticket follows, or `Failed`."""
        self._put(Forget(ticket, client, name))

    def depth(self) -> Depth:
        """Return the counters; any thread, two stat calls.

        Raises:
            JournalError: it has not been opened.
        """
        if self._store is None or self._writer is None:
            raise JournalError("the journal is not open")
        counts = self._store.counts
        return Depth(
            unfinished=counts.unfinished,
            outbox=counts.outbox,
            bytes=_size_bytes(self._path) + _size_bytes(Path(f"{self._path}-wal")),
            commits=self._store.commits,
            owed=self._writer.owed,
            failing=self._writer.failing,
            sessions=self._store.sessions.count,
            writing_s=self._writer.writing_s,
        )

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits, close the file, end the thread; tell whether all of that was done in time.

        May be called again. What the disk still refused is dropped with the process: its questions stand
        unfinished in the journal and run again after the next start.
        """
        if self._thread is None or self._writer is None:
            return True
        if not self._closing:
            self._closing = True
            self._commands.put(Close())
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._writer.owed == 0

    def _read(self) -> tuple[Store, Upkeep, Recovered]:
        connection = connect(self._path)
        try:
            store, upkeep, now = (
                Store(connection, Sessions(connection, self._session_bounds)),
                Upkeep(connection, self._max_age_s, self._max_bytes),
                self._clock(),
            )
            with store.transaction():
                upkeep.resume_clock(now)
                recovered = store.recover(now, upkeep.time_s(now))
                # Here, for a damaged trigger would else end each life at its upkeep.
                store.sessions.prune(upkeep.time_s(now))
                upkeep.save_clock(now)
        except BaseException:
            connection.close()
            raise
        return store, upkeep, recovered

    def _put(self, command: Command) -> None:
        if self._closing:
            raise JournalError("the journal is closed")
        self._commands.put(command)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is not there, or its disk is gone: that is told where it is written
        return 0
