"""The journal's file: its settings, versions, damage, and who else may have it."""

from __future__ import annotations

import errno
import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from journals import Desk, answer, desk, row

from edged.adapters.journal import Journal, JournalBusyError, JournalError, JournalVersionError
from edged.adapters.journal.schema import MIGRATIONS, connect, migrate, unusable
from edged.adapters.journal.writer import CLEAR_DELAY_S
from edged.core.records import (
    PUBLISHES_MAX,
    Accepted,
    Broken,
    Deadline,
    Failed,
    Finished,
    JournalEvent,
    Publish,
    SessionTurn,
)
from edged.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A file as version 1 wrote it, kept here word for word: later versions must go on reading it.
VERSION_1 = """
PRAGMA page_size = 2048;
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL,
    received_unix_s REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, finished_s REAL, deadline_boot_id TEXT,
    deadline_monotonic_s REAL, deadline_remaining_s REAL, body BLOB NOT NULL, terminal BLOB, UNIQUE (client, id)
) STRICT;
CREATE TABLE outbox (id INTEGER PRIMARY KEY) STRICT;
INSERT INTO meta VALUES ('edged_version', '0.1.0'), ('clock_s', 50.0), ('boot_id', 'old'), ('monotonic_s', 9.0);
INSERT INTO jobs VALUES (3, 'c1', 'a', x'01', 1.0, 2, NULL, 'old', 70.0, 61.0, x'6869', NULL);
INSERT INTO jobs VALUES (4, 'c1', 'b', x'02', 1.0, 1, 40.0, NULL, NULL, NULL, x'',
    x'9183a5746f706963a174a77061796c6f6164c40179aa70726f7065727469657380');
INSERT INTO outbox VALUES (32);
PRAGMA application_id = 1701078884;
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a place whose folder does not exist yet."""
    return tmp_path / "state" / "journal.db"


def test_how_long_a_large_file_may_take(tmp_path: Path) -> None:
    """A year of answers is read whole before the node is ready: systemd ended it after two minutes, for ever."""
    path = tmp_path / "journal.db"
    journal = Journal(path, lambda _event: None)
    assert journal.opening_s == 0.0
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    assert journal.opening_s > 120.0 + 3 * 2**10 / 10, "ten MiB a second, and what the unit allows"


def test_files_are_private(path: Path) -> None:
    """The database and its log can be read by their owner only."""
    with desk(path) as d:
        d.accepted(row("a"))
        assert [p.stat().st_mode & 0o777 for p in path.parent.iterdir()] == [0o600, 0o600]
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_file_settings(path: Path) -> None:
    """Pages of 2 KiB, incremental vacuum, write-ahead log, full synchronisation, little memory."""
    with desk(path):
        pass
    connection = connect(path)
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "auto_vacuum", "journal_mode", "synchronous", "cache_size", "user_version")
    ]
    connection.close()
    assert found == [2048, 2, "wal", 2, -512, len(MIGRATIONS)]


@pytest.mark.parametrize("spoil", ["header", "middle", "empty-ish", "schema", "column", "trigger", "text"])
def test_corrupt_file_is_set_aside(path: Path, spoil: str) -> None:
    """A damaged file is moved away under a name that is told, and the journal goes on with a fresh one."""
    with desk(path) as d:
        for i in range(50):
            d.accepted(row(str(i), text="q" * 1000))
    content = bytearray(path.read_bytes())
    if spoil == "header":
        content[:100] = bytes(range(100))
    elif spoil == "middle":
        content[20_000:30_000] = b"\xa5" * 10_000
    elif spoil == "empty-ish":
        del content[5000:]
    elif spoil == "trigger":
        content = content.replace(b"client = OLD.client", b"client = OLD.clienu", 1)
    elif spoil == "column":  # which is used when a session's first answer is stored
        content = content.replace(b"system TEXT", b"sxstem TEXT", 1)
    elif spoil == "schema":  # which SQLite's message then quotes
        content = content.replace(b"digest BLOB", b"digest BL\xffB", 1)
    else:
        content = bytearray(b"this is not a database, it only has its name\n" * 100)
    path.write_bytes(content)
    for n in (1, 2):
        with desk(path) as d:
            assert d.recovered.set_aside == (f"{path}.corrupt-1" if n == 1 else None)
            assert len(d.recovered.jobs) == n - 1
            d.accepted(row(f"after-{n}"))
    assert path.with_name("journal.db.corrupt-1").read_bytes()[:5000] == content[:5000]


