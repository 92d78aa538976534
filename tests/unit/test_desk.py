"""Who is blamed for a crash, what a new life finds, answers that are no JSON, and runs ahead of the journal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_rig import TOPICS, Rig, Server, ended
from journals import answer, row
from journals import desk as on_disk

from edged.adapters.judge import Judge
from edged.core import reply
from edged.core.job import State
from edged.core.link import Delivered
from edged.core.question import Message
from edged.core.records import Finished, JobRow, Publish, Recovered, RecoveredJob, StoredSession
from edged.core.session import Turn
from edged.core.tools import Call, Offer
from edged.core.upstream import Broke, Policy
from edged.engine.messages import (
    Cancel,
    Ended,
    ForgetPrompts,
    Piece,
    Prepared,
    Refused,
    Said,
    Started,
    Submit,
)
from edged.errors import Code
from edged.node.away import Away
from edged.node.outbox import Owed
from edged.node.recovery import recover
from edged.tools.client import ToolsRan


def test_who_is_blamed_for_a_crash() -> None:
    """Those that ran, and the one that was being measured: the first of those that were not."""
    rig = Rig()
    jobs = {number: rig.ask(number) for number in range(1, 6)}
    rig.measured(1, 2)
    rig.desk.hearing.engine_said(Started(1))
    rig.crash()
    assert {number: job.crashes for number, job in jobs.items()} == {1: 1, 2: 0, 3: 1, 4: 0, 5: 0}
    assert rig.engine.submitted[5:] == [1, 2, 4, 5], "those who are suspected go one at a time"


def test_suspects_with_tools_go_one_at_a_time() -> None:
    """One whose tools run has its turn still: no other one begins, and it goes on when they are done."""
    rig = Rig()
    for number in (1, 2, 3):
        rig.ask(number, tools=Offer(local=("t",)))
        rig.measured(number)
        rig.desk.hearing.engine_said(Started(number))
    rig.crash()
    assert rig.engine.submitted[3:] == [1]
    calls = msgspec.structs.replace(ended(1, "", "tool_calls"), calls=(Call("c", "t", "{}"),))
    for report in (Started(1), calls):
        rig.desk.hearing.engine_said(report)
    rig.desk.cancel(rig.desk.roster.numbered[3])  # what its end lets begin
    assert rig.engine.submitted == []
    rig.desk.hearing.tools_ran(ToolsRan(1, 1, ("r",)))
    assert rig.engine.submitted == [1]
    rig.desk.hearing.engine_said(ended(1, "so"))
    assert (rig.journal.finished[1]["text"], rig.engine.submitted) == ("so", [2])


def test_a_suspect_that_a_larger_server_answers_keeps_no_other_one_waiting() -> None:
    """It cannot crash the engine there."""
    rig = Rig()
    for number in (1, 2):
        rig.ask(number)
        rig.measured(number)
        rig.desk.hearing.engine_said(Started(number))
    rig.engine.orders.clear()
    rig.desk.giving.away = Away(Server(), Policy("h", "m", frozenset({"hot"})), rig.clock, Judge())
    rig.desk.course.level = "hot"
    rig.desk.roster.numbered[2].broke_away = Broke(2, "it does not answer")
    rig.crash()
    assert rig.desk.roster.numbered[1].away == "hot"
    assert rig.engine.submitted == [2]


def test_an_answer_that_found_no_room_goes_to_no_larger_server() -> None:
    """Its prompt was not too long: its device hears what to change, and no second answer behind half of one."""
    rig = Rig()
    rig.desk.giving.away = Away(Server(), Policy("h", "m", frozenset({"context"})), rig.clock, Judge())
    job = rig.ask(1, schema='{"type": "string"}', max_tokens=2)
    rig.measured(1)
    for report in (Started(1), Piece(1, "text", '"ab', 2, 0)):
        rig.desk.hearing.engine_said(report)
    rig.desk.hearing.engine_said(Refused(1, "too_long", "allow more max_tokens", {"completion_tokens": 2}))
    assert (job.away, types(rig)) == (None, ["accepted", "delta"])
    assert rig.journal.finished[1]["message"] == "allow more max_tokens"


def test_what_is_taken_back_as_it_is_refused_goes_to_no_larger_server() -> None:
    """The engine had found it too long before it heard of the cancel."""
    rig = Rig()
    rig.desk.giving.away = Away(Server(), Policy("h", "m", frozenset({"context"})), rig.clock, Judge())
    job = rig.ask(1)
    rig.desk.cancel(job)
    rig.desk.hearing.engine_said(
        Refused(1, "too_long", "shorten it", {"prompt_tokens": 9999, "context": 2048})
    )
    assert (job.away, rig.journal.finished[1]["type"]) == (None, "cancelled")


def test_hundreds_of_a_conversation_that_is_full() -> None:
    """Each ends as soon as it is its turn, and so the next one has its own."""
    rig, count = Rig(), 1000
    body = msgspec.msgpack.encode(Turn((Message("user", "x" * 70_000),)))
    rig.engine.ready = False
    for number in range(1, count + 1):
        rig.desk.stored(rig.come(f"q{number}", session="s"), number, StoredSession(None, ((0, body),)))
    rig.engine.ready = True
    rig.desk.engine_ready("m")
    assert [end["code"] for end in rig.journal.finished.values()] == ["too_large"] * count


def test_poison_before_it_ran() -> None:
    """A question that crashes the engine each time that it is measured is not tried for ever."""
    rig = Rig()
    bad, good = rig.ask(1), rig.ask(2)
    for _ in range(3):
        rig.crash()
    assert (bad.state, rig.journal.finished[1]["code"]) == (State.FINISHING, "poison")
    assert (good.state, good.crashes) == (State.WAITING, 0)


@pytest.mark.parametrize(
    ("attempts", "stopped", "code"), [(9, False, None), (10, False, "poison"), (10, True, None)]
)
def test_begun_too_often(attempts: int, stopped: bool, code: str | None) -> None:  # noqa: FBT001 - a table
    """What takes the whole board down each time is poison; a life that ended in order was not ended by it."""
    rig = Rig()
    asked = rig.ask(99).question
    row = JobRow(
        "d", "q1", b"d" * 32, msgspec.msgpack.encode(msgspec.structs.replace(asked, client="d")), 0.0
    )
    recover(rig.desk, Recovered(jobs=(RecoveredJob(1, attempts, row),), stopped=stopped), "boot", 0.0)
    assert rig.journal.finished.get(1, {}).get("code") == code
    assert (1 in rig.engine.submitted) == (code is None)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"client": 7})])
def test_a_question_that_cannot_be_read(body: bytes) -> None:
    """Another version of this node wrote it down: it ends, and the node starts."""
    rig = Rig()
    row = JobRow("c", "q1", b"d" * 32, body, 0.0)
    recover(rig.desk, Recovered(jobs=(RecoveredJob(1, 0, row),)), "boot", 0.0)
    assert rig.journal.finished[1]["code"] == "interrupted"
    assert rig.engine.submitted == []


def test_an_answer_that_cannot_be_read(tmp_path: Path) -> None:
    """A worn card has changed it before its device had it: the device is told to ask again, once."""
    path = tmp_path / "journal.db"
    with on_disk(path) as stored:
        stored.finish(stored.accepted(row("q1", "c")), answer("yes"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET terminal = x'c1'")
    with on_disk(path) as stored:
        rig = Rig(stored.journal)
        recover(rig.desk, stored.recovered, "boot", 0.0)
        rig.desk.kept(stored.next(Finished))
        [told] = rig.line.published
        assert told.topic == TOPICS.answer("c", "q1")
        said = msgspec.json.decode(told.payload)
        assert (said["code"], said["retry_after_ms"]) == ("interrupted", 1000)
        assert rig.engine.submitted == []
    with on_disk(path) as stored:
        assert (stored.recovered.jobs, len(stored.recovered.outbox)) == ((), 1)


def test_an_answer_that_is_no_json_is_an_error_each_time() -> None:
    """A schema's number beyond all floats: also for the next who asks the same."""
    rig = Rig()
    for number in (1, 2):
        rig.ask(number, messages=(Message("user", "x"),), temperature=0.0, schema='{"type": "number"}')
        assert rig.engine.submitted == [number]
        rig.measured(number)
        rig.desk.hearing.engine_said(Started(number))
        rig.desk.hearing.engine_said(ended(number, "1e999"))
        assert rig.journal.finished[number]["code"] == "bad_request"
    assert reply.parsed("1e99") == 1e99


