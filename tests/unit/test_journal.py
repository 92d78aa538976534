"""The journal on real files: what it stores, tells, recovers, prunes and refuses."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest
from journals import Clock, answer, desk, row

from edged.adapters.journal import Journal, JournalError, JournalVersionError
from edged.adapters.journal.schema import MIGRATIONS, connect, migrate
from edged.core.records import (
    PUBLISHES_MAX,
    Accepted,
    Broken,
    Conflict,
    Duplicate,
    Instant,
    JournalEvent,
    Publish,
    deadline_in,
    remaining_s,
)
from edged.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

YEAR_S = 365 * 86_400.0

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
PRAGMA application_id = 1701079908;
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a place whose folder does not exist yet."""
    return tmp_path / "state" / "journal.db"


def test_files_are_private(path: Path) -> None:
    """The database and its log can be read by their owner only."""
    with desk(path) as d:
        d.accepted(row("a"))
        assert [p.stat().st_mode & 0o777 for p in path.parent.iterdir()] == [0o600, 0o600]
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_file_settings(path: Path) -> None:
    """Pages of 2 KiB, incremental vacuum, write-ahead log, full synchronisation."""
    with desk(path):
        pass
    connection = connect(path)
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "auto_vacuum", "journal_mode", "synchronous", "user_version")
    ]
    connection.close()
    assert found == [2048, 2, "wal", 2, len(MIGRATIONS)]


def test_accepted_question_survives_restart(path: Path) -> None:
    """What was accepted comes back whole, in order, with its attempts."""
    questions = [row(f"q{i}", text=f"text {i}") for i in range(5)]
    with desk(path) as d:
        numbers = [d.accepted(q) for q in questions]
        d.attempt(numbers[1])
        d.attempt(numbers[1])
        d.accept(row("begun"), begun=True)
    assert numbers == sorted(numbers)
    with desk(path) as d:
        jobs = d.recovered.jobs
        assert [job.row for job in jobs[:5]] == questions
        assert [job.number for job in jobs[:5]] == numbers
        assert [job.attempts for job in jobs] == [0, 2, 0, 0, 0, 1]
        assert d.journal.depth().unfinished == 6


def test_terminal_and_outbox_survive_until_cleared(path: Path) -> None:
    """Terminal messages come back after a restart until the broker has acknowledged each of them."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        finished = d.finish(number, answer("yes"))
        assert tuple(publish for _, publish in finished.outbox) == answer("yes")
        d.journal.clear(finished.outbox[0][0])
    with desk(path) as d:
        assert d.recovered.jobs == ()
        assert d.recovered.outbox == finished.outbox[1:]
        d.journal.clear(finished.outbox[1][0])
    with desk(path) as d:
        assert d.recovered.outbox == ()
        assert d.status("a").state == "finished"


def test_lonely_clear_becomes_durable_by_itself(path: Path) -> None:
    """A clear that finds no commit to ride on gets its own, once for many."""
    with desk(path) as d:
        outbox = d.finish(d.accepted(row("a")), answer("yes")).outbox
        commits = d.journal.depth().commits
        for outbox_id, _ in outbox:
            d.journal.clear(outbox_id)
        deadline = time.monotonic() + 5
        while d.journal.depth().outbox and time.monotonic() < deadline:
            time.sleep(0.02)
        assert d.journal.depth().outbox == 0
        assert d.journal.depth().commits == commits + 1


def test_duplicate_of_running_joins_it(path: Path) -> None:
    """A second copy of an unfinished question is told its number and stored once."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        assert d.accept(row("a")) == Duplicate("ticket", number, "unfinished")
        assert d.journal.depth().unfinished == 1


