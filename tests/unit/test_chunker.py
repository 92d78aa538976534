"""Gathering pieces into deltas: nothing lost, nothing reordered, not too often."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edged.core.answer_text import Kind
from edged.core.chunker import Chunker

KINDS: st.SearchStrategy[Kind] = st.sampled_from(["text", "reasoning"])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 5), st.lists(st.tuples(KINDS, st.text("abc", min_size=1, max_size=3)), max_size=3)
    ),
    max_size=20,
)


def joined(pieces: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
    """Runs of one kind as one piece."""
    out: list[tuple[Kind, str]] = []
    for kind, text in pieces:
        if out and out[-1][0] == kind:
            out[-1] = (kind, out[-1][1] + text)
        else:
            out.append((kind, text))
    return out


@given(STEPS, st.integers(0, 8))
def test_nothing_lost(steps: list[tuple[int, list[tuple[Kind, str]]]], interval: int) -> None:
    """The deltas are the pieces, in order, and without a change of kind they keep the interval."""
    chunker, now = Chunker(interval), 0.0
    sent: list[tuple[float, Kind, str]] = []
    for wait, pieces in steps:
        now += wait
        sent += [(now, *due) for due in chunker.add(pieces, now)]
    sent += [(now + interval, *due) for due in chunker.flush(now)]
    assert joined([(kind, text) for _, kind, text in sent]) == joined(
        [p for _, pieces in steps for p in pieces]
    )
    assert all(text for _, _, text in sent)
    if len({kind for _, kind, _ in sent}) == 1:
        assert all(after[0] - before[0] >= interval for before, after in itertools.pairwise(sent))


def test_first_piece_at_once() -> None:
    """The first piece does not wait."""
    assert Chunker(60.0).add([("text", "a")], 5.0) == [("text", "a")]


def test_gathered() -> None:
    """Pieces within the interval go out together, and at its end."""
    chunker = Chunker(1.0)
    chunker.add([("text", "a")], 0.0)
    assert chunker.add([("text", "b")], 0.4) == []
    assert chunker.add([("text", "c")], 0.8) == []
    assert chunker.add([("text", "d")], 1.0) == [("text", "bcd")]
    assert chunker.add([], 9.0) == []


def test_late_without_a_piece() -> None:
    """What is held goes out when its time has come, with or without a new piece."""
    chunker = Chunker(1.0)
    chunker.add([("text", "a"), ("text", "b")], 0.0)
    chunker.add([("text", "c")], 0.5)
    assert chunker.add([], 1.0) == [("text", "c")]


def test_change_of_kind() -> None:
    """A delta holds one kind: the end of the thinking sends what there was of it."""
    chunker = Chunker(60.0)
    chunker.add([("reasoning", "a")], 0.0)
    assert chunker.add([("reasoning", "b"), ("text", "c")], 1.0) == [("reasoning", "b")]
    assert chunker.flush(2.0) == [("text", "c")]
    assert chunker.flush(2.0) == []


def test_no_interval() -> None:
    """Without an interval each call sends what it was given."""
    chunker = Chunker(0.0)
    assert chunker.add([("text", "a")], 0.0) == [("text", "a")]
    assert chunker.add([("text", "b")], 0.0) == [("text", "b")]
