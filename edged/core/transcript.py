"""What one reader was given of an answer: always a beginning of it, whatever was lost or begun anew. Pure.

A reader over HTTP gets each piece once and cannot take one back. Deltas are passed on while they come without a
gap; after a gap, or when the engine broke and the question runs again, the reader waits for the terminal
message, which repeats all of the text, and gets the rest out of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edged.core.answer_text import Kind, Part


@dataclass(slots=True)
class Transcript:
    """The replies to one question on their way to one reader.

    Attributes:
        diverged: the terminal message tells another text than was given: the engine broke in mid-answer and the
            next attempt went another way. The reader must be told that its text is void.
    """

    diverged: bool = False
    _given: dict[Kind, list[str]] = field(default_factory=lambda: {"reasoning": [], "text": []})
    _next: int = 0
    _waits: bool = False

    def feed(self, reply: dict[str, Any]) -> list[Part]:
        """Take a reply of the contract, decoded; return what the reader may have now."""
        seq = reply.get("seq", 0)
        match reply["type"]:
            case "accepted" if seq == 0:
                # Only the first reply of an attempt is an `accepted` with number 0.
                self._waits = any(self._given.values())
                self._next = 1
            case "delta" | "reasoning" as kind:
                if seq == self._next and not self._waits:
                    self._next += 1
                    return [self._give("text" if kind == "delta" else "reasoning", reply["text"])]
                self._waits = self._waits or seq > self._next
            case "done":
                return self._rest("reasoning", reply.get("reasoning")) + self._rest("text", reply["text"])
            case _:
                self._next += seq == self._next
        return []

    def _give(self, kind: Kind, text: str) -> Part:
        self._given[kind].append(text)
        return kind, text

    def _rest(self, kind: Kind, whole: str | None) -> list[Part]:
        given = "".join(self._given[kind])
        if whole is None and kind == "reasoning":
            return []  # not asked for, or shown inline
        if not (whole or "").startswith(given):
            self.diverged = True
            return []
        rest = (whole or "")[len(given) :]
        return [self._give(kind, rest)] if rest else []