# head starts ------------------------------------------------------------------------------------------------


def types(rig: Rig) -> list[str]:
    """What devices were told so far."""
    return [msgspec.json.decode(message.payload)["type"] for message in rig.line.published]


def test_nothing_is_told_of_a_question_that_is_not_stored() -> None:
    """The engine runs it meanwhile; its words wait for the journal and then follow in their order."""
    rig = Rig()
    job = rig.arrive("q1")
    (run,) = rig.engine.submitted
    rig.desk.hearing.engine_said(Prepared(run, 9, 2048, 0, 1.0))
    rig.desk.hearing.engine_said(Started(run))
    rig.desk.hearing.engine_said(Piece(run, "text", "wa", 1, 0))
    assert types(rig) == []
    rig.desk.stored(job, 5)
    assert types(rig) == ["accepted", "delta"]
    assert rig.engine.submitted == [], "it runs already"
    rig.desk.hearing.engine_said(Piece(run, "text", "rm", 2, 0))
    rig.desk.hearing.engine_said(ended(run, "warm"))
    done = rig.journal.finished[5]
    assert (done["text"], done["attempt"], done["seq"], "cached" in done) == ("warm", 1, 3, False)


def test_a_run_that_was_over_before_its_question_was_stored() -> None:
    """A slow disk, a short answer."""
    rig = Rig()
    job = rig.arrive("q1")
    (run,) = rig.engine.submitted
    for report in (Prepared(run, 9, 2048, 0, 1.0), Started(run), ended(run, "yes")):
        rig.desk.hearing.engine_said(report)
    assert rig.journal.finished == {}
    rig.desk.stored(job, 1)
    assert rig.journal.finished[1]["text"] == "yes"


