"""A line that outlives the process, as far as the node's parts need it."""

from __future__ import annotations

from typing import Protocol


class Note(Protocol):
    """`edged.adapters.note.Note`. A disk that refuses costs the note and raises nothing."""

    def read(self) -> str:
        """What was noted last; empty for nothing."""

    def write(self, text: str) -> None:
        """Note this in place of the last, or nothing."""