def test_duplicate_of_finished_gets_the_stored_answer(path: Path) -> None:
    """A copy of a finished question gets the same messages, owed to the broker once more."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        outbox = d.finish(number, answer("yes")).outbox
        for outbox_id, _ in outbox:
            d.journal.clear(outbox_id)
        for _ in range(3):
            assert d.accept(row("a")) == Duplicate("ticket", number, "finished", outbox)
        assert d.journal.depth().outbox == 2
    with desk(path) as d:
        assert d.recovered.outbox == outbox


def test_other_question_under_used_id_conflicts(path: Path) -> None:
    """The same client and id with another digest is a conflict, finished or not; another client is not."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        assert d.accept(row("a", text="cold?")) == Conflict("ticket")
        d.finish(number, ())
        assert d.accept(row("a", text="cold?")) == Conflict("ticket")
        assert isinstance(d.accept(row("a", client="c2", text="cold?")), Accepted)


def test_first_finish_counts(path: Path) -> None:
    """A second finish publishes nothing and leaves the stored answer alone."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        first = d.finish(number, answer("yes"))
        assert d.finish(number, answer("no")).outbox == ()
        assert d.finish(number + 100, answer("no")).outbox == ()
        assert d.accept(row("a")) == Duplicate("ticket", number, "finished", first.outbox)


def test_attempt_of_finished_question_is_zero(path: Path) -> None:
    """A run of a question that is finished or unknown is not counted."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        d.finish(number, ())
        assert (d.attempt(number), d.attempt(77)) == (0, 0)


