"""Replies on the wire: what stands in each, and what is left out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core import reply
from edged.core.reply import Usage
from edged.errors import Refusal

USAGE = Usage(prompt_tokens=7, cached_tokens=3, completion_tokens=5, reasoning_tokens=2)


def wire(message: reply.Reply) -> dict[str, Any]:
    """What a device reads."""
    read: dict[str, Any] = json.loads(reply.encode(message))
    return read


def done(**changes: Any) -> reply.Done:
    """A finished answer."""
    fields: dict[str, Any] = {
        "id": "q1",
        "seq": 4,
        "text": "Yes.",
        "finish_reason": "stop",
        "usage": USAGE,
        "timings": reply.Timings(),
        "model": "m",
        "node": "n1",
        "attempt": 1,
    }
    return reply.Done(**(fields | changes))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            reply.Accepted(
                id="q1", seq=0, node="n1", position=0, eta_ms=0, prompt_tokens=9, context=2048, deadline_ms=1
            ),
            "accepted",
        ),
        (reply.Delta(id="q1", seq=0, text="a"), "delta"),
        (reply.ReasoningDelta(id="q1", seq=0, text="a"), "reasoning"),
        (done(seq=0), "done"),
        (reply.Cancelled(id="q1", seq=0, text="", usage=USAGE), "cancelled"),
        (reply.Failed(id="q1", seq=0, code="busy", message="wait"), "error"),
    ],
)
def test_common_fields(message: reply.Reply, kind: str) -> None:
    """Every reply has id, type and seq; the first one's seq 0 stands on the wire too."""
    read = wire(message)
    assert (read["id"], read["type"], read["seq"]) == ("q1", kind, 0)


def test_accepted() -> None:
    """An accepted question is told its place, and a duplicate that it is one."""
    message = reply.Accepted(id="q1", seq=0, node="n1", position=0, eta_ms=0, prompt_tokens=9, context=2048)
    assert wire(message) == {
        "type": "accepted",
        "id": "q1",
        "seq": 0,
        "node": "n1",
        "position": 0,
        "eta_ms": 0,
        "prompt_tokens": 9,
        "context": 2048,
    }


def test_done_leaves_out_what_is_not() -> None:
    """Fields without a value are absent, empty text and zeros are not."""
    read = wire(done(text=""))
    assert read["text"] == ""
    assert read["attempt"] == 1
    assert not {"reasoning", "parsed", "cached", "trimmed", "level"} & read.keys()
    assert read["usage"] == {
        "prompt_tokens": 7,
        "cached_tokens": 3,
        "completion_tokens": 5,
        "reasoning_tokens": 2,
    }
    full = wire(done(reasoning="hm", parsed={"a": 1}, cached=True, trimmed=2, level="warm"))
    assert (full["reasoning"], full["parsed"], full["cached"]) == ("hm", {"a": 1}, True)
    assert (full["trimmed"], full["level"]) == (2, "warm")


def test_usage_of_nothing() -> None:
    """Counts of zero are numbers, not gaps."""
    read = wire(reply.Cancelled(id="q1", seq=0, text="", usage=Usage()))
    assert read["usage"] == dict.fromkeys(
        ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"), 0
    )
    assert len(wire(done())["timings"]) == 5


def test_failed() -> None:
    """A refusal keeps its code, sentence, hint and figures; what it has not, is left out."""
    full = Refusal("busy", "wait", retry_after_ms=250, details={"waiting": 3})
    assert wire(reply.failed("q1", 2, full)) == {
        "type": "error",
        "id": "q1",
        "seq": 2,
        "code": "busy",
        "message": "wait",
        "retry_after_ms": 250,
        "details": {"waiting": 3},
    }
    bare = wire(reply.failed("q1", 0, Refusal("expired", "late")))
    assert bare == {"type": "error", "id": "q1", "seq": 0, "code": "expired", "message": "late"}


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text arrives as it was sent, on one line."""
    data = reply.encode(reply.Delta(id="q1", seq=1, text=text))
    assert b"\n" not in data
    assert json.loads(data)["text"] == text


@pytest.mark.parametrize("text", ['{"a": 1.5}', "[]", "7", '"\\n"', "1" * 400])
def test_parsed(text: str) -> None:
    """The value of a structured answer goes out as it came."""
    assert reply.parsed(text) == json.loads(text)


@pytest.mark.parametrize("text", ["1e999", "-1e400", "[" * 20000 + "]" * 20000, '{"a": ', "1" * 5000])
def test_not_parsed(text: str) -> None:
    """What a wide schema allows and nobody can read is an error for its device, and nothing worse."""
    with pytest.raises(Refusal, match="cannot be read"):
        reply.parsed(text)


def test_the_deepest_that_is_parsed() -> None:
    """It goes out again too, from wherever that is done: what was read at one depth of calls ended the daemon."""

    def further_on(calls: int, value: Any) -> bytes:
        return further_on(calls - 1, value) if calls else reply.encode(done(parsed=value))

    read: Any = None
    with suppress(Refusal):
        for depth in range(1, 20_000):
            read = reply.parsed("[" * depth + "]" * depth)
    assert b'"parsed":[[' in further_on(50, read)
