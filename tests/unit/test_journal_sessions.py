"""Sessions in the journal: they grow in the commit that ends their question, and stay within their bounds."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest
from journals import Clock, Desk, answer, desk, row

from edged.core.records import (
    PUBLISHES_MAX,
    Accepted,
    Duplicate,
    Finished,
    JobRow,
    SessionBounds,
    SessionTurn,
    StoredSession,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A place whose folder does not exist yet."""
    return tmp_path / "state" / "journal.db"


def question(job_id: str, name: str = "s", client: str = "c1") -> JobRow:
    """A question of a session."""
    return msgspec.structs.replace(row(job_id, client), session=name)


def accepted(d: Desk, asked: JobRow) -> Accepted:
    """Store a question that is new."""
    event = d.accept(asked)
    assert isinstance(event, Accepted)
    return event


def go_on(d: Desk, job_id: str, name: str = "s", *, client: str = "c1", first: int | None = None) -> int:
    """Ask and answer; returns the question's number, which is also the oldest that stays unless `first` is."""
    number = accepted(d, question(job_id, name, client)).number
    turn = SessionTurn(client, name, "short", number if first is None else first, job_id.encode())
    d.journal.finish(number, answer("yes"), turn)
    assert d.next(Finished).number == number
    return number


def test_an_unreadable_answer_leaves_its_number_taken(path: Path) -> None:
    """The turn that it brought stands under that number: a question that got it again could never be finished."""
    with desk(path) as d:
        first = go_on(d, "a")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET terminal = x'c1'")
    with desk(path) as d:
        assert d.recovered.unreadable == 1
        for outbox_id, _ in d.finish(first, answer("lost"), again=True).outbox:
            d.journal.clear(outbox_id)
        assert go_on(d, "b", first=first) > first
        assert go_on(d, "a", first=first) > first + 1


def test_a_session_goes_on(path: Path) -> None:
    """Each question finds the turns before it, also after a restart; one without a session finds none."""
    with desk(path) as d:
        first = go_on(d, "a")
        second = go_on(d, "b", first=first)
        assert accepted(d, row("z")).session is None
        assert accepted(d, question("y", "other")).session == StoredSession()
        assert d.journal.depth().sessions == 1
    with desk(path) as d:
        assert d.journal.depth().sessions == 1
        assert accepted(d, question("c")).session == StoredSession("short", ((first, b"a"), (second, b"b")))
    with desk(path) as d:
        sessions = {job.row.id: job.session for job in d.recovered.jobs}
        assert sessions["z"] is None
        assert sessions["y"] == StoredSession()
        assert sessions["c"] == StoredSession("short", ((first, b"a"), (second, b"b")))


def test_the_first_finish_counts(path: Path) -> None:
    """A second end of the same question adds nothing to its session."""
    with desk(path) as d:
        first = go_on(d, "a")
        d.journal.finish(first, answer("no"), SessionTurn("c1", "s", None, first, b"again"))
        assert d.next(Finished).outbox == ()
        assert accepted(d, question("b")).session == StoredSession("short", ((first, b"a"),))


def test_turns_that_are_trimmed_go(path: Path) -> None:
    """The journal forgets the turns before the oldest that stays."""
    with desk(path) as d:
        first = go_on(d, "a")
        second = go_on(d, "b", first=first)
        third = go_on(d, "c", first=second)
        assert accepted(d, question("d")).session == StoredSession("short", ((second, b"b"), (third, b"c")))


def test_sessions_are_each_clients_own(path: Path) -> None:
    """The same name is another session for another client."""
    with desk(path) as d:
        go_on(d, "a")
        assert accepted(d, question("b", client="c2")).session == StoredSession()


def test_a_session_that_is_not_used_is_forgotten(path: Path) -> None:
    """After its time it begins anew, and leaves no row behind."""
    clock = Clock()
    with desk(path, clock, sessions=SessionBounds(keep_s=100.0)) as d:
        go_on(d, "a")
        clock.advance(90)
        go_on(d, "b", first=1)
        clock.advance(90)
        held = accepted(d, question("c")).session
        assert held is not None
        assert [body for _, body in held.turns] == [b"a", b"b"]
        clock.advance(20)
        assert accepted(d, question("d")).session == StoredSession()
    with desk(path, clock, sessions=SessionBounds(keep_s=100.0)) as d:
        go_on(d, "e", "other")  # the first commit of a life prunes
        assert d.journal.depth().sessions == 1


