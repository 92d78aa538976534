"""The broker's words that somebody waits for, by packet identifiers. No paho here.

Whoever sends learns the identifier when the packet may be on its way already, and the network thread may have the
word on it first: then it is kept until it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Word = TypeVar("Word")


class Words(Generic[Word]):
    """Words of one kind, such as those of PUBACK; any thread. Its lock is never held while somebody is told."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, Callable[[Word], None]] = {}
        self._early: dict[int, Word] = {}

    def wait_for(self, mid: int, told: Callable[[Word], None]) -> None:
        """Have `told` be told the word on this packet, at once if it is there."""
        with self._changed:
            early = self._early.pop(mid, None)
            if early is None:
                self._waiting[mid] = told
        if early is not None:
            told(early)

    def came(self, mid: int, word: Word) -> None:
        """The broker has said it."""
        with self._changed:
            told = self._waiting.pop(mid, None)
            if told is None:
                self._early[mid] = word
            self._changed.notify_all()
        if told is not None:
            told(word)

    def drop(self, mid: int) -> None:
        """Nobody waits for the word on this packet any more."""
        with self._changed:
            self._waiting.pop(mid, None)
            self._changed.notify_all()

    def settle(self, timeout_s: float) -> None:
        """Wait until nobody waits for a word any more, but no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def clear(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._waiting, self._early = {}, {}
