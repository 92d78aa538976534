"""The journal's SQL: one function per command, each within a transaction that `writer` opens and commits.

No threads, no retries, no clock but the one passed in. Runs in the thread that owns the connection.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from edged.core.records import (
    PUBLISHES_MAX,
    SECONDS_MAX,
    Accepted,
    AttemptCounted,
    Conflict,
    Deadline,
    Duplicate,
    Finished,
    Instant,
    JobRow,
    NotKnown,
    Outbox,
    Publish,
    Recovered,
    RecoveredJob,
    SessionForgotten,
    StatusFound,
    StoredSession,
    recorded,
)
from edged.errors import DECODE_ERRORS

from .place import Place
from .sessions import Sessions

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from .commands import Finish

_decode = msgspec.msgpack.Decoder(tuple[Publish, ...]).decode

_SELECT_JOB = """SELECT number, attempts, client, id, digest, body, received_unix_s,
    deadline_boot_id, deadline_monotonic_s, deadline_remaining_s, session FROM jobs"""


_FORGOTTEN_S = -1.0
"""`finished_s` of a question that is deleted as soon as it can be: its id is free once the broker has its answer.
The journal's time begins at 0."""


class Counts(msgspec.Struct, frozen=True):
    """What the tables hold."""

    unfinished: int = 0
    outbox: int = 0


def encoded(publishes: tuple[Publish, ...]) -> bytes:
    """Return the form in which terminal messages are stored; TypeError for a property that has none."""
    return msgspec.msgpack.encode(publishes)


