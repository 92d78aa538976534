"""Marks around each text from the wire, which tell it from a chat template's own text once the template has run.

A template may change, move or repeat what it is given. A text whose marks stand in the result as they were given is
tokenized as text; where a mark is damaged, the whole is refused. Belongs to the engine; pure but for its nonce.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edged.errors import Refusal

FENCES = "\u29d8\u29d9\u29da\u29db"
"""Wiggly fences, of mathematics: no template has them for a reason. Python's `repr` leaves them as they are, which
is what a template writes of a list or a mapping that it does not turn into JSON."""
_WORD = re.compile(r"[A-Za-z0-9_]*")
"""Text that is no tag of any model."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the rendered prompt; `special` where it may hold control tokens, else `message` is its place."""

    text: str
    special: bool
    message: int | None = field(default=None, compare=False)


class Marks:
    """A pair of marks that no device can know, for it holds a nonce."""

    def __init__(self) -> None:
        self._nonce = nonce = secrets.token_hex(8)
        self._begin, self._end = f"{FENCES[0]}{nonce}.", f"{FENCES[2]}{nonce}{FENCES[3]}"
        self._opening = re.compile(rf"{re.escape(self._begin)}([0-9]*){FENCES[1]}")

    def mark(self, text: str, at: int | None = None) -> str:
        """The text between marks; `at` is the place of the message that it is, where it is one."""
        return f"{self._begin}{'' if at is None else at}{FENCES[1]}{text}{self._end}"

    def mark_each(self, value: Any) -> Any:  # noqa: ANN401 - a JSON value
        """The value with each of its texts between marks; words that can be no control token stay bare."""
        if isinstance(value, dict):
            return {self.mark_each(key): self.mark_each(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.mark_each(one) for one in value]
        if isinstance(value, str) and not _WORD.fullmatch(value):
            return self.mark(value)
        return value

    def trim(self, value: object, chars: str | None = None) -> str:
        """Jinja's filter, which finds the ends of a marked text between its marks."""
        text = str(value).strip(chars)
        begin = self._opening.match(text)
        if begin is None or text.find(self._end) != len(text) - len(self._end):
            return text
        return begin[0] + text[begin.end() : -len(self._end)].strip(chars) + self._end

    def unmark(self, text: str) -> str:
        """The text without marks."""
        return self._opening.sub("", text).replace(self._end, "")

    def split(self, text: str, origins: Sequence[int | None]) -> list[Span]:
        """Spans of a rendered text, none of them empty.

        Args:
            text: with marks.
            origins: for each message that the template was given, its place in the conversation as it was asked;
                None where it has none.

        Raises:
            Refusal: a mark is damaged, so that some text from the wire could be taken for the template's
                (`bad_request`).
        """
        own, *marked = self._opening.split(text)
        spans = [Span(own, special=True)]
        whole = True
        for place, rest in zip(marked[::2], marked[1::2], strict=True):
            # Between its marks a text may be another now: SmolLM3's template takes `/no_think` out of the system's.
            user, end, own = rest.partition(self._end)
            whole = whole and bool(end)
            message = origins[int(place)] if place else None
            spans += [Span(user, special=False, message=message), Span(own, special=True)]
        # Any trace of a mark outside a user's text means that some of that text stands there as well.
        if not whole or any(
            trace in span.text for span in spans if span.special for trace in (*FENCES, self._nonce)
        ):
            raise Refusal(
                "bad_request", "the model's chat template takes these messages apart; ask otherwise"
            )
        return [span for span in spans if span.text]