def test_a_question_that_the_journal_does_not_take() -> None:
    """Nobody hears of its run, and it gets another one when the journal takes it after all."""
    rig = Rig()
    job = rig.arrive("q1")
    (run,) = rig.engine.submitted
    rig.desk.giving.not_stored(job)
    assert rig.engine.orders == [Cancel(run)]
    rig.desk.hearing.engine_said(Started(run))
    rig.desk.hearing.engine_said(ended(run, "unheard"))
    assert (types(rig), rig.journal.finished) == ([], {})
    rig.engine.orders.clear()
    rig.desk.stored(job, 7)
    assert rig.engine.submitted == [7]


def test_a_question_that_is_taken_back_before_it_is_stored() -> None:
    """It ends as cancelled, and so does its run."""
    rig = Rig()
    job = rig.arrive("q1")
    (run,) = rig.engine.submitted
    rig.desk.cancel(job)
    rig.desk.stored(job, 1)
    assert rig.engine.orders == [Cancel(run)]
    assert rig.journal.finished[1]["type"] == "cancelled"


def test_a_cancel_finds_the_run_of_a_head_start() -> None:
    """Its number in the engine is not the journal's."""
    rig = Rig()
    job = rig.arrive("q1")
    (run,) = rig.engine.submitted
    rig.desk.stored(job, 1)
    rig.desk.cancel(job)
    assert rig.engine.orders == [Cancel(run)]


@pytest.mark.parametrize("begun", [False, True])
def test_a_question_that_crashes_the_engine_in_its_head_start(begun: bool) -> None:  # noqa: FBT001 - a table
    """It is blamed like any other, and runs again once it is stored."""
    rig = Rig()
    job = rig.arrive("q1")
    (run,) = rig.engine.submitted
    if begun:
        rig.desk.hearing.engine_said(Prepared(run, 9, 2048, 0, 1.0))
        rig.desk.hearing.engine_said(Started(run))
    rig.crash()
    assert (job.crashes, rig.engine.submitted) == (1, [])
    rig.desk.giving.start_ahead(job, None)
    assert rig.engine.submitted == [], "a suspect runs alone, and is not seen here"
    rig.desk.stored(job, 1)
    assert rig.engine.submitted == [1]
    for _ in range(2):
        rig.crash()
    assert rig.journal.finished[1]["code"] == "poison"


def test_another_question_s_crash_is_not_blamed_on_a_head_start() -> None:
    """The engine measures one after the other: the one before it was the suspect."""
    rig = Rig()
    rig.ask(1)
    job = rig.arrive("q2")
    rig.crash()
    assert job.crashes == 0


