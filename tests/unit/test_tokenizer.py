"""Texts that come again are tokenized once, and no more of them is kept than there is room for."""

from __future__ import annotations

import array
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import PLAIN, USER, ByteVocabulary, ScriptedModel, preparation, say, submit

from edged.core.question import Message
from edged.engine.prepare import Preparation
from edged.engine.tokenizer import TEXT_CHARACTERS_MAX, Tokenizer, size_of


class Counting(ByteVocabulary):
    """A vocabulary that knows what it was asked to tokenize."""

    def __init__(self) -> None:
        super().__init__(None)
        self.texts: list[tuple[str, bool]] = []

    def tokenize(self, text: str, *, special: bool, first: bool = False) -> list[int]:
        """As the scripted one."""
        self.texts.append((text, special))
        return super().tokenize(text, special=special, first=first)


def counted(**settings: Any) -> tuple[Preparation, Counting]:
    """What measures questions, with a vocabulary that counts."""
    model = ScriptedModel(say("x"))
    model.vocabulary = vocabulary = Counting()
    return preparation(model, PLAIN, **settings), vocabulary


def test_a_session_tokenizes_what_is_new() -> None:
    """System prompt and earlier turns are known, and the tokens are those of one who knows nothing."""
    measure, model = counted(context=1000, system_prompt="You read meters.")
    turns = [Message("user", "How warm is it?"), Message("assistant", "4.2 C."), Message("user", "And now?")]
    measure.prepare(submit(1, *turns[:1]), 0.0)
    model.texts.clear()
    later = measure.prepare(submit(2, *turns), 0.0)
    assert {text for text, _ in model.texts} >= {"4.2 C.", "And now?"}
    assert not {"You read meters.", "How warm is it?"} & {text for text, _ in model.texts}
    fresh = preparation(ScriptedModel(say("x")), PLAIN, context=1000, system_prompt="You read meters.")
    assert later.tokens == fresh.prepare(submit(2, *turns), 0.0).tokens


def test_a_device_that_says_what_the_template_says_gets_no_control_token() -> None:
    """One text is kept twice: as the template writes it, and as a device does."""
    model = Counting()
    tokenize = Tokenizer(model)
    own, said = tokenize("<|user|>", special=True), tokenize("<|user|>", special=False)
    assert own == [USER] != said
    assert (own, said) == (tokenize("<|user|>", special=True), tokenize("<|user|>", special=False))
    assert len(model.texts) == 2


def test_a_caller_may_change_what_it_gets() -> None:
    """What is kept is nobody else's."""
    tokenize = Tokenizer(Counting())
    for _ in range(3):
        tokens = tokenize("abc", special=False)
        assert tokens == [97, 98, 99]
        tokens.append(1)


def test_forgotten_texts_are_read_anew() -> None:
    """An operator who has prompts forgotten means these as well."""
    measure, model = counted()
    measure.prepare(submit(1, Message("user", "secret")), 0.0)
    measure.forget_texts()
    model.texts.clear()
    measure.prepare(submit(2, Message("user", "secret")), 0.0)
    assert ("secret", False) in model.texts


def test_a_question_that_is_to_leave_nothing_behind_leaves_no_text() -> None:
    """`cache: bypass` promises that nothing of it is kept; what was kept of others it does not take either."""
    measure, model = counted()
    for number, reuse in enumerate((False, False, True, False)):
        model.texts.clear()
        measure.prepare(submit(number, Message("user", "secret"), reuse=reuse), 0.0)
        assert ("secret", False) in model.texts


@given(st.lists(st.text(alphabet="abc", max_size=12), max_size=40))
def test_what_is_kept_fits_the_room_and_changes_no_token(texts: list[str]) -> None:
    """The texts used last stay, as many as there is room for."""
    model = Counting()
    room = 1500
    tokenize = Tokenizer(model, bytes_max=room)
    for text in texts:
        assert tokenize(text, special=False) == [*text.encode()]
    kept = list(dict.fromkeys(reversed(texts)))
    model.texts.clear()
    for text in kept:
        room -= size_of(text, array.array("i", [*text.encode()]))
        if room < 0:
            break
        tokenize(text, special=False)
    assert model.texts == []


@pytest.mark.parametrize("text", ["{}", "T={}.25", "{}" + "\U0001f321" * 30, "{}" + 100 * "warm "])
def test_many_texts_take_no_more_memory_than_the_room(text: str) -> None:
    """Short ones neither: a number from each of many devices took 300 bytes, of which few are its own."""
    room = 200_000
    tokenize = Tokenizer(ByteVocabulary(), bytes_max=room)
    tracemalloc.start()
    try:
        for number in range(1500):
            tokenize(text.format(number), special=False)
        assert tracemalloc.get_traced_memory()[0] < 1.25 * room
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("length", "reads"), [(TEXT_CHARACTERS_MAX, 1), (TEXT_CHARACTERS_MAX + 1, 2)])
def test_one_long_text_does_not_push_all_others_out(length: int, reads: int) -> None:
    """It is read anew."""
    model = Counting()
    tokenize = Tokenizer(model)
    for _ in range(2):
        tokenize("a" * length, special=False)
    assert len(model.texts) == reads
