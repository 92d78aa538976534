"""Measuring questions: what is too long is said before anything is computed, and nothing grows past the context."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scripted import (
    ASSISTANT,
    CLOSE,
    OPEN,
    PLAIN,
    SYSTEM,
    TAGGED,
    THINKING,
    USER,
    ScriptedModel,
    preparation,
    say,
    submit,
)
from scripted_constraints import ScriptedConstraints

from edged.core.question import Message
from edged.core.tools import Tool
from edged.engine.chat import ChatTemplate
from edged.engine.marks import Span
from edged.engine.prepare import ANSWER_TOKENS_MIN
from edged.engine.sequence import NO_SLOT, Sequence
from edged.errors import Refusal

CLOSING_TOKENS = [ord("\n"), CLOSE, ord("\n"), ord("\n")]
NOW = 5.0


def user(text: str) -> Message:
    """A user's message."""
    return Message("user", text)


def prepare(*messages: Message, template: str = PLAIN, context: int = 100, **changes: Any) -> Sequence:
    """A measured question; words that `Preparation` knows go there, the rest into the order."""
    model = ScriptedModel(say("x"), context=context)
    own = {key: changes.pop(key) for key in ("system_prompt",) if key in changes}
    if "node_budget" in changes:
        own["reasoning_budget"] = changes.pop("node_budget")
    return preparation(model, template, **own).prepare(submit(1, *messages, **changes), NOW)


def attempt(*messages: Message, **changes: Any) -> Sequence | None:
    """A measured question, or None for one that is too long."""
    try:
        return prepare(*messages, **changes)
    except Refusal as refusal:
        if refusal.code != "too_long":
            raise
        return None


def refused(*messages: Message, **changes: Any) -> Refusal:
    """The refusal of a question."""
    with pytest.raises(Refusal) as caught:
        prepare(*messages, **changes)
    return caught.value


def test_only_what_is_being_measured_counts_as_such() -> None:
    """The engine ends for one that takes too long: not for one that was measured long ago, or refused."""
    seen: list[float | None] = []

    def constraints() -> ScriptedConstraints:
        seen.append(measuring.since)
        return ScriptedConstraints(b"{}", b"")

    measuring = preparation(ScriptedModel(say("x"), context=100), make_constraints=constraints)
    measuring.prepare(submit(1, user("hi"), schema="{}"), NOW)
    assert (seen, measuring.since) == ([NOW], None)
    with pytest.raises(Refusal):
        measuring.prepare(submit(2, user("x" * 100)), NOW)
    assert measuring.since is None


def test_measured() -> None:
    """A question becomes tokens, with room for the rest of the context, and waits for a slot."""
    sequence = prepare(user("hi"))
    assert sequence.tokens == [USER, *b"hi", ASSISTANT]
    assert sequence.prompt_tokens == 4
    assert sequence.room == 96
    assert sequence.context == 100
    assert sequence.arrived == NOW
    assert (sequence.slot, sequence.past, sequence.trimmed) == (NO_SLOT, 0, 0)


def test_max_tokens() -> None:
    """The device's own bound holds where it is the smaller one."""
    assert prepare(user("hi"), max_tokens=7).room == 7
    assert prepare(user("hi"), max_tokens=700).room == 96


@pytest.mark.parametrize("template", [PLAIN, THINKING, TAGGED])
def test_too_long(template: str) -> None:
    """One token too many is refused with both numbers; one less is answered."""
    extra = len(prepare(user("a"), template=template).tokens) - 1
    reserve = ANSWER_TOKENS_MIN + (len(CLOSING_TOKENS) if template == THINKING else 0)
    fits = 100 - reserve - extra
    assert prepare(user("a" * fits), template=template).room >= ANSWER_TOKENS_MIN
    refusal = refused(user("a" * (fits + 1)), template=template)
    assert refusal.code == "too_long"
    assert refusal.details == {"prompt_tokens": 100 - reserve + 1, "context": 100}
    assert f"{100 - reserve + 1} tokens" in refusal.message
    assert "100" in refusal.message


def test_template_refusal() -> None:
    """Messages that the template does not take are a bad request."""
    template = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}x"
    assert refused(user("a"), user("b"), template=template).code == "bad_request"


