"""Sessions as values, and whose turn it is in them: what a question carries, and what an answer adds."""

from __future__ import annotations

import random

import msgspec
import pytest

from edged.core import session
from edged.core.job import Job
from edged.core.question import Message, Question
from edged.core.records import StoredSession
from edged.core.session import History, Turn
from edged.core.tools import Call
from edged.engine.chat import turns_of
from edged.errors import Refusal
from edged.node.sessions import Sessions

YES = Message("assistant", "yes")


def asked(
    *texts: str, name: str | None = "s", overflow: str = "error", system: str | None = None
) -> Question:
    """A question of user's messages, of client c1."""
    messages = tuple(Message("user", text) for text in texts)
    if system is not None:
        messages = (Message("system", system), *messages)
    plain = Question("c1", "q", False, False, messages, "t", session=name)
    return msgspec.structs.replace(plain, overflow=overflow)


def texts(messages: tuple[Message, ...]) -> list[str]:
    """What they say, each with the first letter of its role."""
    return [f"{message.role[0]}:{message.content}" for message in messages]


def talk(*turns: str, history: History = History()) -> History:  # noqa: B008 - frozen
    """A history in which each of these was asked and answered with yes; numbers count from 1."""
    for text in turns:
        number = max((kept.number for kept in history.turns), default=0) + 1
        history = session.grown(history, number, asked(text), YES, (7, number))
    return history


def test_a_question_carries_what_was_said() -> None:
    """History and question stand in one list, and each earlier answer's tokens stand at its place."""
    carried = session.conversation(talk("a", "b"), asked("c"))
    assert texts(carried.messages) == ["u:a", "a:yes", "u:b", "a:yes", "u:c"]
    assert carried.sampled == {1: (7, 1), 3: (7, 2)}


def test_a_system_prompt_stays_and_can_be_replaced() -> None:
    """The session keeps the system prompt of a question; a later one takes its place; none leaves it."""
    history = session.grown(History(), 1, asked("a", system="short"), YES, (7,))
    assert texts(history.turns[0].turn.messages) == ["u:a", "a:yes"]
    carried = session.conversation(history, asked("b"))
    assert texts(carried.messages) == ["s:short", "u:a", "a:yes", "u:b"]
    assert carried.sampled == {2: (7,)}
    again = asked("b", system="long")
    assert texts(session.conversation(history, again).messages)[0] == "s:long"
    assert session.grown(history, 2, again, YES, ()).system == "long"


def test_stored_and_read() -> None:
    """What the journal keeps makes the same history again."""
    history, turns = History(), []
    for number, text in enumerate("abc", 1):
        history = session.grown(history, number, asked(text, system="short"), YES, (7, number))
        kept = session.stored("c1", "s", history)
        assert (kept.client, kept.name, kept.system, kept.first) == ("c1", "s", "short", 1)
        turns.append((number, kept.body))
    assert session.read(StoredSession("short", tuple(turns))) == history


def test_a_damaged_turn_ends_the_memory_before_it() -> None:
    """A conversation with a hole would be another one: what comes after the damage is all that is remembered."""
    good = msgspec.msgpack.encode(Turn((Message("user", "a"), YES)))
    history = session.read(StoredSession(None, ((1, good), (2, b"\xc1"), (3, good))))
    assert [kept.number for kept in history.turns] == [3]


def test_the_release_before_reads_it() -> None:
    """The messages of a later one have a field more, which these do not name: the conversation goes on."""

    class NextMessage(Message, frozen=True):
        image: str | None = None

    kept = msgspec.msgpack.encode(Turn((NextMessage("user", "a"), NextMessage("assistant", "yes"))))
    assert texts(session.read(StoredSession(None, ((1, kept),))).turns[0].turn.messages) == ["u:a", "a:yes"]


def test_results_whose_calls_the_journal_has_not() -> None:
    """It forgot the session while one of its questions ran, or cannot read the turn with the calls."""
    history = session.grown(History(), 1, asked("a"), called("c"), ())
    history = session.grown(history, 2, answering("c"), called("d"), ())
    history = session.grown(history, 3, answering("d"), YES, (7,))
    history = session.grown(history, 4, asked("b"), YES, (7,))
    bodies = [(kept.number, msgspec.msgpack.encode(kept.turn)) for kept in history.turns]
    for missing in (bodies[1:], bodies[2:], [(1, b"\xc1"), *bodies[1:]]):
        assert [kept.number for kept in session.read(StoredSession(None, tuple(missing))).turns] == [4]
    assert session.read(StoredSession(None, tuple(bodies[1:3]))) == History()