def test_one_head_start_at_a_time() -> None:
    """The second question waits for the journal, and has its turn when that has it."""
    rig = Rig()
    rig.arrive("q1")
    assert len(rig.engine.submitted) == 1
    second = rig.arrive("q2")
    assert rig.engine.submitted == []
    rig.desk.stored(second, 1)
    assert rig.engine.submitted == [1]


def test_a_conversation_in_a_head_start() -> None:
    """Its next question waits for the answer; a disk that refuses leaves the session as it was."""
    rig = Rig()
    first = rig.arrive("q1", session="s")
    (run,) = rig.engine.submitted
    rig.desk.giving.not_stored(first)
    rig.engine.orders.clear()
    assert not rig.desk.sessions.busy("c", "s")
    rig.desk.stored(first, 1)
    second = rig.arrive("q2", session="s")
    assert rig.engine.submitted == [1]
    rig.desk.stored(second, 2)
    for report in (Prepared(1, 9, 2048, 0, 1.0), Started(1), ended(1, "so")):
        rig.desk.hearing.engine_said(report)
    assert rig.engine.submitted == [2]
    assert run < 0


def test_what_a_head_start_says_is_kept_in_its_session() -> None:
    """The next question knows the answer before it."""
    rig = Rig()
    job = rig.arrive("q1", session="s")
    (run,) = rig.engine.submitted
    rig.desk.stored(job, 1)
    last = msgspec.structs.replace(ended(run, "so"), said=Said("so", ()))
    for report in (Prepared(run, 9, 2048, 0, 1.0), Started(run), last):
        rig.desk.hearing.engine_said(report)
    rig.arrive("q2", session="s")
    (order,) = rig.engine.orders
    assert isinstance(order, Submit)
    assert [message.content for message in order.messages] == ["q1", "so", "q2"]


def test_the_same_question_joins_a_head_start_once_that_is_stored() -> None:
    """Computed once, told to each; the one that began it is not `cached`."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    first = rig.arrive("q1", **same)
    (run,) = rig.engine.submitted
    rig.desk.stored(first, 1)
    second = rig.arrive("q2", **same)
    rig.desk.stored(second, 2)
    assert rig.engine.submitted == []
    for report in (Prepared(run, 9, 2048, 0, 1.0), Started(run), ended(run, "once")):
        rig.desk.hearing.engine_said(report)
    assert [rig.journal.finished[number].get("cached", False) for number in (1, 2)] == [False, True]
    third = rig.arrive("q3", **same)
    assert rig.engine.submitted == [], "the answer is known"
    rig.desk.stored(third, 3)
    assert rig.journal.finished[3]["text"] == "once"


@pytest.mark.parametrize("ahead", [False, True])
def test_a_deadline_that_the_engine_cannot_keep(ahead: bool) -> None:  # noqa: FBT001 - a table
    """The engine says so at once, long before it has passed: to ask it again would change nothing."""
    rig = Rig()
    if ahead:
        rig.desk.stored(rig.arrive("q1"), 1)
    else:
        rig.ask(1, temperature=0.0)
    (run,) = rig.engine.submitted
    rig.desk.hearing.engine_said(Refused(run, "expired", "reading takes longer", {}))
    assert (rig.engine.submitted, rig.journal.finished[1]["code"]) == ([], "expired")


@pytest.mark.parametrize(("code", "begun"), [("expired", False), ("expired", True), ("busy", False)])
def test_who_waits_longer_is_not_refused_with_the_hasty(code: Code, begun: bool) -> None:  # noqa: FBT001 - a table
    """The engine judged a deadline that is not this question's: it is asked anew, with its own."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    hasty = rig.ask(1, **same)
    rig.clock.now += 10
    patient = rig.ask(2, **same)
    assert rig.engine.submitted == [1]
    if begun:
        rig.measured(1)
        rig.desk.hearing.engine_said(Started(1))
    rig.desk.hearing.engine_said(Refused(1, code, "too late", {}))
    assert (hasty.state, patient.state) == (State.FINISHING, State.WAITING)
    assert rig.engine.submitted == [2]
    rig.desk.hearing.engine_said(Refused(2, code, "too late", {}))
    assert rig.engine.submitted == []
    assert [rig.journal.finished[number]["code"] for number in (1, 2)] == [code, code]