def test_system_prompt() -> None:
    """The node's system prompt stands first, unless the conversation brings its own."""
    assert prepare(user("a"), system_prompt="S").tokens == [SYSTEM, *b"S", USER, *b"a", ASSISTANT]
    own = prepare(Message("system", "T"), user("a"), system_prompt="S")
    assert own.tokens == [SYSTEM, *b"T", USER, *b"a", ASSISTANT]


# history --------------------------------------------------------------------------------------------------

HISTORY = [
    Message("system", "s" * 10),
    user("a" * 20),
    Message("assistant", "b" * 20),
    user("c" * 20),
    Message("assistant", "d" * 20),
    user("e" * 20),
]


def test_history_is_kept_where_it_fits() -> None:
    """Nothing is dropped without need."""
    sequence = prepare(*HISTORY, context=200, overflow="trim_history")
    assert sequence.trimmed == 0
    assert sequence.tokens.count(USER) == 3


def test_no_trimming_unless_asked() -> None:
    """Without the device's word a conversation that is too long is refused whole."""
    assert refused(*HISTORY, context=100).details == {"prompt_tokens": 117, "context": 100}


@pytest.mark.parametrize(("context", "trimmed", "kept"), [(133, 0, b"ace"), (132, 2, b"ce"), (90, 4, b"e")])
def test_oldest_turns_go_first(context: int, trimmed: int, kept: bytes) -> None:
    """Turns go whole, the oldest first, as few as will do; system prompt and last question stay."""
    sequence = prepare(*HISTORY, context=context, overflow="trim_history")
    assert sequence.trimmed == trimmed
    text = bytes(token for token in sequence.tokens if token < 256)
    assert text.startswith(b"s" * 10)
    assert text.endswith(b"e" * 20)
    for letter in b"ace":
        assert text.count(letter) == (20 if letter in kept else 0)
    assert text.count(b"b") == text.count(b"a")
    assert text.count(b"d") == text.count(b"c")


class Counting(ChatTemplate):
    """A template that counts the messages that it renders."""

    rendered = 0

    def render(self, messages: Items[Message], tools: Items[Tool] = (), *, thinks: bool = True) -> list[Span]:
        """As ever."""
        self.rendered += len(messages)
        return super().render(messages, tools, thinks=thinks)


@pytest.mark.parametrize(("last", "times"), [(90, 12), (1900, 2)])
def test_what_is_left_out_is_not_rendered_again_and_again(last: int, times: int) -> None:
    """Every other question waits to be measured meanwhile: 3,000 turns, of which few had room, took six seconds."""
    talk = [message for _ in range(500) for message in (user("a"), Message("assistant", "b"))]
    measuring = preparation(ScriptedModel(say("x"), context=2100))
    measuring.template = template = Counting(PLAIN)
    sequence = measuring.prepare(submit(1, *talk, user("c" * last), overflow="trim_history"), NOW)
    assert 2100 - 4 < sequence.prompt_tokens + ANSWER_TOKENS_MIN <= 2100
    assert template.rendered <= times * len(talk)


def test_last_question_too_long() -> None:
    """When the last question alone is too long it is refused, with what is left of the prompt as its number."""
    refusal = refused(*HISTORY, context=40, overflow="trim_history")
    assert refusal.code == "too_long"
    assert refusal.details == {"prompt_tokens": 10 + 20 + 3, "context": 40}


def test_node_system_prompt_is_never_trimmed() -> None:
    """Trimming leaves the node's own system prompt as well."""
    sequence = prepare(*HISTORY[1:], context=80, overflow="trim_history", system_prompt="N" * 8)
    assert sequence.tokens[:9] == [SYSTEM, *b"NNNNNNNN"]
    assert sequence.trimmed == 4


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6)
    | st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.booleans(),
    st.integers(40, 200),
    st.sampled_from([PLAIN, THINKING]),
)
def test_trimming(sizes: list[int], system: bool, context: int, template: str) -> None:  # noqa: FBT001 - drawn
    """Whatever is kept is the system prompt and an end of the conversation that fits, or nothing would."""
    talk = [
        Message("user" if at % 2 == 0 else "assistant", chr(97 + at) * size) for at, size in enumerate(sizes)
    ]
    assume(len(talk) % 2)
    head = [Message("system", "S")] if system else []
    sequence = attempt(*head, *talk, context=context, template=template, overflow="trim_history")
    if sequence is None:
        assert attempt(*head, talk[-1], context=context, template=template) is None
        return
    dropped = sequence.trimmed
    assert dropped % 2 == 0
    alone = prepare(*head, *talk[dropped:], context=context, template=template)
    assert sequence.tokens == alone.tokens
    assert not dropped or attempt(*head, *talk[dropped - 2 :], context=context, template=template) is None


