"""The journal's commands on real files: what it stores, tells and recovers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from journals import answer, desk, row

from edged.adapters.journal import Journal, JournalError
from edged.core.records import (
    PUBLISHES_MAX,
    Accepted,
    Conflict,
    Duplicate,
    Entered,
    JournalEvent,
    NotKnown,
    Publish,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a place whose folder does not exist yet."""
    return tmp_path / "state" / "journal.db"


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
        while d.journal.depth().commits == commits and time.monotonic() < deadline:
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


def test_recall_stores_nothing(path: Path) -> None:
    """A question that is only looked up is told of as a copy would be; a new one leaves nothing behind."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        asked = row("a")

        def recall(digest: bytes) -> JournalEvent:
            d.journal.recall("ticket", "c1", "a", digest)
            return d.events.get(timeout=20)

        assert recall(asked.digest) == Duplicate("ticket", number, "unfinished")
        outbox = d.finish(number, answer("yes")).outbox
        for outbox_id, _ in outbox:
            d.journal.clear(outbox_id)
        assert recall(asked.digest) == Duplicate("ticket", number, "finished", outbox)
        assert recall(row("a", text="cold?").digest) == Conflict("ticket")
        d.journal.recall("ticket", "c1", "b", asked.digest)
        assert d.next(NotKnown) == NotKnown("ticket")
        assert d.journal.depth().outbox == 2
    with desk(path) as d:
        assert (d.recovered.jobs, d.recovered.outbox) == ((), outbox)
        d.accepted(row("b"))


def test_who_is_told_to_ask_again_may_do_so_under_the_same_id(path: Path) -> None:
    """Until the broker has that word a copy hears it again; then it is a new question, even a changed one."""
    with desk(path) as d:
        number = d.accepted(row("a"))
        outbox = d.finish(number, answer("later"), again=True).outbox
        assert d.accept(row("a")) == Duplicate("ticket", number, "finished", outbox)
    with desk(path) as d:
        assert d.recovered.outbox == outbox
        for outbox_id, _ in outbox:
            d.journal.clear(outbox_id)
        assert d.status("a").state == "finished"
        asked = d.accepted(row("a", text="cold?"))
        assert asked > number
        assert d.finish(asked, answer("yes")).outbox[0][1].payload == b"yes"
        assert isinstance(d.accept(row("a")), Conflict)


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


def test_a_new_question_that_runs_at_once_is_told_of_before_its_commit(path: Path) -> None:
    """With its session, and under the same ticket; a copy of it is told of only once it was looked up."""
    with desk(path) as d:
        for _ in range(2):
            d.journal.accept("ticket", row("a"), begun=True)
        assert d.next(Entered) == Entered("ticket")
        assert d.next(Accepted).number == 1
        assert d.next(Duplicate).state == "unfinished"
        assert d.events.empty()


def test_how_long_a_write_takes_is_told(path: Path) -> None:
    """A disk that hangs ends nothing and refuses nothing: only the time tells."""
    begun, on = threading.Event(), threading.Event()

    def hang(_event: JournalEvent) -> None:
        begun.set()
        assert on.wait(20)

    journal = Journal(path, hang)
    journal.open()
    journal.accept("ticket", row("a"), begun=True)
    assert begun.wait(20)
    first = journal.depth().writing_s
    time.sleep(0.01)
    assert journal.depth().writing_s >= first + 0.01
    on.set()
    until_s = time.monotonic() + 20
    while journal.depth().writing_s:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    assert journal.close(20)


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