@pytest.mark.parametrize("last", [ended(1, "w", "deadline"), Refused(1, "expired", "too late", {})])
def test_taken_back_while_a_shared_run_ends_too_early(last: Ended | Refused) -> None:
    """The cancel finds the run over: the question ends all the same, and is not computed anew."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    rig.ask(1, **same)
    rig.clock.now += 10
    patient = rig.ask(2, **same)
    rig.desk.cancel(rig.desk.roster.numbered[1])
    rig.desk.cancel(patient)
    rig.engine.orders.clear()
    rig.desk.hearing.engine_said(last)
    assert (rig.engine.submitted, rig.journal.finished[2]["type"]) == ([], "cancelled")


def test_nobody_joins_a_run_that_is_being_cancelled() -> None:
    """It would end as cancelled for a device that has taken nothing back."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    rig.ask(1, **same)
    rig.measured(1)
    rig.desk.cancel(rig.desk.roster.numbered[1])
    rig.ask(2, **same)
    rig.desk.hearing.engine_said(ended(1, "", "cancelled"))
    assert (rig.engine.submitted, set(rig.journal.finished)) == ([1, 2], {1})


def test_an_answer_given_again_is_shown_as_the_first_was() -> None:
    """Its thinking, then its text; nothing between to whoever wants the end only."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    rig.ask(1, **same, reasoning_mode="separate")
    rig.measured(1)
    for report in (Started(1), msgspec.structs.replace(ended(1, "yes"), reasoning="hm")):
        rig.desk.hearing.engine_said(report)
    rig.line.published.clear()
    for number, stream in (2, True), (3, False):
        rig.ask(number, **same, reasoning_mode="separate", stream=stream)
    told = [msgspec.json.decode(message.payload) for message in rig.line.published]
    assert [(each["id"], each["type"], each.get("text")) for each in told] == [
        ("q2", "accepted", None),
        ("q2", "reasoning", "hm"),
        ("q2", "delta", "yes"),
        ("q3", "accepted", None),
    ]


def test_who_joins_late_is_told_of_what_is_left_of_the_wait() -> None:
    """Not of what the first one had before it; one that begins its answer goes behind nobody."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    rig.ask(1, **same)
    rig.desk.hearing.engine_said(Prepared(1, 9, 2048, 3, 30.0))
    rig.clock.now += 10
    rig.ask(2, **same)
    rig.desk.hearing.engine_said(Started(1))
    rig.clock.now += 25
    rig.ask(3, **same)
    told = [msgspec.json.decode(message.payload) for message in rig.line.published]
    assert [(each["position"], each["eta_ms"]) for each in told] == [(3, 30_000), (3, 20_000), (0, 0)]


def test_an_answer_of_a_head_start_that_is_cut_off_is_not_cached() -> None:
    """It was computed for the question that began it, whatever its run is called; not for the one that joined."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0}
    rig.desk.stored(rig.arrive("q1", **same), 1)
    (run,) = rig.engine.submitted
    said = Piece(run, "text", "w", 1, 0), Piece(run, "text", "a", 2, 0)
    for report in (Prepared(run, 9, 2048, 0, 1.0), Started(run), *said):
        rig.desk.hearing.engine_said(report)
    rig.clock.now += 10
    rig.ask(2, **same)
    rig.clock.now += 50
    rig.desk.expire(rig.clock())
    cut = rig.journal.finished[1]
    assert (cut["finish_reason"], cut["text"], "cached" in cut) == ("deadline", "wa", False)
    assert cut["usage"]["completion_tokens"] == 2


def test_half_an_answer_that_has_a_schema_is_an_error() -> None:
    """It would not parse; who shares its run and waits longer still gets the whole."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "x"),), "temperature": 0.0, "schema": "{}"}
    rig.ask(1, **same)
    rig.measured(1)
    for report in (Started(1), Piece(1, "text", '{"a": ', 1, 0)):
        rig.desk.hearing.engine_said(report)
    rig.clock.now += 10
    rig.ask(2, **same)
    rig.clock.now += 50
    rig.desk.expire(rig.clock())
    rig.desk.hearing.engine_said(ended(1, '{"a": 1}'))
    hasty, patient = (rig.journal.finished[number] for number in (1, 2))
    assert (hasty["code"], patient["text"]) == ("expired", '{"a": 1}')


def test_head_starts_run_in_the_order_of_their_arrival() -> None:
    """The engine goes by number among questions that are served alike."""
    rig = Rig()
    for number in (1, 2):
        rig.desk.stored(rig.arrive(f"q{number}"), number)
    first, second = rig.engine.submitted
    assert first < second < 0


