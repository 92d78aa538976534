"""Which KV stream holds which tokens, and which of them a new prompt can continue. Belongs to the model thread.

A finished question leaves its tokens where they are: the next prompt that begins the same way continues from
them, and a prompt that shares its beginning with a running question copies that part.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from edged.engine.ports import Passes

COPY_MIN = 32
"""Fewer shared tokens than this are read anew: a copy moves a whole stream, some tens of megabytes."""


@dataclass(slots=True)
class Slot:
    """One KV stream. `held` are the tokens in it; `used` grows with each use, the smallest is oldest."""

    index: int
    held: list[int] = field(default_factory=list)
    busy: bool = False
    used: int = 0


class Slots:
    """All KV streams of a context.

    Args:
        passes: the context.
        count: how many streams it has.
    """

    def __init__(self, passes: Passes, count: int) -> None:
        self._passes = passes
        self._slots = [Slot(index) for index in range(count)]
        self._uses = 0

    @property
    def free(self) -> int:
        """Streams without a running question."""
        return sum(not slot.busy for slot in self._slots)

    @property
    def held_tokens(self) -> int:
        """Tokens that stand in the cache, idle prompts included."""
        return sum(len(slot.held) for slot in self._slots)

    def take(self, tokens: Items[int], *, reuse: bool) -> tuple[int, int]:
        """Reserve a stream for a prompt.

        Args:
            tokens: the prompt; at least one of them is always left to compute, for its logits.
            reuse: False reads the whole prompt anew.

        Returns:
            The stream's index and how many of the tokens stand in it already.
        """
        shared = {slot.index: _common(slot.held, tokens) if reuse else 0 for slot in self._slots}
        idle = [slot for slot in self._slots if not slot.busy]
        best = max(self._slots, key=lambda slot: (shared[slot.index], not slot.busy, -slot.used))
        near = max(idle, key=lambda slot: (shared[slot.index], -slot.used))
        oldest = min(idle, key=lambda slot: (len(slot.held) > 0, slot.used))
        if 2 * shared[near.index] >= len(near.held) and shared[near.index] + COPY_MIN > shared[best.index]:
            chosen, keep = near, shared[near.index]
        elif shared[best.index] >= COPY_MIN and best is not oldest:
            # What the others hold stays useful to their own conversations: share it by copy.
            chosen, keep = oldest, shared[best.index]
            self._passes.forget(oldest.index)
            self._passes.copy(best.index, oldest.index)
        else:
            chosen, keep = oldest, shared[oldest.index]
        if not self._passes.forget(chosen.index, keep):
            keep = 0
        chosen.held = list(tokens[:keep])
        chosen.busy = True
        self._uses += 1
        chosen.used = self._uses
        return chosen.index, keep

    def extend(self, index: int, tokens: Items[int]) -> None:
        """A pass has put these tokens into the stream."""
        self._slots[index].held.extend(tokens)

    def release(self, index: int) -> None:
        """The question in this stream is over; its tokens stay for others."""
        self._slots[index].busy = False

    def restore(self, index: int) -> None:
        """Forget what an aborted pass may have put into the stream beyond `held`."""
        slot = self._slots[index]
        if not self._passes.forget(index, len(slot.held)):
            slot.held.clear()

    def length(self, index: int) -> int:
        """Tokens in the stream."""
        return len(self._slots[index].held)


def _common(held: Items[int], tokens: Items[int]) -> int:
    """Length of the common beginning, one less than the prompt at most."""
    limit = min(len(held), len(tokens) - 1)
    if held[:limit] == tokens[:limit]:  # compared in C; the common case of a conversation going on
        return max(0, limit)
    for at in range(limit):
        if held[at] != tokens[at]:
            return at
    return max(0, limit)