# thinking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "budget"),
    [
        ({}, 100),
        ({"node_budget": 50}, 50),
        ({"reasoning_budget": 20}, 20),
        ({"reasoning_budget": 20, "node_budget": 50}, 20),
        ({"reasoning_budget": 10_000}, (300 - 5) // 2 - 4),
        ({"max_tokens": 60}, 26),
        ({"max_tokens": 60, "reasoning_budget": 10}, 10),
    ],
)
def test_budget(changes: dict[str, Any], budget: int) -> None:
    """The device's budget counts, else the node's, else a third of the context; half the room is the answer's."""
    sequence = prepare(user("a"), template=THINKING, context=300, **changes)
    assert sequence.budget == budget
    assert sequence.text.thinking
    assert sequence.tokens[-2:] == [OPEN, ord("\n")]


@pytest.mark.parametrize(
    "changes", [{"reasoning_budget": 0}, {"node_budget": 0}, {"max_tokens": 9}, {"max_tokens": 1}]
)
def test_no_budget(changes: dict[str, Any]) -> None:
    """Without tokens to think with the prompt closes the thinking, and the answer has its room."""
    sequence = prepare(user("a"), template=THINKING, context=300, **changes)
    assert sequence.tokens[-6:] == [OPEN, ord("\n"), *CLOSING_TOKENS]
    assert sequence.prompt_tokens == len(sequence.tokens)
    assert not sequence.text.thinking
    assert sequence.room == changes.get("max_tokens", 300 - len(sequence.tokens))


@pytest.mark.parametrize(
    ("changes", "deep"),
    [
        ({}, True),
        ({"reasoning_budget": 0}, False),
        ({"node_budget": 0}, False),
        ({"node_budget": 0, "reasoning_budget": 5}, True),
        ({"max_tokens": 1}, True),  # as on a hot board: what it has room for is no wish
    ],
)
def test_a_template_is_told_that_no_thinking_is_wanted(changes: dict[str, Any], deep: bool) -> None:  # noqa: FBT001 - a table
    """Models that have a way to answer at once were trained for it: it is better than a thinking closed by us."""
    template = PLAIN + "{# <think> #}{{ 'deep' if enable_thinking else 'quick' }}"
    sequence = prepare(user("a"), template=template, context=300, **changes)
    assert bytes(sequence.tokens[3:]) == (b"deep" if deep else b"quick")


def test_models_that_do_not_think() -> None:
    """A model without thinking has nothing to close."""
    sequence = prepare(user("a"), reasoning_budget=0)
    assert sequence.tokens == [USER, ord("a"), ASSISTANT]
    assert sequence.closing == []


def test_closing_tokens() -> None:
    """What closes the thinking is read with its tag as one token."""
    assert prepare(user("a"), template=THINKING).closing == CLOSING_TOKENS


LENGTHS = st.none() | st.integers(0, 200)


@given(
    st.integers(0, 120),
    st.integers(30, 130),
    st.none() | st.integers(1, 200),
    st.fixed_dictionaries({"reasoning_budget": LENGTHS, "node_budget": LENGTHS}),
    st.sampled_from([PLAIN, THINKING, TAGGED]),
)
def test_never_above_the_context(
    size: int, context: int, max_tokens: int | None, budgets: dict[str, int | None], template: str
) -> None:
    """Prompt, closing tokens and answer fit the context; the answer has its least room, and half of all."""
    sequence = attempt(user("a" * size), template=template, context=context, max_tokens=max_tokens, **budgets)
    if sequence is None:
        assert size + 4 + ANSWER_TOKENS_MIN + len(CLOSING_TOKENS) > context
        return
    assert sequence.room >= 1
    assert len(sequence.tokens) + sequence.room <= context
    if max_tokens is None:
        assert sequence.room >= ANSWER_TOKENS_MIN
    else:
        assert min(ANSWER_TOKENS_MIN, max_tokens) <= sequence.room <= max_tokens
    if sequence.text.thinking:
        assert sequence.budget > 0
        assert 2 * (sequence.budget + len(sequence.closing)) <= sequence.room