def test_a_head_start_does_not_overtake_its_session() -> None:
    """No slot was free for the first question, one was for the second; one commit takes both."""
    rig = Rig()
    first = rig.come("q1", session="s")
    second = rig.arrive("q2", session="s")
    assert rig.engine.submitted == []
    rig.desk.stored(first, 1)
    rig.desk.stored(second, 2)
    assert rig.engine.submitted == [1]


def test_one_crash_is_enough_where_one_is_allowed() -> None:
    """Also one before the question stood in the journal."""
    rig = Rig()
    rig.desk.blame.attempts_max = 1
    job = rig.arrive("q1")
    assert len(rig.engine.submitted) == 1
    rig.crash()
    rig.desk.stored(job, 1)
    assert (rig.engine.submitted, rig.journal.finished[1]["code"]) == ([], "poison")


# the outbox -------------------------------------------------------------------------------------------------


def test_an_answer_under_way_to_where_nobody_listens_any_more() -> None:
    """Its device asked again with another topic before the broker had it: it goes there too."""
    rig = Rig()
    outbox = rig.desk.outbox
    here, there = (Publish(topic, b"{}", {"content_type": "application/json"}) for topic in ("here", "there"))
    for publish in (here, here, there, there):
        outbox.owe(((16, publish),))
    assert [message.topic for message in rig.line.published] == ["here"]
    outbox.delivered_one(Delivered(Owed(16)))
    assert [message.topic for message in rig.line.published] == ["here", "there"]
    assert len(outbox) == 1
    outbox.delivered_one(Delivered(Owed(16)))
    assert len(outbox) == 0


# what is forgotten --------------------------------------------------------------------------------------------


def forgetting(rig: Rig) -> tuple[int, str]:
    """How often the engine was told to forget since it was looked at last, and what is noted on disk."""
    orders = [order for order in rig.engine.orders if isinstance(order, ForgetPrompts)]
    rig.engine.orders.clear()
    return len(orders), rig.note


def test_prompts_are_forgotten_though_the_engine_ends_before_it_has() -> None:
    """The next one is told as well, until one has said that it has done it; so is one of a later life."""
    rig = Rig()
    rig.desk.forgetting.forget_prompts()
    assert forgetting(rig) == (1, "due")
    rig.crash()
    assert forgetting(rig) == (1, "due")
    rig.desk.forgetting.forget_prompts()
    rig.desk.forgetting.prompts_forgotten()
    assert forgetting(rig) == (1, "due"), "the second order may be for later prompts"
    rig.desk.forgetting.prompts_forgotten()
    assert forgetting(rig) == (0, "")
    rig.crash()
    assert forgetting(rig) == (0, "")
    rig.engine.ready = False
    rig.desk.forgetting.forget_prompts()
    assert forgetting(rig) == (0, "due")
    later = Rig()
    later.desk.forgetting.due = True
    later.desk.engine_ready("m")
    assert forgetting(later)[0] == 1


# answers given again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hurried", [False, True])
def test_what_a_warm_board_thought_shorter_is_not_given_again(hurried: bool) -> None:  # noqa: FBT001 - a table
    """The engine knows: heat leaves less context and so less thinking, also where the board is only warm."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "hm"),), "temperature": 0.0}
    rig.ask(1, **same)
    rig.measured(1)
    rig.desk.hearing.engine_said(Started(1))
    rig.desk.hearing.engine_said(msgspec.structs.replace(ended(1, "so"), hurried=hurried))
    rig.ask(2, **same)
    assert rig.engine.submitted == ([1, 2] if hurried else [1])


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_whose_thinking_was_ended_is_not_given_again(late: bool) -> None:  # noqa: FBT001 - a table
    """Another one's device may want all of it, also where it asks while that one is still answered."""
    rig = Rig()
    same: dict[str, Any] = {"messages": (Message("user", "hm"),), "temperature": 0.0}
    job = rig.ask(1, **same)
    rig.measured(1)
    rig.desk.hearing.engine_said(Started(1))
    rig.desk.sharing.end_reasoning(job)
    if late:
        rig.desk.hearing.engine_said(ended(1, "so"))
    rig.ask(2, **same)
    assert rig.engine.submitted == [1, 2]
