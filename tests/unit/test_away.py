"""What a node asks its larger server, what it makes of the answers, and of the failures."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from desk_rig import Rig, Server
from scripted import Clock

from edged.adapters.judge import Judge
from edged.core.breaker import FAILURES, PAUSE_S
from edged.core.question import Message, Question, ReasoningMode
from edged.core.reply import Usage
from edged.core.upstream import Ask, Begun, Broke, Over, Policy, Said, Why
from edged.engine.messages import Refused
from edged.node.away import Away

ASKED = Question("c", "q", made_id=False, plain=False, messages=(Message("user", "x"),), reply_to="t")
NUMBER = '{"type": "integer", "maximum": 150}'


@pytest.mark.parametrize(
    ("ours", "cramped", "state"), [(False, False, "open"), (True, False, "closed"), (False, True, "closed")]
)
def test_who_is_to_blame(ours: bool, cramped: bool, state: str) -> None:  # noqa: FBT001 - a table
    """Three failures of the server, and it is left alone; what it is not to blame for counts for nothing."""
    away = Away(Server(), Policy("h", "m", frozenset({"asked"})), Clock(), Judge())
    for number in range(3):
        away.send(number, ASKED, ASKED.messages, None)
        assert away.told(Broke(number, "why", ours=ours, cramped=cramped))
    assert away.breaker.state == state
    assert away.failed == 3


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("how", ["cancelled", "failed", "cramped"])
def test_who_was_sent_before_it_opened_is_not_the_one_that_tries(how: str, shaped: bool) -> None:  # noqa: FBT001 - a table
    """However that ends, a server that is being tried is not asked by a second one, nor left alone for longer."""
    clock = Clock()
    away = Away(Server(), Policy("h", "m", frozenset({"asked"})), clock, Judge())
    question = msgspec.structs.replace(ASKED, schema=NUMBER) if shaped else ASKED
    for number in range(FAILURES + 1):
        away.send(number, question, question.messages, None)
    for number in range(FAILURES):
        away.told(Broke(number, "why", ours=shaped))
    clock.advance(PAUSE_S)
    away.send(9, question, question.messages, None)
    if how == "cancelled":
        away.cancel(FAILURES)
    else:
        away.told(Broke(FAILURES, "why", ours=shaped and how == "failed", cramped=how == "cramped"))
    probing = away.shapes if shaped else away.breaker
    assert (probing.state, away.takes("asked", question)) == ("probing", False)
    away.cancel(9)
    assert away.takes("asked", question)


def test_the_first_that_is_answered_again_lets_the_others_in() -> None:
    """Its answer may take minutes."""
    clock = Clock()
    away = Away(Server(), Policy("h", "m", frozenset({"asked"})), clock, Judge())
    for number in range(FAILURES):
        away.send(number, ASKED, ASKED.messages, None)
        away.told(Broke(number, "why"))
    clock.advance(PAUSE_S)
    away.send(9, ASKED, ASKED.messages, None)
    assert not away.takes("asked", ASKED)
    away.told(Begun(9))
    assert away.takes("asked", ASKED)


THOUGHT = (Begun(1), Said(1, "reasoning", "hm "), Said(1, "reasoning", "so"))
ANSWERED = (*THOUGHT, Said(1, "text", "it "), Said(1, "text", "is"), Over(1, "stop", Usage()))
IN_TEXT = (
    Begun(1),
    Said(1, "text", "<think>hm"),
    Said(1, "text", " so</think>it is"),
    Over(1, "stop", Usage()),
)


@pytest.mark.parametrize("said", [ANSWERED, IN_TEXT])
@pytest.mark.parametrize(
    ("mode", "told", "text", "thought"),
    [
        ("separate", ["hm so", "it is"], "it is", "hm so"),
        ("hide", ["it is"], "it is", None),
        ("inline", ["<think>hm so</think>\n\nit is"], "<think>hm so</think>\n\nit is", None),
    ],
)
def test_how_its_thinking_is_shown(
    said: tuple[Any, ...], mode: ReasoningMode, told: list[str], text: str, thought: str | None
) -> None:
    """As the board itself would show it, whether the server tells it apart or leaves it in the text."""
    rig = asking(reasoning_mode=mode)
    for event in said:
        rig.desk.hearing.away_said(event)
    replies = [msgspec.json.decode(message.payload) for message in rig.line.published]
    kinds = [reply["type"] for reply in replies if reply["type"] != "accepted"]
    parts = ["".join(one["text"] for one in replies if one["type"] == kind) for kind in dict.fromkeys(kinds)]
    done = rig.journal.finished[1]
    assert (parts, done["text"], done.get("reasoning")) == (told, text, thought)


@pytest.mark.parametrize(
    ("text", "outcome", "limits", "reason", "shapes"),
    [
        ("85", "stop", {"max_tokens": 9}, None, "closed"),
        ("8", "deadline", {"max_tokens": 9}, "the deadline passed", "closed"),
        ("8", "length", {"max_tokens": 9}, "not complete after 9 tokens", "closed"),
        ("-", "length", {"max_tokens": 9}, "not complete after 9 tokens", "closed"),
        ("8", "length", {}, "its answer was not complete", "open"),
        ("It is hot.", "length", {}, "not the JSON", "open"),
        ("-", "stop", {"stop": ("8",)}, "not the JSON that was asked for, leave out stop", "closed"),
        ("151", "stop", {"max_tokens": 9}, "breaks the schema", "open"),
    ],
)
def test_a_value_that_was_cut(
    text: str,
    outcome: Literal["stop", "length", "deadline"],
    limits: dict[str, Any],
    reason: str | None,
    shapes: str,
) -> None:
    """Half a value is none, and what a question's own limits cut does not count against the server."""
    away = Away(Server(), Policy("h", "m", frozenset({"asked"})), Clock(), Judge())
    question = msgspec.structs.replace(ASKED, schema=NUMBER, **limits)
    for number in range(3):
        away.send(number, question, question.messages, None)
        away.told(Said(number, "text", text))
        ended = away.told(Over(number, outcome, Usage()))[-1]
        assert (reason or "") in getattr(ended, "reason", "")
        assert isinstance(ended, Broke) is (reason is not None)
    assert (away.breaker.state, away.shapes.state) == ("closed", shapes)


