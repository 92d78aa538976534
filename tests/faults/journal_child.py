"""A process that uses a journal until something happens to it; started by test_power_loss.py, with PYTHONPATH.

    journal_child.py load FILE FIRST     stores and finishes questions q<FIRST>, q<FIRST+1>, ... until killed, and
                                         prints a line as soon as each event arrives: what a device was promised
    journal_child.py full FOLDER         fills the (tiny) file system of FOLDER at every write point, 20 times
    journal_child.py limit FILE          may not let a file grow beyond 192 KiB until it is allowed to

The last two print one JSON line of figures, and fail by assertion.
"""

from __future__ import annotations

import errno
import json
import queue
import resource
import sys
import time
from pathlib import Path

from journals import answer, desk, row

from edged.adapters.journal import Journal
from edged.core.records import Accepted, AttemptCounted, Failed, Finished, JournalEvent

CHUNK = b"\0" * 4096
PATIENCE_S = 20.0


def load(path: Path, first: int) -> None:
    """Store and finish questions, two at a time, until killed."""
    with desk(path) as d:
        for i in range(first, first + 1_000_000, 2):
            pair = (i, i + 1)
            for n in pair:
                d.journal.accept(n, row(f"q{n}", text=f"text of {n} " * 100))
            numbers: dict[int, object] = {}
            for _ in pair:
                stored = d.next(Accepted)
                numbers[stored.number] = stored.ticket
                print(f"accepted q{stored.ticket}", flush=True)
            for number in numbers:
                d.journal.attempt(number)
            for _ in pair:
                begun = d.next(AttemptCounted)
                print(f"began q{numbers[begun.number]}", flush=True)
            for number, ticket in numbers.items():
                d.journal.finish(number, answer(f"answer to {ticket} " * 50))
            for _ in pair:
                finished = d.next(Finished)
                print(f"finished q{numbers[finished.number]}", flush=True)
                if numbers[finished.number] == i:
                    d.journal.clear(finished.outbox[0][0])


class Book:
    """A journal on a disk that refuses now and then, and what it has promised so far."""

    def __init__(self, path: Path) -> None:
        self.events: queue.SimpleQueue[JournalEvent] = queue.SimpleQueue()
        self.journal = Journal(path, self.events.put, max_bytes=48 * 1024)
        self.open_jobs: dict[int, str] = {}
        self.stored: list[str] = []
        self.refused: list[str] = []
        self.finished = 0
        self._n = 0

    def ask(self) -> bool:
        """Ask one question more; tell whether it was stored. An answer is then begun and not waited for."""
        name = f"q{self._n}"
        self._n += 1
        self.journal.accept(name, row(name, text="q" * (self._n * 397 % 5000)))
        while True:
            event = self.events.get(timeout=PATIENCE_S)
            self._note(event)
            if isinstance(event, Accepted):
                return True
            if isinstance(event, Failed):
                return False

    def settle(self) -> None:
        """Wait until nothing is under way any more."""
        while self.open_jobs:
            self._note(self.events.get(timeout=PATIENCE_S))

    def ask_until(self, *, stored: bool) -> None:
        """Ask until a question is stored, or refused."""
        until_s = time.monotonic() + PATIENCE_S
        while self.ask() is not stored:
            assert time.monotonic() < until_s, f"never {'stored' if stored else 'refused'}"
            time.sleep(0.01 if stored else 0)

    def _note(self, event: JournalEvent) -> None:
        match event:
            case Accepted(ticket, number):
                self.open_jobs[number] = str(ticket)
                self.stored.append(str(ticket))
                self.journal.attempt(number)
            case Failed(ticket, reason):
                assert "SQLITE_FULL" in reason or "SQLITE_IOERR" in reason, reason
                self.refused.append(str(ticket))
            case AttemptCounted(number, attempts):
                assert attempts == 1
                self.journal.finish(number, answer(self.open_jobs[number] * 300))
            case Finished(number, outbox):
                assert len(outbox) == 2
                del self.open_jobs[number]
                self.finished += 1
                for outbox_id, _ in outbox:
                    self.journal.clear(outbox_id)
            case _:
                raise AssertionError(event)


def full(folder: Path) -> None:
    """Leave 0, 4, 8, ... KiB free (tmpfs gives pages), use it until it refuses, make room, see it go on."""
    book = Book(folder / "journal.db")
    book.journal.open()
    filler = folder / "filler"
    for room_pages in range(20):
        fill(filler, room_pages * len(CHUNK))
        book.ask_until(stored=False)
        filler.unlink()
        book.settle()
        book.ask_until(stored=True)
        book.settle()
    _report(book, folder / "journal.db")


def limit(path: Path) -> None:
    """Refuse to let a file grow, then allow it (EFBIG: an I/O error that is no full disk)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (192 * 1024, resource.RLIM_INFINITY))
    book = Book(path)
    book.journal.open()
    book.ask_until(stored=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    book.settle()
    book.ask_until(stored=True)
    book.settle()
    _report(book, path)


def fill(filler: Path, room_bytes: int) -> None:
    """Take all room of a disk but this much, in a file."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        file.truncate(max(0, file.tell() - room_bytes))


def _report(book: Book, path: Path) -> None:
    """Close, open again, and compare with what was promised."""
    assert book.journal.close(PATIENCE_S)
    with desk(path) as d:
        assert d.recovered.set_aside is None
        assert d.recovered.jobs == ()
        assert d.recovered.outbox == ()
        assert d.status(book.stored[-1]).state == "finished"
        for (
            name
        ) in book.refused:  # a commit that failed may still have reached the disk; it never counts as done
            assert d.status(name).state is None, name
    print(json.dumps({"stored": len(book.stored), "finished": book.finished, "refused": len(book.refused)}))


if __name__ == "__main__":
    mode, where = sys.argv[1], Path(sys.argv[2])
    if mode == "load":
        load(where, int(sys.argv[3]))
    elif mode == "full":
        full(where)
    else:
        limit(where)
