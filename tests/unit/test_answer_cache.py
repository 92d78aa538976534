"""Which questions are the same, which answers are kept, and that the bounds hold whatever comes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.answer_cache import OVERHEAD_BYTES, AnswerCache, Kept, key, may_keep
from edged.core.question import Message, Question
from edged.core.reply import Usage
from edged.core.tools import Offer


def question(**changes: Any) -> Question:
    """A question at temperature 0."""
    made: dict[str, Any] = {
        "client": "c",
        "id": "1",
        "made_id": False,
        "plain": False,
        "messages": (Message("user", "hi"),),
        "reply_to": "t",
        "temperature": 0.0,
    }
    return Question(**(made | changes))


def kept(text: str = "yes") -> Kept:
    """An answer."""
    return Kept(text, "", "stop", Usage(1, 0, 1), 2048)


@pytest.mark.parametrize(
    "changes",
    [
        {"client": "other"},
        {"id": "2"},
        {"reply_to": "elsewhere"},
        {"correlation": b"x"},
        {"deadline_ms": 5},
        {"priority": "interactive"},
        {"stream": False},
        {"plain": True},
        {"cache": "use"},
    ],
)
def test_who_asks_does_not_matter(changes: dict[str, Any]) -> None:
    """Neither does how it is told."""
    assert key(question(**changes)) == key(question())


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": (Message("user", "ho"),)},
        {"messages": (Message("system", "be brief"), Message("user", "hi"))},
        {"temperature": 0.5, "seed": 1},
        {"seed": 1},
        {"top_p": 0.5},
        {"max_tokens": 5},
        {"stop": ("x",)},
        {"schema": "{}"},
        {"reasoning_mode": "hide"},
        {"reasoning_budget": 5},
        {"overflow": "trim_history"},
    ],
)
def test_what_is_asked_matters(changes: dict[str, Any]) -> None:
    """Another answer may come of it."""
    assert key(question(**changes)) not in {None, key(question())}


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"temperature": 0.6}, False),
        ({"temperature": None}, False),
        ({"temperature": None, "seed": 7}, True),
        ({"temperature": None, "cache": "use"}, True),
        ({"cache": "bypass"}, False),
        ({"temperature": None, "seed": 7, "cache": "bypass"}, False),
        ({"session": "s"}, False),
        ({"session": "s", "cache": "use"}, False),
        ({"tools": Offer(local=("clock",)), "cache": "use"}, False),
    ],
)
def test_only_what_leaves_nothing_to_chance(changes: dict[str, Any], shared: bool) -> None:  # noqa: FBT001 - a table
    """Or what the device asks for."""
    assert (key(question(**changes)) is not None) is shared


FIELDS = set(Question.__struct_fields__)
TOLD = {
    "client",
    "id",
    "made_id",
    "plain",
    "reply_to",
    "correlation",
    "deadline_ms",
    "priority",
    "stream",
    "cache",
}


def test_a_new_field_counts() -> None:
    """Whatever is added to a question tells it from others, unless it is named above."""
    assert FIELDS >= TOLD
    changed = msgspec.structs.replace(question(), max_tokens=99)
    assert key(changed) != key(question())


def test_what_was_thought_takes_room_too() -> None:
    """It is kept beside the text."""
    thought = msgspec.structs.replace(kept(), reasoning="é" * 100)
    assert thought.size_bytes == kept().size_bytes + 200


def test_what_may_be_kept() -> None:
    """Whole answers, not what a deadline or the room of the moment cut off."""
    asked, bounded = question(), question(max_tokens=5)
    assert may_keep(asked, "stop", "a", trimmed=False, written=5)
    assert not may_keep(asked, "length", "a", trimmed=False, written=5)
    assert may_keep(bounded, "length", "a", trimmed=False, written=5)
    assert not may_keep(bounded, "length", "a", trimmed=False, written=4), "the context ended it"
    assert not may_keep(bounded, "deadline", "a", trimmed=False, written=5)
    assert not may_keep(asked, "stop", "a", trimmed=True, written=5)


def test_an_answer_that_cannot_be_read_is_not_kept() -> None:
    """JSON that follows the schema and is none to us ended as an error, which the next device would not survive."""
    asked = question(schema='{"type": "number"}')
    assert may_keep(asked, "stop", "1e9", trimmed=False, written=5)
    assert not may_keep(asked, "stop", "1e999", trimmed=False, written=5)


def test_age() -> None:
    """An answer is given until it is too old."""
    cache = AnswerCache(10, 10_000, 60.0)
    cache.put(b"k", kept(), 100.0)
    assert cache.get(b"k", 160.0) == kept()
    assert cache.get(b"k", 160.1) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_clear_and_narrower_bounds() -> None:
    """What no longer fits goes at once, the one not used for longest first."""
    cache = AnswerCache(10, 100_000, 60.0)
    for name in (b"a", b"b", b"c"):
        cache.put(name, kept(), 0.0)
    cache.get(b"a", 1.0)
    cache.bound(2, 100_000, 60.0)
    assert [cache.get(name, 1.0) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert cache.clear() == 2
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_an_answer_beyond_the_bound_pushes_no_other_out() -> None:
    """It would not stay either: all others would go for nothing."""
    cache = AnswerCache(10, 2 * OVERHEAD_BYTES, 60.0)
    cache.put(b"a", kept(), 0.0)
    cache.put(b"b", kept("x" * 2 * OVERHEAD_BYTES), 0.0)
    assert cache.get(b"a", 0.0) == kept()


STEPS = st.lists(
    st.tuples(st.just("put"), st.integers(0, 2), st.integers(0, 900))
    | st.tuples(st.just("get"), st.integers(0, 2), st.integers(0, 0))
    | st.tuples(st.just("wait"), st.integers(0, 40), st.integers(0, 0)),
    max_size=60,
)


@given(STEPS, st.integers(0, 5), st.integers(0, 20_000))
def test_bounds_hold(steps: list[tuple[str, int, int]], answers: int, size: int) -> None:
    """Never more than may be kept, and what is given is the last that was put, and not too old."""
    cache, now = AnswerCache(answers, size, 60.0), 0.0
    model: dict[bytes, tuple[float, Kept]] = {}
    for step, number, length in steps:
        name = b"%d" % number
        if step == "wait":
            now += number
        elif step == "put":
            one = kept("x" * length)
            cache.put(name, one, now)
            model[name] = (now, one)
        else:
            found = cache.get(name, now)
            if found is not None:
                at, expected = model[name]
                assert found == expected
                assert now - at <= 60.0
        assert len(cache) <= answers
        assert cache.size_bytes <= size
        assert cache.size_bytes >= len(cache) * OVERHEAD_BYTES
