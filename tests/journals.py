"""What the tests of the journal share: rows, messages, a clock that can jump, and a desk that waits for events."""

from __future__ import annotations

import hashlib
import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from edged.adapters.journal import Journal, read_instant
from edged.core.records import (
    Accepted,
    AttemptCounted,
    Deadline,
    Entered,
    Finished,
    Instant,
    JobRow,
    JournalEvent,
    Publish,
    Recovered,
    SessionBounds,
    SessionForgotten,
    StatusFound,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Event = TypeVar("Event")


def row(job_id: str, client: str = "c1", text: str = "hot?", deadline: Deadline | None = None) -> JobRow:
    """Return a question; `text` decides its digest and body."""
    body = text.encode()
    return JobRow(client, job_id, hashlib.sha256(body).digest(), body, 1_700_000_000.0, deadline)


def answer(text: str) -> tuple[Publish, ...]:
    """Return the two terminal messages of a plain-text question."""
    return (
        Publish("edged/v1/client/c1/answer/1", text.encode(), {"correlation": b"\x00\xff", "expiry_s": 60}),
        Publish("edged/v1/client/c1/text", text.encode()),
    )


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = Instant("boot-1", 1000.0)

    def __call__(self) -> Instant:
        """Return the present moment."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now = Instant(self.now.boot_id, self.now.monotonic_s + seconds)

    def reboot(self, boot_id: str) -> None:
        """Start again from the first seconds of another boot."""
        self.now = Instant(boot_id, 5.0)


class Desk:
    """A journal and the queue of its events; every method waits for what the journal reports."""

    def __init__(
        self, journal: Journal, events: queue.SimpleQueue[JournalEvent], recovered: Recovered
    ) -> None:
        self.journal = journal
        self.events = events
        self.recovered = recovered

    def next(self, kind: type[Event]) -> Event:
        """Return the next event, which must be of this kind."""
        event = self.events.get(timeout=20)
        assert isinstance(event, kind), event
        return event

    def accept(self, question: JobRow, *, begun: bool = False) -> JournalEvent:
        """Ask for a question to be stored; returns what became of it."""
        self.journal.accept("ticket", question, begun=begun)
        event: JournalEvent = self.events.get(timeout=20)
        return self.events.get(timeout=20) if begun and isinstance(event, Entered) else event

    def accepted(self, question: JobRow) -> int:
        """Store a question that is new; return its number."""
        event = self.accept(question)
        assert isinstance(event, Accepted), event
        return event.number

    def attempt(self, number: int) -> int:
        """Count a run; return the count."""
        self.journal.attempt(number)
        return self.next(AttemptCounted).attempts

    def finish(self, number: int, publishes: tuple[Publish, ...], *, again: bool = False) -> Finished:
        """Finish a question."""
        self.journal.finish(number, publishes, again=again)
        return self.next(Finished)

    def forget(self, name: str, client: str = "c1") -> bool:
        """Forget a session; tells whether anything was known of it."""
        self.journal.forget("ticket", client, name)
        return self.next(SessionForgotten).known

    def status(self, job_id: str, client: str = "c1") -> StatusFound:
        """Look a question up."""
        self.journal.status("ticket", client, job_id)
        return self.next(StatusFound)


@contextmanager
def desk(
    path: Path,
    clock: Callable[[], Instant] = read_instant,
    *,
    max_age_s: float = 604_800.0,
    max_bytes: int = 64 * 1024 * 1024,
    sessions: SessionBounds | None = None,
) -> Iterator[Desk]:
    """Open the journal at `path`, close it afterwards."""
    events: queue.SimpleQueue[JournalEvent] = queue.SimpleQueue()
    journal = Journal(
        path, events.put, max_age_s=max_age_s, max_bytes=max_bytes, sessions=sessions, clock=clock
    )
    recovered = journal.open()
    try:
        yield Desk(journal, events, recovered)
    finally:
        assert journal.close(20)