def test_a_full_history() -> None:
    """It is refused with both numbers, or loses its oldest turns, as the question wants it."""
    history = talk("a" * 100, "b" * 100, "c" * 100)
    size = history.size_bytes
    assert session.fitted(history, asked("d"), size + 1) is history
    with pytest.raises(Refusal, match="begin another session, or ask with overflow trim_history") as caught:
        session.fitted(history, asked("d"), size)
    assert caught.value.code == "too_large"
    assert caught.value.details == {"bytes": size + 1, "limit": size}
    fitted = session.fitted(history, asked("d", overflow="trim_history"), size)
    assert [kept.number for kept in fitted.turns] == [2, 3]
    assert session.fitted(history, asked("d", overflow="trim_history"), 1).turns == ()


def test_a_question_that_no_session_has_room_for() -> None:
    """Another session would not help: it is told how large the question is, and to ask without one."""
    for history in (History(), talk("a")):
        with pytest.raises(
            Refusal, match=r"alone has 201 bytes and a session may have 200; ask without one$"
        ):
            session.fitted(history, asked("d" * 201), 200)


def test_a_full_history_keeps_what_a_result_answers() -> None:
    """The user's question and the calls made for it stay with their results, or the history is too large."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = Message("assistant", None, tool_calls=[call])
    result = Message("tool", "r" * 100, tool_call_id="c")
    told = msgspec.structs.replace(asked("x", overflow="trim_history"), messages=(result,))
    history = session.grown(talk("a" * 100), 2, asked("b" * 100), calls, ())
    size = history.size_bytes
    fitted = session.fitted(history, told, size)
    assert [kept.number for kept in fitted.turns] == [2]
    with pytest.raises(Refusal, match=r"begin another session$"):
        session.fitted(history, told, 150)
    # Once it is answered, question, calls, result and answer go together.
    answered = session.grown(history, 3, told, YES, ())
    for limit in (size, answered.turns[-1].size_bytes + 1):
        fitted = session.fitted(answered, asked("d", overflow="trim_history"), limit)
        assert [kept.number for kept in fitted.turns] in ([2, 3], [])


@pytest.mark.parametrize(("messages", "left"), [(0, [1, 2]), (1, [1, 2]), (2, [2]), (3, [2]), (9, [])])
def test_what_was_trimmed_is_forgotten(messages: int, left: list[int]) -> None:
    """A turn goes when all of its messages were left out."""
    assert [kept.number for kept in session.without_oldest(talk("a", "b"), messages).turns] == left


def test_results_are_not_kept_without_their_calls() -> None:
    """Results that came with one more question: what the engine leaves out before that is not whole turns."""
    calls = called("c")
    history = session.grown(History(), 1, asked("a"), calls, ())
    told = answering("c", "and b?")
    history = session.grown(history, 2, told, YES, ())
    assert session.without_oldest(history, 3) == history, (
        "the calls' turn stays as long as what goes on with it"
    )
    assert session.without_oldest(history, 5) == History()
    for before in (History(), talk("a")):
        alone = session.grown(before, 2, told, YES, ())
        assert texts(alone.turns[-1].turn.messages) == ["u:and b?", "a:yes"]


def test_a_result_of_no_call_is_refused() -> None:
    """Under a wrong id, or of a call that is forgotten: the model took it for whatever stood before it."""
    history = session.grown(History(), 1, asked("a"), called("c"), ())
    with pytest.raises(Refusal, match="session s knows no call d; give the id of one") as refused:
        session.conversation(history, answering("d"))
    assert refused.value.code == "bad_request"
    with pytest.raises(Refusal, match="knows no call c;"):
        session.conversation(History(), answering("c", "and b?"))
    own = msgspec.structs.replace(asked("a"), messages=(called("d"), *answering("d").messages))
    for told in (answering("c"), own):
        assert session.conversation(history, told).messages[-1].role == "tool"


@pytest.mark.parametrize("seed", range(200))
def test_no_result_without_its_call(seed: int) -> None:
    """Whatever is asked, answered, called and trimmed, by the node or by the engine."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    history, calls = History(), ""
    limit, context = rng.choice([200, 400, 800]), rng.choice([4, 6, 10])
    for number in range(1, 12):
        told = asked("x" * rng.choice([1, 120]))
        if calls and rng.random() < 0.8:
            told = answering(calls, *["and?"] * (rng.random() < 0.3))
        told = msgspec.structs.replace(told, overflow=rng.choice(["error", "trim_history"]))
        try:
            fitted = session.fitted(history, told, limit)
        except Refusal:
            continue
        messages = session.conversation(fitted, told).messages
        check_results(messages)
        dropped = history.messages - fitted.messages
        turns = turns_of(messages)
        while len(turns) > 1 and sum(map(len, turns)) > context and told.overflow == "trim_history":
            dropped += len(turns.pop(0))
        check_results(tuple(message for turn in turns for message in turn))
        calls = f"c{number}" if rng.random() < 0.4 else ""
        answer = called(calls) if calls else YES
        history = session.grown(session.without_oldest(history, dropped), number, told, answer, ())


