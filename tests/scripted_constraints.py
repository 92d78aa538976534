"""Stand-ins for llguidance over the scripted vocabulary, in which a token is a byte: one answer, or text and calls.

They have the shape of its matcher, as far as `edged.engine.constraint` uses it, and of `Constraints`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from edged.core.tools import Mode, Tool
from edged.engine.calls import CallForm
from edged.engine.constraint import Constraint

END = 257


class Fixed:
    """The answer must be one text, of which the bytes from `free` to `until`, or to the end, are forced."""

    def __init__(self, text: bytes, free: int, until: int | None = None) -> None:
        self._text = text
        self._free = free
        self._until = len(text) if until is None else until
        self._at = 0
        self.failed = ""

    def validate_tokens(self, tokens: list[int]) -> int:
        """How many of the tokens fit."""
        return int(tokens == list(self._text[self._at : self._at + 1]))

    def compute_bitmask(self) -> bytes:
        """The one token that fits."""
        bits = bytearray(40)
        token = self._text[self._at]
        bits[token // 8] |= 1 << token % 8
        return bytes(bits)

    def consume_token(self, token: int) -> bool:
        """Go on."""
        fits = self._at < len(self._text) and self._text[self._at] == token
        self._at += fits
        return fits

    def compute_ff_tokens(self) -> list[int]:
        """What is forced."""
        return list(self._text[self._at : self._until]) if self._at >= self._free else []

    def try_consume_tokens(self, tokens: list[int]) -> int:
        """Go on with several."""
        self._at += len(tokens)
        return len(tokens)

    def is_error(self) -> bool:
        """Whether it gave up."""
        return bool(self.failed)

    def get_error(self) -> str:
        """Why."""
        return self.failed

    def is_accepting(self) -> bool:
        """Whether it is complete."""
        return self._at == len(self._text)

    def is_stopped(self) -> bool:
        """Whether nothing can follow."""
        return self._at == len(self._text)


class Free:
    """Any text, until a trigger makes the rest one call, which then is forced."""

    def __init__(self, trigger: bytes, call: bytes) -> None:
        self._trigger = trigger
        self._call = call
        self._said = b""
        self._ended = False

    @property
    def _rest(self) -> bytes | None:
        """What is left of the call; None while there is none."""
        at = self._said.find(self._trigger)
        return None if at < 0 else self._call[len(self._said) - at :]

    def validate_tokens(self, tokens: list[int]) -> int:
        """How many of the tokens fit."""
        rest = self._rest
        return int(rest is None or tokens == list(rest[:1]) or (rest == b"" and tokens == [END]))

    def compute_bitmask(self) -> bytes:
        """The one token that fits, inside the call."""
        bits = bytearray(40)
        token = (self._rest or b"x")[0]
        bits[token // 8] |= 1 << token % 8
        return bytes(bits)

    def consume_token(self, token: int) -> bool:
        """Go on."""
        fits = self.validate_tokens([token]) == 1
        self._ended = token == END
        self._said += bytes([token]) if token < 256 else b""
        return fits

    def compute_ff_tokens(self) -> list[int]:
        """What is forced."""
        return list(self._rest or b"")

    def try_consume_tokens(self, tokens: list[int]) -> int:
        """Go on with several."""
        self._said += bytes(tokens)
        return len(tokens)

    def is_error(self) -> bool:
        """It never gives up."""
        return False

    def is_accepting(self) -> bool:
        """Text may end behind any whole character, a call at its end."""
        return not self._rest and is_whole(self._said)

    def is_stopped(self) -> bool:
        """Whether nothing can follow."""
        return self._ended or self._rest == b""


class Text(Free):
    """Any text, in which the trigger may not stand."""

    @property
    def _rest(self) -> bytes | None:
        return None

    def validate_tokens(self, tokens: list[int]) -> int:
        """How many of the tokens fit."""
        said = self._said + bytes(token for token in tokens if token < END)
        return int(not said.endswith(self._trigger))


def is_whole(data: bytes) -> bool:
    """Whether no character of these bytes is cut off at their end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return not decoder.getstate()[0]


class ScriptedConstraints:
    """Compiles any schema to one answer, and any tools to one call; `answer`, `call` are their bytes."""

    def __init__(self, answer: bytes, call: bytes) -> None:
        self.answer = answer
        self.call = call

    def compile(self, schema: str) -> Constraint:
        """One answer."""
        del schema
        return _constraint(Fixed(self.answer, 2))

    def compile_calls(
        self,
        form: CallForm,
        tools: Sequence[Tool],
        mode: Mode,
        *,
        literal: Callable[[str], Sequence[str | int]],
        parallel: bool,
        schema: str | None,
    ) -> Constraint:
        """One call, or text and one call, or text alone."""
        del tools, literal, parallel, schema
        if mode == "required":
            return _constraint(Fixed(self.call, 0 if len(self.call) % 2 else 1))
        if mode == "none":
            return _constraint(Text(form.trigger.encode(), self.call))
        return _constraint(Free(form.trigger.encode(), self.call))


def _constraint(matcher: Any) -> Constraint:
    return Constraint(matcher)