FULL = Refused(1, "too_long", "shorten it", {"prompt_tokens": 9999, "context": 2048})


@pytest.mark.parametrize("when", ["context", "asked"])
@pytest.mark.parametrize(
    ("fault", "waits"),
    [({}, True), ({"ours": True}, False), ({"cramped": True}, False)],
)
def test_too_long_for_both(when: Why, fault: dict[str, bool], waits: bool) -> None:  # noqa: FBT001 - a table
    """A device that asks again when it was told to would be refused by a server that is well for ever."""
    rig = Rig()
    policy = Policy("h", "m", frozenset({"context", when}))
    rig.desk.giving.away = Away(Server(), policy, rig.clock, Judge())
    rig.ask(1, model="large" if when == "asked" else None)
    if when == "context":
        rig.desk.hearing.engine_said(FULL)
    rig.desk.hearing.away_said(Broke(1, "status 400: it is full", **fault))
    if when == "asked":
        rig.desk.hearing.engine_said(FULL)
    told = rig.journal.finished[1]
    assert (told["code"], "retry_after_ms" in told) == ("too_long", waits)
    assert "the larger server h did not answer: status 400: it is full" in told["message"]


def test_too_long_and_in_a_form_that_stays_here() -> None:
    """Its schema cannot be checked, so it is not sent on; of a server that is not well nothing is said."""
    rig = Rig()
    rig.desk.giving.away = Away(Server(), Policy("h", "m", frozenset({"context"})), rig.clock, Judge())
    rig.ask(1, schema='{"$ref": "#"}')
    rig.desk.hearing.engine_said(FULL)
    told = rig.journal.finished[1]
    assert (told["code"], "retry_after_ms" in told) == ("too_long", False)
    assert "cannot be held to its response_format" in told["message"]


def test_taken_back_in_its_thinking() -> None:
    """The text so far is what the deltas were."""
    rig = asking(reasoning_mode="inline")
    for event in THOUGHT:
        rig.desk.hearing.away_said(event)
    rig.desk.cancel(rig.desk.roster.numbered[1])
    assert rig.journal.finished[1]["text"] == "<think>hm so"


@pytest.mark.parametrize("own", [False, True])
def test_the_node_s_system_prompt_goes_along(own: bool) -> None:  # noqa: FBT001 - a table
    """It stands before a question that brings none, there as here."""
    server = Listening()
    away = Away(server, Policy("h", "m", frozenset({"asked"})), Clock(), Judge(), system_prompt="Be short.")
    messages = (Message("system", "Be long."), *ASKED.messages) if own else ASKED.messages
    away.send(1, ASKED, messages, None)
    (asked,) = server.asked
    told = msgspec.json.decode(asked.body)["messages"]
    assert told[0] == {"role": "system", "content": "Be long." if own else "Be short."}
    assert told[1:] == [{"role": "user", "content": "x"}]


class Listening(Server):
    """A larger server that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []

    def ask(self, ask: Ask) -> None:
        """Take a question."""
        self.asked.append(ask)


def asking(**changes: Any) -> Rig:
    """A desk whose question 1 is with the larger server."""
    rig = Rig()
    rig.desk.giving.away = Away(Server(), Policy("h", "m", frozenset({"asked"})), rig.clock, Judge())
    rig.ask(1, model="large", **changes)
    return rig
