"""The replies of the contract: typed values and their bytes. Pure.

Every reply carries `id`, `type` and `seq`; fields that are None do not stand on the wire.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal

import msgspec

from edged.core.thinking import without_thinking
from edged.errors import DECODE_ERRORS, Refusal

FinishReason = Literal["stop", "length", "tool_calls", "deadline"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens, as integers counted by the engine, never estimated from text."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


class Timings(msgspec.Struct, frozen=True):
    """Where the time went: waiting, reading the prompt, writing the answer; rates in tokens per second."""

    queue_ms: int = 0
    prefill_ms: int = 0
    decode_ms: int = 0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0


class Reply(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    """What all replies share."""

    id: str
    seq: int = -1  # never the wire's value, so that omit_defaults keeps 0


class Accepted(Reply, frozen=True, tag="accepted", kw_only=True):
    """The question stands in the journal and will be answered; `position` 0 is next.

    `history` counts the earlier messages of its session: 0 where the session begins, or was forgotten.
    """

    node: str
    position: int
    eta_ms: int
    prompt_tokens: int | None = None
    context: int | None = None
    deadline_ms: int | None = None
    duplicate: bool | None = None
    upstream: str | None = None
    history: int | None = None


class Delta(Reply, frozen=True, tag="delta", kw_only=True):
    """The next piece of the answer; whole UTF-8 characters, always."""

    text: str


class ReasoningDelta(Reply, frozen=True, tag="reasoning", kw_only=True):
    """The next piece of the thinking."""

    text: str


class ToolCall(Reply, frozen=True, tag="tool_call", kw_only=True):
    """The model calls tools of the device; `done` follows at once and repeats this."""

    tool_calls: list[dict[str, Any]]


class Done(Reply, frozen=True, tag="done", kw_only=True):
    """The whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    model: str
    node: str
    attempt: int
    reasoning: str | None = None
    parsed: Any = None
    tool_calls: list[dict[str, Any]] | None = None
    cached: bool | None = None
    trimmed: int | None = None
    level: str | None = None
    upstream: str | None = None


class Cancelled(Reply, frozen=True, tag="cancelled", kw_only=True):
    """The device took its question back; `text` is what there was of an answer."""

    text: str
    usage: Usage


class Failed(Reply, frozen=True, tag="error", kw_only=True):
    """The question will not be answered."""

    code: str
    message: str
    retry_after_ms: int | None = None
    details: dict[str, Any] | None = None


Terminal = Done | Cancelled | Failed
"""Exactly one of these ends a question."""

DEPTH_LEFT = 500
"""Levels, of the thousand that Python nests, that an answer's value leaves to who reads it or writes it again."""
_encoder = msgspec.json.Encoder()


def encode(reply: Reply) -> bytes:
    """The reply's JSON object; it fits on one line."""
    return _encoder.encode(reply)


def failed(job_id: str, seq: int, refusal: Refusal) -> Failed:
    """The `error` reply of a refusal."""
    return Failed(
        id=job_id,
        seq=seq,
        code=refusal.code,
        message=refusal.message,
        retry_after_ms=refusal.retry_after_ms,
        details=refusal.details or None,
    )


class _Head(msgspec.Struct, frozen=True):
    id: str
    type: str
    seq: int = 0


def in_place_of(payload: bytes, why: str) -> bytes | None:
    """The `error` in place of a terminal message that the broker does not take; None where it is one already.

    None too for one that a worn card has damaged: nobody can say whose it was.
    """
    try:
        told = msgspec.json.decode(payload, type=_Head)
    except DECODE_ERRORS:
        return None
    if told.type == "error":
        return None
    message = f"the broker does not take the answer: {why}; ask for a shorter one with max_tokens"
    return encode(Failed(id=told.id, seq=told.seq, code="too_large", message=message))


def parsed(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """The value of an answer that was held to a schema; a thinking that stands in front of it is no part of it.

    Raises:
        Refusal: `bad_request`; no schema should allow what is no JSON to us, such as a number beyond all floats.
    """
    try:
        value = msgspec.json.decode(without_thinking(text))
        # It must go out again as well, within `Done` and from deeper in our own calls, and devices are to read it.
        _encoder.encode(reduce(lambda inner, _: [inner], range(DEPTH_LEFT), value))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refusal(
            "bad_request",
            f"the schema allowed an answer that cannot be read: {str(error)[:100]}; bound its numbers and depth",
        ) from None
    return value
