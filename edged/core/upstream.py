"""A larger server: which questions go there, how they are asked in OpenAI's shape, what can come back. Pure.

How its answers are read is `edged.core.upstream_stream`. Nothing here is called while `[upstream]` is not set up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from edged.core.answer_text import Kind
from edged.core.question import Message, Question
from edged.core.reply import Usage

Why = Literal["asked", "context", "hot"]
LARGE = "large"
"""The name of whatever model the larger server has."""
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
        wait_s: how long the server asks to be left alone; None where it says nothing of that.
    """

    number: int
    reason: str
    ours: bool = False
    cramped: bool = False
    wait_s: float | None = None


Event = Begun | Said | Over | Broke
