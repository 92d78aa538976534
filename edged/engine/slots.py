"""Which KV stream holds which tokens, and which of them a new prompt can continue. Belongs to the model thread.

A finished question leaves its tokens where they are: the next prompt that begins the same way continues from
them, and a prompt that shares its beginning with a running question copies that part. What was read from disk
for a prompt, see `edged.engine.prefixes`, is put into a stream here, and what is worth writing there is told.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Container
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from edged.core.batching import closing_up
from edged.engine.ports import Passes

COPY_MIN = 32
"""Fewer shared tokens than this are read anew: a copy moves a whole stream, some tens of megabytes."""


@dataclass(slots=True)
class Slot:
    """One KV stream.

    Attributes:
        held: the tokens in it.
        used: grows with each use; the smallest is oldest.
        shared: how many of the tokens the prompt of another conversation has begun with as well.
        least: so many of the tokens must stay when it is cut, where it is not emptied: it was loaded.
        talk: the question in it goes on with a conversation, so all of its tokens may be wanted again.
        private: nothing of it goes to another prompt, nor to disk, and it is emptied when its question is over.
    """

    index: int
    held: list[int] = field(default_factory=list)
    busy: bool = False
    used: int = 0
    shared: int = 0
    least: int = 0
    talk: bool = False
    private: bool = False

    def worth(self, *, talks: bool) -> int:
        """How many of its first tokens may well be wanted again; those of conversations if `talks`."""
        return len(self.held) if self.talk and talks else min(self.shared, len(self.held))


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Stored:
    """What was read from disk for a prompt: the state of a stream with `tokens` in it.

    `reject` is called, from the model thread, when the cache does not take it.
    """

    tokens: list[int]
    data: bytearray
    reject: Callable[[], None]


class Slots:
    """All KV streams of a context.

    Args:
        passes: the context.
        count: how many streams it has.
    """

    def __init__(self, passes: Passes, count: int) -> None:
        self._passes = passes
        self._slots = [Slot(index) for index in range(count)]
        self._copying: set[int] = set()
        self._uses = 0

    @property
    def rewinds(self) -> bool:
        """Whether a stream may be of use to a prompt that begins with a part of it only."""
        return self._passes.rewinds

    @property
    def free(self) -> int:
        """Streams without a running question."""
        return sum(not slot.busy for slot in self._slots)

    @property
    def held_tokens(self) -> int:
        """Tokens that stand in the cache, idle prompts included."""
        return sum(len(slot.held) for slot in self._slots)

    def longest(self, tokens: Items[int], without: Container[int] = ()) -> int:
        """How many tokens of a prompt stand in one stream, some streams left out.

        From any thread, where it may be a step old.
        """
        rest = (slot for slot in self._slots if slot.index not in without)
        return max((self._shared(slot, tokens) for slot in rest), default=0)

    def _shared(self, slot: Slot, tokens: Items[int]) -> int:
        """How many of a stream's first tokens a prompt begins with and may have."""
        return 0 if slot.private else useful(slot.held, tokens, self._least(slot))

    def _least(self, slot: Slot) -> int:
        return slot.least if self.rewinds else len(slot.held)

    def take(
        self, tokens: Items[int], *, reuse: bool, talk: bool = False, stored: Stored | None = None
    ) -> tuple[int, int]:
        """Reserve a stream for a prompt.

        Args:
            tokens: the prompt; at least one of them is always left to compute, for its logits.
            reuse: False reads the whole prompt anew, and keeps nothing of it.
            talk: the prompt belongs to a conversation that will go on.
            stored: what was found on disk; used where no stream holds as much.

        Returns:
            The stream's index and how many of the tokens stand in it already.
        """
        shared = {slot.index: self._shared(slot, tokens) if reuse else 0 for slot in self._slots}
        idle = [slot for slot in self._slots if not slot.busy]
        best = max(self._slots, key=lambda slot: (shared[slot.index], not slot.busy, -slot.used))
        near = max(idle, key=lambda slot: (shared[slot.index], -slot.used))
        oldest = min(idle, key=lambda slot: (len(slot.held) > 0, slot.used))
        found = common(stored.tokens, tokens) if stored is not None and reuse else 0
        if (
            stored is not None
            and found >= shared[best.index] + COPY_MIN
            and oldest.index not in self._copying  # what it holds may be still to be copied from it
        ):
            chosen, keep = oldest, found if self._load(oldest, stored) else 0
        elif 2 * shared[near.index] >= len(near.held) and shared[near.index] + COPY_MIN > shared[best.index]:
            chosen, keep = near, shared[near.index]
            talk = talk or COPY_MIN <= keep == len(near.held)
        elif shared[best.index] >= COPY_MIN and best is not oldest:
            # What the others hold stays useful to their own conversations: share it by copy.
            chosen, keep = oldest, shared[best.index]
            self._passes.forget(oldest.index)
            self._passes.copy(best.index, oldest.index)
            oldest.least = best.least
            self._copying |= {best.index, oldest.index}
            best.shared = max(best.shared, keep)
        else:
            chosen, keep = oldest, shared[oldest.index]
        if not self._passes.forget(chosen.index, keep):
            keep = 0
        chosen.held = list(tokens[:keep])
        chosen.least = min(chosen.least, keep)
        # A conversation that goes on begins as it began before: that is no other prompt.
        chosen.shared = min(chosen.shared, keep) if talk and chosen is near else keep
        chosen.talk, chosen.private = talk, not reuse
        chosen.busy = True
        self._uses += 1
        chosen.used = self._uses
        return chosen.index, keep

    def _load(self, slot: Slot, stored: Stored) -> bool:
        slot.held = list(stored.tokens)
        if self._put(slot, stored.data):
            return True
        stored.reject()
        return False

    def _put(self, slot: Slot, data: bytearray) -> bool:
        """Put a state of what the stream holds into it."""
        slot.least = self._passes.least(len(slot.held))
        whole = self._passes.load(slot.index, data)
        if not whole:
            slot.held, slot.least = [], 0
        return whole

    def extend(self, index: int, tokens: Items[int]) -> None:
        """A pass has put these tokens into the stream."""
        self._slots[index].held.extend(tokens)

    def passed(self) -> None:
        """A pass was run, aborted or not: what was to be copied has been."""
        self._copying.clear()

    def release(self, index: int) -> None:
        """The question in this stream is over; its tokens stay for others, where they may."""
        slot = self._slots[index]
        slot.busy = False
        if slot.private:
            self._empty(slot)

    def forget_idle(self) -> None:
        """Empty the streams without a running question; the others when theirs is over."""
        for slot in self._slots:
            if slot.busy:
                slot.private = True
            else:
                self._empty(slot)

    def _empty(self, slot: Slot) -> None:
        self._passes.forget(slot.index)
        self._slots[slot.index] = Slot(slot.index, used=slot.used)

    def restore(self, index: int) -> None:
        """Forget what an aborted pass may have put into the stream beyond `held`."""
        slot = self._slots[index]
        if not self._passes.forget(index, len(slot.held)):
            slot.held, slot.least = [], 0

    def close_up(self) -> dict[int, int]:
        """Bring the running streams side by side, see `closing_up`; what idle ones hold is kept.

        Not between a copy and the pass after it, where there may be a rest: llama.cpp copies streams when the pass
        begins, and until then would save what stood in the target before.

        Returns:
            Where the questions are now that were moved, from old index to new; `length` tells what is left.
        """
        if self._copying:
            return {}
        pairs = closing_up([slot.busy for slot in self._slots], [len(slot.held) for slot in self._slots])
        for running, idle in pairs:
            self._exchange(self._slots[running], self._slots[idle])
        return dict(pairs)

    def _exchange(self, one: Slot, other: Slot) -> None:
        saved = [self._passes.save(slot.index) if slot.held else None for slot in (one, other)]
        one.index, other.index = other.index, one.index
        for slot, data in zip((one, other), saved, strict=True):
            self._slots[slot.index] = slot
            if data is None:
                self._passes.forget(slot.index)
            else:
                self._put(slot, data)

    def length(self, index: int) -> int:
        """Tokens in the stream."""
        return len(self._slots[index].held)

    def worthwhile(self, *, talks: bool) -> list[tuple[int, list[int]]]:
        """Streams at rest whose first tokens may well be wanted again: index and those tokens.

        Args:
            talks: with conversations that may go on; else only what several prompts have begun with.
        """
        resting = [(slot, slot.worth(talks=talks)) for slot in self._slots if not slot.busy]
        return [
            (slot.index, slot.held[:worth]) for slot, worth in resting if worth and worth >= self._least(slot)
        ]

    def state(self, index: int, count: int) -> bytearray | None:
        """The state of a stream at rest with its first `count` tokens in it.

        None where it cannot be cut, and where a copy of it or into it waits for the next pass.

        llama.cpp saves whole streams only: one that holds more is saved, cut, saved again and put back, some
        tens of milliseconds in all.
        """
        if index in self._copying:
            return None
        slot = self._slots[index]
        if count == len(slot.held):
            return self._passes.save(index)
        whole = self._passes.save(index)
        part = self._passes.save(index) if self._passes.forget(index, count) else None
        self._put(slot, whole)
        return part


def common(held: Items[int], tokens: Items[int]) -> int:
    """Length of the common beginning, one less than the prompt at most."""
    limit = max(0, min(len(held), len(tokens) - 1))
    if held[:limit] == tokens[:limit]:  # compared in C; the common case of a conversation going on
        return limit
    # Halving compares some thousand tokens in C, where a loop would look at each: this is asked of every slot.
    return bisect.bisect_left(range(limit), True, key=lambda size: held[: size + 1] != tokens[: size + 1])


def useful(held: Items[int], tokens: Items[int], least: int) -> int:
    """How many tokens of a state a prompt can go on from, where `least` of them must stay."""
    count = common(held, tokens)
    return count if count >= least else 0