@pytest.mark.parametrize("left", [b"", None], ids=["empty", "gone"])
def test_a_log_without_its_file(path: Path, left: bytes | None) -> None:
    """SQLite deletes it without a word, and what it held; an empty file is what a power cut may leave of one."""
    path.parent.mkdir()
    connection = connect(path)
    log = path.with_name("journal.db-wal")
    kept = log.read_bytes()
    connection.close()
    path.unlink() if left is None else path.write_bytes(left)
    log.write_bytes(kept)
    with desk(path) as d:
        assert d.recovered.set_aside == f"{path}.corrupt-1"
    assert path.with_name("journal.db.corrupt-1-wal").read_bytes() == kept
    with desk(path) as d:
        assert d.recovered.set_aside is None


def test_few_damaged_files_are_kept(path: Path) -> None:
    """A card that keeps failing does not fill itself with set-aside files."""
    path.parent.mkdir()
    for _ in range(5):
        path.write_bytes(b"garbage" * 1000)
        with desk(path):
            pass
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "journal.db",
        *(f"journal.db.corrupt-{n}" for n in (3, 4, 5)),
    ]


def test_database_of_another_program_is_set_aside_unchanged(path: Path) -> None:
    """A valid database that is not ours is moved, not written to."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    with desk(path) as d:
        assert d.recovered.set_aside == f"{path}.corrupt-1"
    assert path.with_name("journal.db.corrupt-1").read_bytes() == content


@pytest.mark.parametrize(
    "damaged",
    [lambda _: b"\xc1", lambda whole: whole.replace(b"edged/", b"\xffdged/")],
    ids=["no msgpack", "no UTF-8"],
)
def test_unreadable_stored_answer(path: Path, damaged: Callable[[bytes], bytes]) -> None:
    """One whose device has heard nothing is to end in another way; any other is as if it had been pruned."""
    with desk(path) as d:
        owed = d.accepted(row("owed"))
        d.finish(owed, answer("yes"))
        d.journal.clear(d.finish(d.accepted(row("half")), answer("yes")).outbox[0][0])
        for outbox_id, _ in d.finish(d.accepted(row("kept")), answer("yes")).outbox:
            d.journal.clear(outbox_id)
    connection = connect(path)
    for number, terminal in connection.execute("SELECT number, terminal FROM jobs").fetchall():
        connection.execute("UPDATE jobs SET terminal = ? WHERE number = ?", (damaged(terminal), number))
    connection.close()
    with desk(path) as d:
        assert d.recovered.unreadable == 2
        assert d.recovered.outbox == ()
        assert [(job.number, job.row.id, job.row.body) for job in d.recovered.jobs] == [(owed, "owed", b"")]
        told = d.finish(owed, answer("lost")[:1], again=True)
        assert told.outbox == ((owed * PUBLISHES_MAX, answer("lost")[0]),)
        d.journal.clear(owed * PUBLISHES_MAX)
        assert isinstance(d.accept(row("owed")), Accepted)
        assert isinstance(d.accept(row("half")), Accepted)
        assert isinstance(d.accept(row("kept")), Accepted)
        assert d.journal.depth().outbox == 0


def test_times_that_are_none(path: Path) -> None:
    """What a worn card makes of a deadline or of the journal's own time ends no start, and prunes nothing."""
    with desk(path) as d:
        d.accepted(row("asked", deadline=Deadline("boot-1", 1.0, 60.0)))
        d.finish(d.accepted(row("answered")), answer("yes"))
    connection = connect(path)
    connection.execute(
        "UPDATE jobs SET deadline_remaining_s = 9e999, deadline_monotonic_s = 9e999 WHERE id = 'asked'"
    )
    connection.execute("UPDATE meta SET value = 9e999 WHERE key = 'clock_s'")
    connection.execute("UPDATE meta SET key = 'monotonic_t' WHERE key = 'monotonic_s'")
    connection.close()
    with desk(path) as d:
        assert [(job.row.id, job.row.deadline) for job in d.recovered.jobs] == [("asked", None)]
        assert len(d.recovered.outbox) == 2
        assert d.status("answered").state == "finished"


