"""Gathers the pieces of an answer into deltas, so that a fast model does not send a message for each token.

Pure; one `Chunker` a running question. The first piece goes at once, because the wait for it is what a person
feels; later ones at most every `interval_s`. On a board that writes 10 tokens a second each token is a delta.
"""

from __future__ import annotations

import math

from edged.core.answer_text import Kind, Part


class Chunker:
    """Holds pieces back until they are due.

    Args:
        interval_s: least time between two deltas; 0 sends every piece at once.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._sent_at = -math.inf
        self._kind: Kind = "text"
        self._pending: list[str] = []

    def add(self, pieces: list[Part], now: float) -> list[Part]:
        """Take pieces at time `now` (seconds, any monotonic clock); return the deltas that are due."""
        due: list[Part] = []
        for kind, text in pieces:
            if kind != self._kind:
                self._release(due, now)
                self._kind = kind
            self._pending.append(text)
        if now - self._sent_at >= self._interval_s:
            self._release(due, now)
        return due

    def flush(self, now: float) -> list[Part]:
        """Return whatever is held."""
        due: list[Part] = []
        self._release(due, now)
        return due

    def _release(self, due: list[Part], now: float) -> None:
        if self._pending:
            due.append((self._kind, "".join(self._pending)))
            self._pending.clear()
            self._sent_at = now
