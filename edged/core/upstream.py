"""A larger server: which questions go there, how they are asked in OpenAI's shape, how its stream is read. Pure.

Nothing here is called while `[upstream]` is not set up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from edged.core.answer_text import Kind, Part
from edged.core.question import Message, Question
from edged.core.reply import Usage
from edged.errors import DECODE_ERRORS

Why = Literal["asked", "context", "hot"]
LARGE = "large"
"""The name of whatever model the larger server has."""
LINE_BYTES_MAX = 256 * 1024
"""One server-sent event; a longer one is no answer of a language model."""
HOT = frozenset({"hot", "critical"})


@dataclass(frozen=True, slots=True)
class Policy:
    """What goes to the larger server.

    Attributes:
        host: its name, for `done`.
        model: the model's name there.
        when: reasons that count.
    """

    host: str
    model: str
    when: frozenset[Why]

    def why(self, question: Question, level: str | None) -> Why | None:
        """Why a question goes there before the board has looked at it; None when it does not.

        One with tools stays: the node's own run beside it, and the calls of small models are kept to their form.
        """
        if question.tools is not None:
            return None
        if question.model is not None:
            return "asked" if "asked" in self.when else None
        return "hot" if level in HOT and "hot" in self.when else None

    def names(self) -> tuple[str, ...]:
        """What a question may name as its `model`."""
        return (LARGE, self.model) if "asked" in self.when else ()


# to the server ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for the server.

    Attributes:
        number: the journal's.
        body: JSON of a chat completion.
        timeout_s: what is left of its deadline; None for none.
        shaped: a form of the answer is asked for, which not every server knows.
    """

    number: int
    body: bytes
    timeout_s: float | None
    shaped: bool = False


def request(question: Question, messages: tuple[Message, ...], model: str) -> bytes:
    """The body of a streamed chat completion; what the question leaves open is left to the server."""
    told: dict[str, Any] = {
        "model": model,
        "messages": [
            {k: v for k, v in msgspec.structs.asdict(one).items() if v is not None} for one in messages
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "seed": question.seed,
        "stop": list(question.stop) or None,
    }
    if question.schema is not None:
        schema = {"name": "answer", "schema": msgspec.Raw(question.schema.encode()), "strict": True}
        told["response_format"] = {"type": "json_schema", "json_schema": schema}
    return msgspec.json.encode({name: value for name, value in told.items() if value is not None})


# from the server ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The server took the question and begins to answer."""

    number: int


@dataclass(frozen=True, slots=True)
class Said:
    """The next text of an answer."""

    number: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Over:
    """The answer is complete, or cut by its deadline."""

    number: int
    outcome: Literal["stop", "length", "deadline"]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Broke:
    """There will be no answer from there.

    Attributes:
        ours: the server is well, it did not like the question.
        cramped: the question left no room for an answer, of time or of tokens: nobody is to blame.
    """

    number: int
    reason: str
    ours: bool = False
    cramped: bool = False


Event = Begun | Said | Over | Broke


class BadStreamError(ValueError):
    """The server does not speak as it should."""


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

    Attributes:
        finish: why the answer ended, in the contract's words, once told.
        usage: what it cost, where the server tells.
        ended: `[DONE]` has come.
    """

    def __init__(self) -> None:
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
            raise _told_in_stream(chunk.error)
        if chunk.usage is not None:
            usage = chunk.usage
            self.usage = Usage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cached_tokens=_count(usage.prompt_tokens_details, "cached_tokens"),
                reasoning_tokens=_count(usage.completion_tokens_details, "reasoning_tokens"),
            )
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


QUESTION_REFUSED = (400, 413, 422)
"""Statuses that blame the question, not the server."""
OWN_LIMITS = ("max_tokens", "max_completion_tokens", "stop")
SHAPE_REFUSED = frozenset({500, 501})
"""What some servers answer to a `response_format` that they do not know, with a JSON error as the body."""


def refusal(status: int, body: bytes, *, shaped: bool) -> BadStreamError | QuestionRefusedError:
    """What a status other than 200 means, in a short sentence, and whether the question is to blame for it."""
    error = _error_of(body)
    said = "" if error is None else _message(error)
    reason = f"status {status}{': ' if said else ''}{said}"
    if status in QUESTION_REFUSED or (shaped and status in SHAPE_REFUSED and error is not None):
        return QuestionRefusedError(reason, cramped=_is_cramped(error))
    return BadStreamError(reason)


def _told_in_stream(error: object) -> BadStreamError | QuestionRefusedError:
    """What an error under status 200 means.

    The type that OpenAI, llama.cpp's server and edged give it blames the question; so does vLLM's status.
    """
    reason = f"an error in the stream: {_message(error)}"
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


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Whole in any JSON, and a float can still be made of it."""


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


def _count(details: Mapping[str, Any] | None, name: str) -> int:
    value = (details or {}).get(name)
    return value if isinstance(value, int) and 0 <= value <= 2**53 else 0


def _message(error: object) -> str:
    text = error.get("message", "") if isinstance(error, Mapping) else error
    return " ".join(str(text).split())[:200]