def test_version_1_is_read(path: Path) -> None:
    """A file of schema version 1 opens with all that it holds."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()
    with desk(path) as d:
        job = d.recovered.jobs[0]
        assert (job.number, job.attempts, job.row.client, job.row.id, job.row.body) == (
            3,
            2,
            "c1",
            "a",
            b"hi",
        )
        assert d.recovered.outbox == ((32, Publish("t", b"y")),)
        assert d.recovered.set_aside is None


def test_migration_is_all_or_nothing(path: Path) -> None:
    """A step to the next version keeps the rows and is recorded; one that fails leaves the old version whole."""
    with desk(path) as d:
        d.accepted(row("a"))
    connection = connect(path)
    add = "ALTER TABLE jobs ADD COLUMN note TEXT"
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (*MIGRATIONS, (add, "ALTER TABLE nothing ADD COLUMN note TEXT")))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    migrate(connection, (*MIGRATIONS, (add,)), version="9.9", reader_min=len(MIGRATIONS) + 1)
    assert connection.execute("SELECT id, note FROM jobs").fetchall() == [("a", None)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    connection.close()
    with pytest.raises(JournalVersionError, match=r"written by edged 9\.9"):
        Journal(path, lambda _: None).open()


def test_the_way_back_from_a_version_that_only_adds(path: Path) -> None:
    """The earlier release uses the file, and the later one finds it with all that was written meanwhile."""
    with desk(path) as d:
        number = d.accepted(row("before"))
    tables = ("meta", "jobs", "outbox", "sessions", "session_turns")
    added = (
        *(f"ALTER TABLE {table} ADD COLUMN note TEXT" for table in tables),
        "CREATE TABLE notes (x TEXT) STRICT",
    )
    later = (*MIGRATIONS, added)
    connection = connect(path)
    migrate(connection, later, version="9.9")
    connection.close()
    with desk(path) as d:
        assert d.recovered.set_aside is None
        assert [job.number for job in d.recovered.jobs] == [number]
        session = SessionTurn("c1", "s", None, 0, b"turn")
        d.journal.finish(number, answer("yes"), session)
        d.journal.clear(d.next(Finished).outbox[0][0])
        d.accepted(row("after"))
        assert d.journal.depth().sessions == 1
    with closing(sqlite3.connect(path)) as again:
        migrate(again, later)
        assert again.execute("PRAGMA user_version").fetchone() == (len(later),)
        assert again.execute("SELECT id, note FROM jobs").fetchall() == [("before", None), ("after", None)]


def test_newer_version_is_left_alone(path: Path) -> None:
    """A file of a newer edged is neither used nor moved: the operator is told, as of a wrong setting."""
    assert issubclass(JournalVersionError, SettingsError)
    with desk(path):
        pass
    connection = connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.execute("UPDATE meta SET value = 99 WHERE key = 'reader_min'")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(JournalVersionError, match="schema version 99"):
        Journal(path, lambda _: None).open()
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["journal.db"]


@pytest.mark.parametrize(
    ("number", "passes"),
    [
        (errno.ENOSPC, True),
        (errno.EROFS, True),
        (errno.EIO, True),
        (errno.EACCES, False),
        (errno.ENOTDIR, False),
    ],
)
def test_what_the_next_start_may_find_mended(number: int, passes: bool) -> None:  # noqa: FBT001 - a table
    """A full disk is no mistake in the settings: systemd shall try again."""
    found = unusable(OSError(number, "x"), "x")
    assert isinstance(found, JournalBusyError) is passes


def test_second_process_is_refused(path: Path) -> None:
    """Two writers would spoil the journal: the second one is told so and the file stays."""
    with desk(path) as d:
        d.accepted(row("a"))
        with pytest.raises(JournalBusyError, match="is another edged running"):
            Journal(path, lambda _: None).open()
        d.accepted(row("b"))


def test_impossible_place(tmp_path: Path) -> None:
    """A path that cannot be made is told with its name, and with what would do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        JournalError, match=r"/file: File exists; a folder that this account may write is accepted"
    ):
        Journal(tmp_path / "file" / "journal.db", lambda _: None).open()