def test_status(path: Path) -> None:
    """Status tells unknown, unfinished and finished apart, per client."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        d.attempt(number)
        found = [d.status("a"), d.status("b"), d.status("a", client="c2")]
        assert [(f.state, f.number, f.attempts) for f in found] == [
            ("unfinished", number, 1),
            (None, None, 0),
            (None, None, 0),
        ]


def test_limits_of_arguments(path: Path) -> None:
    """What cannot be stored is refused at the call, not in the writer."""
    with desk(path) as d:
        with pytest.raises(ValueError, match="ASCII"):
            d.journal.accept("t", row("\udc80"))
        with pytest.raises(ValueError, match="at most"):
            d.journal.finish(1, answer("x") * PUBLISHES_MAX)
        with pytest.raises(TypeError):
            d.journal.finish(1, (Publish("t", b"", {"x": object()}),))
        d.accepted(row("a"))


def test_group_commit(path: Path) -> None:
    """500 questions from 5 threads at once take far fewer commits than questions, and none is lost."""
    with desk(path) as d:
        before = d.journal.depth().commits

        def ask(client: str) -> None:
            for i in range(100):
                d.journal.accept((client, i), row(str(i), client=client))

        threads = [threading.Thread(target=ask, args=(f"c{n}",)) for n in range(5)]
        for thread in threads:
            thread.start()
        events = [d.next(Accepted) for _ in range(500)]
        for thread in threads:
            thread.join()
        assert len({event.ticket for event in events}) == 500
        assert [event.number for event in events] == list(range(1, 501))
        assert d.journal.depth().commits - before <= 100
    with desk(path) as d:
        assert len(d.recovered.jobs) == 500


def test_two_commits_per_question(path: Path) -> None:
    """A lone question that runs at once takes two commits, its clears ride with the next one."""
    with desk(path) as d:
        d.accepted(row("first"))
        before = d.journal.depth().commits
        for i in range(10):
            event = d.accept(row(str(i)), begun=True)
            assert isinstance(event, Accepted)
            for outbox_id, _ in d.finish(event.number, answer("yes")).outbox:
                d.journal.clear(outbox_id)
        assert d.journal.depth().commits - before == 20


def test_deadline_runs_within_a_boot(path: Path) -> None:
    """A restart of the daemon costs the question the time that passed."""
    clock = Clock()
    with desk(path, clock) as d:
        d.accepted(row("a", deadline=deadline_in(60.0, clock.now)))
    clock.advance(25.0)
    with desk(path, clock) as d:
        clock.advance(5.0)
        assert remaining_s(d.recovered.jobs[0].row, clock.now.boot_id, clock.now.monotonic_s) == 30.0
        clock.advance(31.0)
        assert remaining_s(d.recovered.jobs[0].row, clock.now.boot_id, clock.now.monotonic_s) == -1.0


def test_deadline_survives_reboots(path: Path) -> None:
    """Over a reboot the last recorded rest counts; it shrinks with each boot and never by the time between."""
    clock = Clock()
    with desk(path, clock) as d:
        number = d.accepted(row("a", deadline=deadline_in(60.0, clock.now)))
        clock.advance(10.0)
        d.attempt(number)
    clock.reboot("boot-2")
    with desk(path, clock) as d:
        recovered = d.recovered.jobs[0].row
        assert remaining_s(recovered, clock.now.boot_id, clock.now.monotonic_s) == 50.0
        clock.advance(20.0)
    clock.reboot("boot-3")
    with desk(path, clock) as d:
        recovered = d.recovered.jobs[0].row
        assert remaining_s(recovered, clock.now.boot_id, clock.now.monotonic_s) == 30.0


def test_remaining_never_grows() -> None:
    """A monotonic clock that stands lower than recorded (a restored container) gives no extra time."""
    question = row("a", deadline=deadline_in(60.0, Instant("b", 1000.0)))
    assert remaining_s(question, "b", 0.0) == 60.0
    assert remaining_s(row("a"), "b", 0.0) == float("inf")


def test_prunes_by_age_in_journal_time(path: Path) -> None:
    """Finished questions go when the journal has been in use for longer than their age allows."""
    clock = Clock()
    with desk(path, clock, max_age_s=100.0) as d:
        for i in range(200):
            d.finish(d.accepted(row(f"old{i}")), ())
        unfinished = d.accepted(row("unfinished"))
        owed = d.finish(d.accepted(row("owed")), answer("yes")).outbox
        clock.advance(101.0)
    with desk(path, clock, max_age_s=100.0) as d:
        for i in range(4):  # in steps, with the commits of finished questions
            d.finish(d.accepted(row(f"new{i}")), ())
        assert {d.status(f"old{i}").state for i in range(200)} == {None}
        assert d.status("unfinished").number == unfinished
        assert d.recovered.outbox == owed
        assert d.status("owed").state == "finished"
        assert [d.status(f"new{i}").state for i in range(4)] == ["finished"] * 4


def test_reboot_and_clock_jump_prune_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a reboot nor a wall clock a year ahead or in 1970 ages a stored answer or a deadline."""
    clock = Clock()
    with desk(path, clock, max_age_s=100.0) as d:
        d.finish(d.accepted(row("a")), ())
        d.accepted(row("b", deadline=deadline_in(60.0, clock.now)))
    for boot, wall_s in (("boot-2", time.time() + YEAR_S), ("boot-3", 0.0)):
        monkeypatch.setattr(time, "time", lambda at=wall_s: at)
        clock.reboot(boot)
        with desk(path, clock, max_age_s=100.0) as d:
            d.finish(d.accepted(row(f"late-{boot}")), ())
            assert d.status("a").state == "finished"
            left_s = remaining_s(d.recovered.jobs[0].row, clock.now.boot_id, clock.now.monotonic_s)
            assert left_s == 60.0


def test_prunes_by_bytes(path: Path) -> None:
    """The file stays within its bound; the oldest finished questions go, the newest stay."""
    bound = 512 * 1024
    with desk(path, max_bytes=bound) as d:
        unfinished = d.accepted(row("unfinished"))
        for i in range(300):
            finished = d.finish(d.accepted(row(str(i), text="q" * 500)), answer("x" * 2000))
            for outbox_id, _ in finished.outbox:
                d.journal.clear(outbox_id)
        states = [d.status(str(i)).state for i in range(300)]
        assert states[0] is None
        assert states[250:] == ["finished"] * 50
        assert states == sorted(states, key=lambda state: state is not None)
        assert d.status("unfinished").number == unfinished
    assert path.stat().st_size < bound * 1.25