def test_the_context_may_change() -> None:
    """A lower limit counts from the next question on; the next round of one has what the first one had."""
    model = ScriptedModel(say("x"), context=100)
    measure = preparation(model)
    assert measure.prepare(submit(1, user("a" * 60)), NOW).context == 100
    measure.context = 50
    with pytest.raises(Refusal):
        measure.prepare(submit(2, user("a" * 60)), NOW)
    assert measure.prepare(submit(3, user("a")), NOW).context == 50
    round_two = measure.prepare(submit(4, user("a" * 60), context=100), NOW)
    assert (round_two.context, round_two.room) == (100, 100 - len(round_two.tokens))
    measure.context = 80
    assert measure.prepare(submit(5, user("a"), context=50), NOW).context == 80


def test_schema_without_support() -> None:
    """A schema is refused where the model cannot be held to one."""
    assert refused(user("a"), schema="{}").code == "unsupported"


@pytest.mark.parametrize(
    ("asked", "bound", "expected"), [(None, 10, 10), (30, 10, 10), (5, 10, 5), (20, None, 20)]
)
def test_bound_of_the_thinking(asked: int | None, bound: int | None, expected: int) -> None:
    """Whatever a question or the node grants, no thinking is longer than the bound that holds."""
    measure = preparation(ScriptedModel(say("x"), context=100), THINKING, reasoning_max=bound)
    order = submit(1, user("hi"), reasoning_budget=asked)
    assert measure.prepare(order, NOW).budget == expected


# sessions -------------------------------------------------------------------------------------------------


def test_an_earlier_answer_keeps_its_tokens() -> None:
    """Where the very tokens of an answer are known they stand in the prompt, not what a tokenizer makes of it."""
    messages = (Message("user", "a"), Message("assistant", "<think>"), Message("user", "b"))
    read = prepare(*messages).tokens
    assert read == [USER, ord("a"), ASSISTANT, *b"<think>", USER, ord("b"), ASSISTANT]
    kept = prepare(*messages, sampled={1: (OPEN,)}).tokens
    assert kept == [USER, ord("a"), ASSISTANT, OPEN, USER, ord("b"), ASSISTANT]


@pytest.mark.parametrize("tokens", [(CLOSE,), (OPEN, OPEN), tuple(b"<thin"), ()])
def test_tokens_of_another_text_are_not_taken(tokens: tuple[int, ...]) -> None:
    """Tokens that another model chose, or that do not make the whole answer, are of no use: its text is read."""
    messages = (Message("user", "a"), Message("assistant", "<think>"), Message("user", "b"))
    assert prepare(*messages, sampled={1: tokens}).tokens == prepare(*messages).tokens


def test_places_move_with_the_messages() -> None:
    """A system prompt in front, and turns that are trimmed, change no answer's tokens."""
    messages = (
        *(Message("user", "a" * 40), Message("assistant", "b" * 40)),
        *(Message("user", "c"), Message("assistant", "</think>"), Message("user", "d")),
    )
    sampled = {1: tuple(b"b" * 40), 3: (CLOSE,)}
    sequence = prepare(
        *messages, sampled=sampled, system_prompt="s", context=70, overflow="trim_history", session=True
    )
    assert sequence.trimmed == 2
    assert sequence.tokens == [SYSTEM, ord("s"), USER, ord("c"), ASSISTANT, CLOSE, USER, ord("d"), ASSISTANT]


def test_a_session_leaves_room_for_the_answer() -> None:
    """Trimming leaves a quarter of the context to the answer, or `max_tokens`; else the next turn trims again."""
    messages = [Message("user" if at % 2 == 0 else "assistant", "x" * 10) for at in range(7)]
    told: dict[str, Any] = {"context": 100, "overflow": "trim_history"}
    assert prepare(*messages, **told).trimmed == 0
    assert prepare(*messages, **told, session=True).trimmed == 2
    assert prepare(*messages, **told, session=True, max_tokens=16).trimmed == 0