def test_counts_are_bounded(path: Path) -> None:
    """Beyond the bounds of a client, and of all, the session that was not used for longest goes."""
    clock = Clock()
    with desk(path, clock, sessions=SessionBounds(per_client=2, total=3)) as d:
        for job_id, name, client in [("1", "a", "c1"), ("2", "b", "c1"), ("3", "a", "c1"), ("4", "c", "c1")]:
            go_on(d, job_id, name, client=client)
            clock.advance(1)
        assert turns(d, "a", "c1") == [b"3"]
        assert turns(d, "b", "c1") == []
        assert turns(d, "c", "c1") == [b"4"]
        go_on(d, "5", "a", client="c2")
        clock.advance(1)
        go_on(d, "6", "b", client="c2")
        assert turns(d, "a", "c1") == []
        assert d.journal.depth().sessions == 3


def test_a_power_cut_makes_no_new_session_the_oldest(path: Path) -> None:
    """The journal's time went back by up to an hour: of a client with all its sessions each new one went."""
    clock, left, bounds = Clock(), path.parent.with_name("left"), SessionBounds(per_client=2)
    with desk(path, clock, sessions=bounds) as d:
        go_on(d, "0", "a")  # the first commit of a life saves the time
        clock.advance(1800)
        go_on(d, "1", "a")
        go_on(d, "2", "b")
        shutil.copytree(path.parent, left)
    clock.reboot("boot-2")
    with desk(left / path.name, clock, sessions=bounds) as d:
        for job_id, name in ("3", "c"), ("4", "d"):
            clock.advance(1)
            go_on(d, job_id, name)
        assert [turns(d, name, "c1") for name in "abcd"] == [[], [], [b"3"], [b"4"]]


def test_a_session_is_forgotten(path: Path) -> None:
    """Its turns and answers are gone, those of others stay; asked again under an old id it is a new question."""
    with desk(path) as d:
        first = go_on(d, "a-fact")
        go_on(d, "b-fact", first=first)
        go_on(d, "c", "other")
        go_on(d, "d", client="c2")
        for number in range(1, 5):
            arrived(d, number)
        assert d.forget("s")
        assert d.journal.depth().sessions == 2
        assert turns(d, "s", "c1") == []
        assert turns(d, "other", "c1") == [b"c"]
        assert turns(d, "s", "c2") == [b"d"]
        assert accepted(d, question("a-fact")).session == StoredSession()
        assert isinstance(d.accept(question("c", "other")), Duplicate)
        assert not d.forget("s", "c3")


def test_an_answer_under_way_is_forgotten_after_it_has_arrived(path: Path) -> None:
    """What the broker does not have yet is still sent, also after a restart; then nothing of it is left."""
    with desk(path) as d:
        number = go_on(d, "a")
        assert d.forget("s")
        assert d.journal.depth().outbox == 2
    assert kept(path) == [("a", True)]
    with desk(path) as d:
        assert len(d.recovered.outbox) == 2
        arrived(d, number)
    assert kept(path) == [("a", False)]
    with desk(path) as d:
        assert accepted(d, question("a")).session == StoredSession()


def test_the_newest_row_keeps_its_number(path: Path) -> None:
    """A number that was given once is not given to another question."""
    with desk(path) as d:
        number = go_on(d, "a")
        arrived(d, number)
        assert d.forget("s")
    assert kept(path) == [("a", False)]
    with desk(path) as d:
        assert accepted(d, question("b")).number == number + 1
        assert not d.forget("s"), "a question that is not over stays"
        assert d.status("b").state == "unfinished"
    assert kept(path) == [("b", False)]


def arrived(d: Desk, number: int) -> None:
    """The broker has both messages of an answer."""
    for place in range(2):
        d.journal.clear(number * PUBLISHES_MAX + place)


def kept(path: Path) -> list[tuple[str, bool]]:
    """The questions that stand in a closed journal, and whether their answers do."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.execute("SELECT id, terminal IS NOT NULL FROM jobs ORDER BY number"))


def turns(d: Desk, name: str, client: str) -> list[bytes]:
    """What a session holds; asks with a question that is never answered."""
    session = accepted(d, question(f"look-{name}-{d.journal.depth().commits}", name, client)).session
    assert session is not None
    return [body for _, body in session.turns]