def test_free_pages_are_given_back(path: Path) -> None:
    """When a large part of the file has become free, it shrinks."""
    clock = Clock()
    with desk(path, clock, max_age_s=100.0) as d:
        for i in range(100):
            d.finish(d.accepted(row(str(i))), ())
            d.finish(d.accepted(row(f"big{i}")), (Publish("t", b"x" * 20_000),))
        for job in range(1, 201):
            d.journal.clear(job * PUBLISHES_MAX)
    before = path.stat().st_size
    clock.advance(101.0)
    with desk(path, clock, max_age_s=100.0) as d:
        deadline = time.monotonic() + 5
        while d.status("99").state is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
    assert path.stat().st_size < before / 4


@pytest.mark.parametrize("spoil", ["header", "middle", "empty-ish", "text"])
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
    else:
        content = bytearray(b"this is not a database, it only has its name\n" * 100)
    path.write_bytes(content)
    for n in (1, 2):
        with desk(path) as d:
            assert d.recovered.set_aside == (f"{path}.corrupt-1" if n == 1 else None)
            assert len(d.recovered.jobs) == n - 1
            d.accepted(row(f"after-{n}"))
    assert path.with_name("journal.db.corrupt-1").read_bytes()[:5000] == content[:5000]


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


def test_unreadable_stored_answer_is_as_if_pruned(path: Path) -> None:
    """A stored answer whose bytes make no sense is dropped: its question may be asked again."""
    with desk(path) as d:
        d.finish(d.accepted(row("owed")), answer("yes"))
        for outbox_id, _ in d.finish(d.accepted(row("kept")), answer("yes")).outbox:
            d.journal.clear(outbox_id)
    connection = connect(path)
    connection.execute("UPDATE jobs SET terminal = x'c1'")
    connection.close()
    with desk(path) as d:
        assert d.recovered.unreadable == 1
        assert d.recovered.outbox == ()
        assert isinstance(d.accept(row("owed")), Accepted)
        assert isinstance(d.accept(row("kept")), Accepted)
        assert d.journal.depth().outbox == 0


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
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    migrate(connection, (*MIGRATIONS, (add,)), version="9.9")
    assert connection.execute("SELECT id, note FROM jobs").fetchall() == [("a", None)]
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    with pytest.raises(JournalVersionError, match=r"written by edged 9\.9"):
        Journal(path, lambda _: None).open()


def test_newer_version_is_left_alone(path: Path) -> None:
    """A file of a newer edged is neither used nor moved: the operator is told, as of a wrong setting."""
    assert issubclass(JournalVersionError, SettingsError)
    with desk(path):
        pass
    connection = connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(JournalVersionError, match="schema version 99"):
        Journal(path, lambda _: None).open()
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["journal.db"]


def test_second_process_is_refused(path: Path) -> None:
    """Two writers would spoil the journal: the second one is told so and the file stays."""
    with desk(path) as d:
        d.accepted(row("a"))
        with pytest.raises(JournalError, match="is another edged running"):
            Journal(path, lambda _: None).open()
        d.accepted(row("b"))


def test_impossible_place(tmp_path: Path) -> None:
    """A path that cannot be made is told with its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"file/journal\.db"):
        Journal(tmp_path / "file" / "journal.db", lambda _: None).open()


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


def test_close_is_idempotent_and_final(path: Path) -> None:
    """Closing twice is harmless; a command after it is a defect of the caller and told as such."""
    journal = Journal(path, lambda _: None)
    assert journal.close(1)
    with pytest.raises(JournalError, match="not open"):
        journal.depth()
    journal.open()
    assert journal.close(5)
    assert journal.close(5)
    with pytest.raises(JournalError, match="closed"):
        journal.attempt(1)
    assert [p.name for p in path.parent.iterdir()] == ["journal.db"]