def test_a_file_of_another_account(path: Path) -> None:
    """One that root has put back: what gives it to the service is told."""
    with desk(path):
        pass
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    else:  # who cannot give a file away
        path.unlink()
        path.symlink_to("/etc/passwd")
    opening = (
        "import sys, pathlib, edged.adapters.journal as j; j.Journal(pathlib.Path(sys.argv[1]), print).open()"
    )
    without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--")
    found = subprocess.run(
        [*without, sys.executable, "-c", opening, str(path)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert f"; it is another account's: chown --reference={path.parent} {path}*\n" in found.stderr


def test_a_folder_that_is_gone_while_it_is_written(tmp_path: Path) -> None:
    """The counters are health's, and read by the node's one thread: they raise nothing."""
    (tmp_path / "state").mkdir()
    with desk(tmp_path / "state" / "j.db") as d:
        (tmp_path / "state").rename(tmp_path / "away")
        (tmp_path / "state").touch()
        assert d.journal.depth().bytes == 0
        (tmp_path / "state").unlink()
        (tmp_path / "away").rename(tmp_path / "state")


def test_damage_at_run_time_ends_the_writer(path: Path) -> None:
    """Damage found while running is told as the last event, so that the process starts again and sets it aside."""
    with desk(path) as d:
        for i in range(60):  # more than SQLite's page cache holds
            d.finish(d.accepted(row(str(i))), (Publish("t", b"x" * 100_000),))
    events: list[JournalEvent] = []
    ended = threading.Event()

    def emit(event: JournalEvent) -> None:
        events.append(event)
        if isinstance(event, Broken):
            ended.set()

    journal = Journal(path, emit)
    journal.open()
    with path.open("r+b") as file:
        file.seek(2048)
        file.write(b"\xa5" * (path.stat().st_size - 2048))
    journal.accept("t", row("0"))
    assert ended.wait(10)
    assert isinstance(events[-1], Broken)
    assert "SQLITE_CORRUPT" in events[-1].reason
    journal.close(5)


def test_an_orderly_end_is_known_once(tmp_path: Path) -> None:
    """After a close the next life hears of it; the one after a kill does not."""
    path = tmp_path / "journal.db"
    first = Journal(path, lambda _event: None)
    assert not first.open().stopped
    first.close()
    second = Journal(path, lambda _event: None)
    assert second.open().stopped
    copy = tmp_path / "copy" / "journal.db"  # what a power loss leaves of the second life
    copy.parent.mkdir()
    for file in tmp_path.glob("journal.db*"):
        shutil.copy(file, copy.parent / file.name)
    second.close()
    third = Journal(copy, lambda _event: None)
    assert not third.open().stopped
    third.close()


@contextmanager
def unended(path: Path) -> Iterator[Desk]:
    """A journal whose writer is to end unasked."""
    events: queue.SimpleQueue[JournalEvent] = queue.SimpleQueue()
    journal = Journal(path, events.put)
    yield Desk(journal, events, journal.open())
    journal.accept("late", row("late"))
    event = events.get(timeout=20)
    assert isinstance(event, Broken)
    assert "taken away" in event.reason
    assert journal.close()


def test_a_file_that_is_taken_away(path: Path) -> None:
    """SQLite reports commits into a file without a name: of what was acknowledged then no later start knew."""
    with unended(path) as d:
        d.accepted(row("a"))
        d.finish(d.accepted(row("b")), answer("yes"))
        shutil.rmtree(path.parent)
    assert [(p.name, p.stat().st_mode & 0o777) for p in path.parent.iterdir()] == [("journal.db", 0o600)]
    with desk(path) as d:
        assert d.recovered.set_aside is None
        assert [job.row.id for job in d.recovered.jobs] == ["a"], "the late one was never acknowledged"
        assert [publish for _, publish in d.recovered.outbox] == list(answer("yes"))


@pytest.mark.parametrize("put", ["another journal", "a file in the folder's place"])
def test_a_place_that_is_taken(path: Path, put: str) -> None:
    """Nothing new is stored, what is under way ends, then the process: the next start finds what was put there."""
    other = path.with_name("other")
    with desk(other) as d:
        d.accepted(row("theirs"))
    with unended(path) as d:
        number = d.accepted(row("a"))
        if put == "another journal":
            other.replace(path)
        else:
            shutil.rmtree(path.parent)
            path.parent.touch()
        failed = d.accept(row("b"))
        assert isinstance(failed, Failed)
        assert "taken away" in failed.reason
        for outbox_id, _ in d.finish(number, answer("yes")).outbox:
            d.journal.clear(outbox_id)
        time.sleep(3 * CLEAR_DELAY_S)
    if put == "another journal":
        with desk(path) as d:
            assert [job.row.id for job in d.recovered.jobs] == ["theirs"]
            assert d.recovered.set_aside is None