def called(name: str) -> Message:
    """An answer that calls a tool of the device."""
    return Message("assistant", None, tool_calls=[Call(name, "f", "{}").shape()])


def answering(name: str, *more: str) -> Question:
    """A question that brings the result of a call, and perhaps a user's message behind it."""
    result = Message("tool", "r" * 40, tool_call_id=name)
    return msgspec.structs.replace(asked("x"), messages=(result, *(Message("user", text) for text in more)))


def check_results(messages: tuple[Message, ...]) -> None:
    """Each result stands behind its call."""
    known: set[str] = set()
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id in known, texts(messages)
        else:
            known = {call["id"] for call in message.tool_calls or []}


def job(number: int, text: str = "a", name: str | None = "s") -> Job:
    """A job that stands in the journal."""
    question = asked(text, name=name)
    return Job(question, question.digest(), 0.0, None, 1, number=number)


def test_one_after_the_other() -> None:
    """The questions of a session have their turns in the order they came; others are not held up."""
    sessions, first, second, other = Sessions(), job(1), job(2), job(3, name="t")
    for each in (first, second, other):
        sessions.enter(each, StoredSession())
    assert [sessions.has_turn(each) for each in (first, second, other)] == [True, False, True]
    assert sessions.has_turn(job(4, name=None))
    assert sessions.answered(first, YES, (), 0) is not None
    assert sessions.leave(first) is second
    assert sessions.has_turn(second)
    assert texts(sessions.conversation(second).messages) == ["u:a", "a:yes", "u:a"]
    assert second.history == 2


def test_a_question_without_an_answer_leaves_no_trace() -> None:
    """The next one goes on from what was there before."""
    sessions, first, second = Sessions(), job(1), job(2, "b")
    sessions.enter(first, StoredSession())
    sessions.enter(second, StoredSession())
    assert sessions.leave(first) is second
    assert texts(sessions.conversation(second).messages) == ["u:b"]


def test_one_in_the_middle_is_taken_back() -> None:
    """A question that leaves before its turn is skipped."""
    sessions, jobs = Sessions(), [job(1), job(2), job(3)]
    for each in jobs:
        sessions.enter(each, StoredSession())
    assert sessions.leave(jobs[1]) is jobs[0]
    assert sessions.leave(jobs[0]) is jobs[2]
    assert sessions.leave(jobs[2]) is None
    assert sessions.leave(jobs[2]) is None


def test_memory_holds_what_is_under_way_only() -> None:
    """While a question is not over, the session is the one in memory; afterwards the journal is asked again."""
    sessions, first = Sessions(), job(1)
    sessions.enter(first, StoredSession())
    assert sessions.busy("c1", "s")
    turn = sessions.answered(first, YES, (), 0)
    sessions.leave(first)
    assert not sessions.busy("c1", "s")
    second = job(2)
    sessions.enter(second, StoredSession())  # read before the answer stood in the journal
    assert len(sessions.conversation(second).messages) == 3
    sessions.forget(first)
    sessions.leave(second)
    sessions.forget(second)
    third = job(3)
    assert turn is not None
    sessions.enter(third, StoredSession(None, ((1, turn.body), (2, turn.body))))
    assert len(sessions.conversation(third).messages) == 5
