"""What a reader over HTTP was given is always a beginning of the answer, whatever was lost on the way."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edged.core.transcript import Transcript

PIECES = st.lists(
    st.tuples(st.sampled_from(["reasoning", "delta"]), st.text(min_size=1, max_size=5)), max_size=12
)


def attempt(pieces: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """All replies of one attempt."""
    replies: list[dict[str, Any]] = [{"type": "accepted", "seq": 0}]
    replies += [{"type": kind, "seq": n + 1, "text": text} for n, (kind, text) in enumerate(pieces)]
    whole = {kind: "".join(text for k, text in pieces if k == kind) for kind in ("reasoning", "delta")}
    last = {
        "type": "done",
        "seq": len(replies),
        "text": whole["delta"],
        "reasoning": whole["reasoning"] or None,
    }
    return [*replies, last]


def read(transcript: Transcript, replies: list[dict[str, Any]]) -> dict[str, str]:
    """What the reader has in the end."""
    got = {"reasoning": "", "text": ""}
    for reply in replies:
        for kind, text in transcript.feed(reply):
            got[kind] += text
    return got


@given(pieces=PIECES, data=st.data())
def test_lost_deltas_do_no_harm(pieces: list[tuple[str, str]], data: st.DataObject) -> None:
    """Whichever deltas are dropped, the reader has all of the text at the end, once."""
    replies = attempt(pieces)
    droppable = [reply for reply in replies if reply["type"] in {"delta", "reasoning"}]
    lost = data.draw(st.sets(st.sampled_from([reply["seq"] for reply in droppable]))) if droppable else set()
    transcript = Transcript()
    got = read(transcript, [reply for reply in replies if reply["seq"] not in lost or reply not in droppable])
    assert got == {"reasoning": replies[-1]["reasoning"] or "", "text": replies[-1]["text"]}
    assert not transcript.diverged


@given(pieces=PIECES, cut=st.integers(0, 14))
def test_a_second_attempt_that_says_the_same(pieces: list[tuple[str, str]], cut: int) -> None:
    """The engine breaks after some pieces and the answer comes again: the reader has it once."""
    replies = attempt(pieces)
    transcript = Transcript()
    got = read(transcript, [*replies[: min(cut, len(replies) - 1)], *replies])
    assert got == {"reasoning": replies[-1]["reasoning"] or "", "text": replies[-1]["text"]}
    assert not transcript.diverged


def test_a_second_attempt_that_says_something_else() -> None:
    """It is told, and nothing is mixed."""
    transcript = Transcript()
    got = read(transcript, [*attempt([("delta", "yes")])[:2], *attempt([("delta", "no")])])
    assert got["text"] == "yes"
    assert transcript.diverged


def test_nothing_given_before_the_break() -> None:
    """A reader that had nothing yet streams the second attempt."""
    transcript = Transcript()
    first, second = attempt([("delta", "x")])[:1], attempt([("delta", "no"), ("delta", "!")])
    assert [transcript.feed(reply) for reply in [*first, *second]] == [
        [],
        [],
        [("text", "no")],
        [("text", "!")],
        [],
    ]


def test_a_reader_that_comes_late() -> None:
    """It missed the beginning: it gets the text at the end, in one piece."""
    transcript = Transcript()
    replies = attempt([("delta", "a"), ("delta", "b")])[2:]
    assert [transcript.feed(reply) for reply in replies] == [[], [("text", "ab")]]
