"""What a larger server says: its stream of a chat completion, and its errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec

from edged.core.answer_text import Part
from edged.core.reply import Usage
from edged.errors import DECODE_ERRORS

LINE_BYTES_MAX = 256 * 1024
"""One server-sent event; a longer one is no answer of a language model."""
COUNT_MAX = 2**53
"""Tokens; whole in any JSON, and a float can still be made of it."""
QUESTION_REFUSED = (400, 413, 422)
"""Statuses that blame the question, not the server."""
OWN_LIMITS = ("max_tokens", "max_completion_tokens", "stop")
COME_AGAIN = (429, 503)
"""Statuses whose `Retry-After` tells when there is a place again (RFC 6585, 4; RFC 9110, 15.6.4)."""
SHAPE_REFUSED = frozenset({500, 501})
"""What some servers answer to a `response_format` that they do not know, with a JSON error as the body."""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Any = None
    error: Any = None


class BadStreamError(ValueError):
    """The server does not speak as it should, or does not want to.

    Attributes:
        wait_s: how long it asks to be left alone; None where it says nothing of that.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class QuestionRefusedError(ValueError):
    """The server is well, and does not answer this question.

    Attributes:
        cramped: it has too many tokens for that server, or may have too few for its answer.
    """

    def __init__(self, reason: str, *, cramped: bool) -> None:
        super().__init__(reason)
        self.cramped = cramped


class Stream:
    """Reads server-sent events (WHATWG HTML, 9.2.6) of a chat completion, fed by the chunk.

    Some servers write "" where OpenAI's has null for "not yet" (sglang 0.4), some to the end (GenieX), so it says
    nothing: `[DONE]` alone ends a whole answer too.

    Args:
        key: what we showed the server; some repeat a wrong one in their error, which devices and the log get.

    Attributes:
        finish: why the answer ended, in the contract's words, once told.
        usage: what it cost, where the server tells.
        ended: `[DONE]` has come.
    """

    def __init__(self, key: str | None = None) -> None:
        self._key = key
        self._held = bytearray()
        self._begun = False
        self.finish: Literal["stop", "length"] | None = None
        self.usage = Usage()
        self.ended = False

    def feed(self, data: bytes) -> list[Part]:
        """Take bytes; return the texts that are complete now.

        Raises:
            BadStreamError: an event that is none, an error of the server told in the stream.
            QuestionRefusedError: an error told there that the question is to blame for.
        """
        self._held += data
        *lines, rest = self._held.split(b"\n")
        self._held = bytearray(rest)
        if any(len(line) > LINE_BYTES_MAX for line in (*lines, rest)):
            raise BadStreamError(f"an event of more than {LINE_BYTES_MAX} bytes")
        told: list[Part] = []
        for line in lines:
            field, _, value = bytes(line).rstrip(b"\r").partition(b":")
            if field == b"data" and not self.ended:
                self._event(value.strip(), told)
        return told

    def _event(self, value: bytes, told: list[Part]) -> None:
        if value == b"[DONE]":
            self.ended = True
            if self.finish is None and self._begun:
                self.finish = "stop"
            return
        try:
            chunk = msgspec.json.decode(value, type=_Chunk)
        except DECODE_ERRORS as error:
            raise BadStreamError(f"an event that cannot be read: {str(error)[:100]}") from None
        if chunk.error is not None:
            raise _told_in_stream(chunk.error, self._key)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)
        for choice in chunk.choices[:1]:
            self._begun = True
            delta = choice.delta
            thought = delta.reasoning_content or delta.reasoning
            if thought:
                told.append(("reasoning", thought))
            if delta.content:
                told.append(("text", delta.content))
            if choice.finish_reason:
                self.finish = "length" if choice.finish_reason == "length" else "stop"


def refusal(
    status: int, body: bytes, *, shaped: bool, key: str | None = None, wait_s: float | None = None
) -> BadStreamError | QuestionRefusedError:
    """What a status other than 200 means, in a short sentence, and whether the question is to blame for it.

    `wait_s` is what its `Retry-After` says, see `seconds_told`.
    """
    error = _error_of(body)
    said = "" if error is None else _message(error, key)
    reason = f"status {status}{': ' if said else ''}{said}"
    if status in QUESTION_REFUSED or (shaped and status in SHAPE_REFUSED and error is not None):
        return QuestionRefusedError(reason, cramped=_is_cramped(error))
    return BadStreamError(reason, wait_s if status in COME_AGAIN else None)


def seconds_told(retry_after: str | None, now_unix_s: float) -> float | None:
    """What a `Retry-After` says (RFC 9110, 10.2.3): seconds, or a date; None for nothing that can be read."""
    if retry_after is None:
        return None
    told = retry_after.strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - now_unix_s)
    except (ValueError, OverflowError):
        return None


def _told_in_stream(error: object, key: str | None) -> BadStreamError | QuestionRefusedError:
    """What an error under status 200 means.

    The type that OpenAI, llama.cpp's server and edged give it blames the question; so does vLLM's status.
    """
    reason = f"an error in the stream: {_message(error, key)}"
    kind, code = (error.get("type"), error.get("code")) if isinstance(error, Mapping) else (None, None)
    if kind == "invalid_request_error" or code in QUESTION_REFUSED:
        return QuestionRefusedError(reason, cramped=_is_cramped(error))
    return BadStreamError(reason)


def _is_cramped(error: object) -> bool:
    """Whether it says that the question has too many tokens, may have too few, or cuts its answer off itself."""
    if not isinstance(error, Mapping):
        return False
    return error.get("code") == "context_length_exceeded" or error.get("param") in OWN_LIMITS


def _error_of(body: bytes) -> object:
    """`error` of a JSON object; None for anything else."""
    try:
        told = msgspec.json.decode(body)
    except DECODE_ERRORS:
        return None
    return told.get("error") if isinstance(told, dict) else None


def _usage(told: object) -> Usage:
    """What it cost; what cannot be read of that counts as nothing, for the answer itself has come."""

    def count(name: str, of: object = told) -> int:
        value = of.get(name) if isinstance(of, Mapping) else None
        return value if isinstance(value, int) and 0 <= value <= COUNT_MAX else 0

    def detail(group: str, name: str) -> int:
        return count(name, told.get(group) if isinstance(told, Mapping) else None)

    return Usage(
        prompt_tokens=count("prompt_tokens"),
        completion_tokens=count("completion_tokens"),
        cached_tokens=detail("prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=detail("completion_tokens_details", "reasoning_tokens"),
    )


def _message(error: object, key: str | None) -> str:
    text = " ".join(str(error.get("message", "") if isinstance(error, Mapping) else error).split())
    return (text.replace(key, "***") if key else text)[:200]