class Store:
    """The tables behind one connection; `counts` and `commits` follow committed transactions only."""

    def __init__(self, connection: sqlite3.Connection, sessions: Sessions) -> None:
        self._sql = connection
        self.sessions = sessions
        self.place = Place(connection)
        self.counts = Counts()
        self.commits = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, durably, or undo all of it (then the error goes on)."""
        before, changes = self.counts, self._sql.total_changes
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            self.counts = before
            if self._sql.in_transaction:  # SQLite has rolled back by itself after some errors
                self._sql.execute("ROLLBACK")
            raise
        self.commits += self._sql.total_changes > changes

    def recover(self, now: Instant, time_s: float) -> Recovered:
        """Read what is unfinished and record its deadlines in the clock of this boot; `time_s` as in `finish`."""
        outbox: list[tuple[int, Publish]] = []
        unreadable = 0
        owed = self._sql.execute("SELECT DISTINCT id / ? FROM outbox ORDER BY 1", (PUBLISHES_MAX,)).fetchall()
        for (number,) in owed:
            if (entries := self._entries(number)) is None:
                self._reopen(number)
                unreadable += 1
            else:
                outbox += entries
        jobs = []
        for number, attempts, *columns in self._sql.execute(
            f"{_SELECT_JOB} WHERE finished_s IS NULL ORDER BY number"
        ):
            row = recorded(_row(*columns), now)
            session = self._session(row, time_s)
            jobs.append(RecoveredJob(number=number, attempts=attempts, row=row, session=session))
        self.counts = Counts(unfinished=len(jobs), outbox=len(outbox))
        for job in jobs:
            self._record_deadline(job.number, job.row)
        stopped = self._sql.execute("DELETE FROM meta WHERE key = 'stopped'").rowcount > 0
        return Recovered(jobs=tuple(jobs), outbox=tuple(outbox), unreadable=unreadable, stopped=stopped)

    def mark_stopped(self) -> None:
        """Tell the next life that this one ended in order; it forgets that as soon as it has begun."""
        self._sql.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('stopped', 1)")

    def accept(
        self, ticket: object, row: JobRow, attempts: int, time_s: float
    ) -> Accepted | Duplicate | Conflict:
        """Store a question of which `attempts` runs begin with it, or tell that its id is taken."""
        found = self.recall(ticket, row.client, row.id, row.digest)
        if not isinstance(found, NotKnown):
            return found
        next_number = None
        # As if it had been pruned; its number is not given again, though it was the newest.
        if found.unreadable:
            next_number = self._sql.execute("SELECT max(number) + 1 FROM jobs").fetchone()[0]
            self._forget(found.unreadable)
        number = self._insert(row, attempts, next_number)
        return Accepted(ticket=ticket, number=number, session=self._session(row, time_s))

    def recall(
        self, ticket: object, client: str, job_id: str, digest: bytes
    ) -> Duplicate | Conflict | NotKnown:
        """Owe the answer to a question again, if it stands there."""
        found = self._sql.execute(
            "SELECT number, digest, finished_s IS NOT NULL, finished_s IS ? AND terminal IS NULL FROM jobs "
            "WHERE client = ? AND id = ?",
            (_FORGOTTEN_S, client, job_id),
        ).fetchone()
        if found is None:
            return NotKnown(ticket=ticket)
        number, stored, finished, forgotten = found
        if forgotten:
            return NotKnown(ticket=ticket, unreadable=number)
        if stored != digest:
            return Conflict(ticket=ticket)
        if not finished:
            return Duplicate(ticket=ticket, number=number, state="unfinished")
        if (publishes := self._terminal(number)) is None:
            return NotKnown(ticket=ticket, unreadable=number)
        return Duplicate(ticket=ticket, number=number, state="finished", outbox=self._owe(number, publishes))

    def answer(self, client: str, job_id: str, digest: bytes) -> tuple[Publish, ...]:
        """What ended a question, but for words that it is to be asked again; needs no transaction, owes nothing."""
        found = self._sql.execute(
            "SELECT number FROM jobs WHERE client = ? AND id = ? AND digest = ? AND finished_s > ?",
            (client, job_id, digest, _FORGOTTEN_S),
        ).fetchone()
        return () if found is None else self._terminal(found[0]) or ()

    def attempt(self, number: int, now: Instant) -> AttemptCounted:
        """Count a run that is about to begin, and record what is left of the deadline: the same page."""
        found = self._sql.execute(
            """UPDATE jobs SET attempts = attempts + 1
            WHERE number = ? AND finished_s IS NULL RETURNING attempts""",
            (number,),
        ).fetchall()  # all of it: RETURNING is complete only when the statement has been run to its end
        if not found:
            return AttemptCounted(number=number, attempts=0)
        _, _, *columns = self._sql.execute(f"{_SELECT_JOB} WHERE number = ?", (number,)).fetchone()
        self._record_deadline(number, recorded(_row(*columns), now))
        return AttemptCounted(number=number, attempts=found[0][0])

    def finish(self, command: Finish, time_s: float) -> Finished:
        """Store the terminal messages and owe them to the broker; the question's text is not needed any more.

        What the answer adds to its session stands on disk with it, or neither does.

        `time_s` is the journal's time, see `upkeep`.
        """
        number, turn = command.number, command.turn
        changed = self._sql.execute(
            """UPDATE jobs SET finished_s = ?, terminal = ?, body = x''
            WHERE number = ? AND finished_s IS NULL""",
            (_FORGOTTEN_S if command.again else time_s, command.terminal, number),
        ).rowcount
        if not changed:
            return Finished(number=number, outbox=())
        self._count(unfinished=-1)
        if turn is not None:
            self.sessions.add(number, turn, time_s)
        return Finished(number=number, outbox=self._owe(number, command.publishes))

    def clear(self, outbox_id: int) -> None:
        """Forget a message that the broker has acknowledged, and the answer with it if it is to be forgotten."""
        self._count(outbox=-self._sql.execute("DELETE FROM outbox WHERE id = ?", (outbox_id,)).rowcount)
        number = outbox_id // PUBLISHES_MAX
        self._sql.execute(
            """UPDATE jobs SET terminal = NULL WHERE number = ? AND finished_s = ?
            AND NOT EXISTS (SELECT 1 FROM outbox WHERE id BETWEEN ? AND ?)""",
            (number, _FORGOTTEN_S, *_outbox_ids(number)),
        )

    def status(self, ticket: object, client: str, job_id: str) -> StatusFound:
        """Look a question up; needs no transaction."""
        found = self._sql.execute(
            "SELECT number, attempts, finished_s IS NULL FROM jobs WHERE client = ? AND id = ?",
            (client, job_id),
        ).fetchone()
        if found is None:
            return StatusFound(ticket=ticket, state=None, number=None, attempts=0)
        number, attempts, open_ = found
        return StatusFound(
            ticket=ticket, state="unfinished" if open_ else "finished", number=number, attempts=attempts
        )

    def forget(self, ticket: object, client: str, name: str) -> SessionForgotten:
        """Forget a session and its finished questions.

        An answer that the broker does not have yet stays until it does. The newest row stays without its answer, so
        that its number is not given again. The ids of the others are free: a question under one is computed anew.
        """
        known = self._sql.execute(
            "DELETE FROM sessions WHERE client = ? AND name = ?", (client, name)
        ).rowcount
        self.sessions.recount()
        finished = self._sql.execute(  # looks through all of the client's: once is enough
            "SELECT number FROM jobs WHERE client = ? AND session = ? AND finished_s IS NOT NULL",
            (client, name),
        ).fetchall()
        for (number,) in finished:
            known += self._sql.execute(
                """UPDATE jobs SET finished_s = ?1, terminal = CASE WHEN EXISTS
                    (SELECT 1 FROM outbox WHERE id BETWEEN ?2 AND ?3) THEN terminal END
                WHERE number = ?4 AND finished_s <> ?1""",
                (_FORGOTTEN_S, *_outbox_ids(number), number),
            ).rowcount
            self._sql.execute(
                """DELETE FROM jobs WHERE number = ? AND finished_s = ? AND terminal IS NULL
                AND number < (SELECT max(number) FROM jobs)""",
                (number, _FORGOTTEN_S),
            )
        return SessionForgotten(ticket=ticket, known=known > 0)

    def save_deadlines(self, now: Instant) -> None:
        """Record what is left of each deadline: the best known figure should the power go off now."""
        for number, _, *columns in self._sql.execute(f"{_SELECT_JOB} WHERE finished_s IS NULL").fetchall():
            self._record_deadline(number, recorded(_row(*columns), now))

    def checkpoint(self) -> None:
        """Move the log into the database, so that its room can be used again; outside a transaction."""
        self._sql.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def close(self) -> None:
        """Close the connection; SQLite moves the log into the database and deletes it."""
        self._sql.close()

    def _session(self, row: JobRow, time_s: float) -> StoredSession | None:
        return None if row.session is None else self.sessions.read(row.client, row.session, time_s)

    def _insert(self, row: JobRow, attempts: int, number: int | None) -> int:
        deadline = row.deadline
        columns = (
            (deadline.boot_id, deadline.monotonic_s, deadline.remaining_s) if deadline else (None, None, None)
        )
        question = (row.client, row.id, row.digest, row.body, row.received_unix_s, attempts)
        given = self._sql.execute(
            """INSERT INTO jobs (number, client, id, digest, body, received_unix_s, attempts,
            deadline_boot_id, deadline_monotonic_s, deadline_remaining_s, session)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (number, *question, *columns, row.session),
        ).lastrowid
        self._count(unfinished=1)
        return int(given or 0)

    def _record_deadline(self, number: int, row: JobRow) -> None:
        if row.deadline is not None:
            self._sql.execute(
                """UPDATE jobs SET deadline_boot_id = ?, deadline_monotonic_s = ?, deadline_remaining_s = ?
                WHERE number = ?""",
                (row.deadline.boot_id, row.deadline.monotonic_s, row.deadline.remaining_s, number),
            )

    def _owe(self, number: int, publishes: tuple[Publish, ...]) -> Outbox:
        owed = tuple((number * PUBLISHES_MAX + place, publish) for place, publish in enumerate(publishes))
        for outbox_id, _ in owed:
            added = self._sql.execute("INSERT OR IGNORE INTO outbox (id) VALUES (?)", (outbox_id,)).rowcount
            self._count(outbox=added)
        return owed

    def _entries(self, number: int) -> Outbox | None:
        publishes = self._terminal(number)
        first, last = _outbox_ids(number)
        ids = self._sql.execute(
            "SELECT id FROM outbox WHERE id BETWEEN ? AND ? ORDER BY id", (first, last)
        ).fetchall()
        if publishes is None or ids[-1][0] - first >= len(publishes):
            return None
        return tuple((outbox_id, publishes[outbox_id - first]) for (outbox_id,) in ids)

    def _terminal(self, number: int) -> tuple[Publish, ...] | None:
        found = self._sql.execute("SELECT terminal FROM jobs WHERE number = ?", (number,)).fetchone()
        try:
            return _decode(found[0]) if found and found[0] is not None else None
        except DECODE_ERRORS:
            return None

    def _reopen(self, number: int) -> None:
        """Drop an answer that is owed and cannot be read; a device that has heard nothing of it is due another end.

        The first message is the one in JSON. Without it in the outbox the device has it, and lacks the plain text.
        """
        entry = self._sql.execute("SELECT 1 FROM outbox WHERE id = ?", (number * PUBLISHES_MAX,)).fetchone()
        self._release(number)
        if entry is not None:
            self._sql.execute("UPDATE jobs SET finished_s = NULL WHERE number = ?", (number,))

    def _forget(self, number: int) -> None:
        self._release(number)
        self._sql.execute("DELETE FROM jobs WHERE number = ?", (number,))

    def _release(self, number: int) -> None:
        """Owe nothing of an answer that cannot be read; its row stays, so that its number is not given again."""
        removed = self._sql.execute("DELETE FROM outbox WHERE id BETWEEN ? AND ?", _outbox_ids(number))
        self._count(outbox=-removed.rowcount)

    def _count(self, unfinished: int = 0, outbox: int = 0) -> None:
        self.counts = Counts(self.counts.unfinished + unfinished, self.counts.outbox + outbox)


def _outbox_ids(number: int) -> tuple[int, int]:
    """First and last id that a question's messages may have in the outbox."""
    first = number * PUBLISHES_MAX
    return first, first + PUBLISHES_MAX - 1


def _row(  # noqa: PLR0917 - a row of the table, in the order of _SELECT_JOB
    client: str,
    job_id: str,
    digest: bytes,
    body: bytes,
    received_unix_s: float,
    boot_id: str | None,
    monotonic_s: float | None,
    left_s: float | None,
    session: str | None,
) -> JobRow:
    deadline = None
    if boot_id is not None and monotonic_s is not None and left_s is not None:
        deadline = Deadline(boot_id=boot_id, monotonic_s=monotonic_s, remaining_s=left_s)
        if max(abs(monotonic_s), abs(left_s)) > SECONDS_MAX:
            deadline = None
    return JobRow(client, job_id, digest, body, received_unix_s, deadline, session)
