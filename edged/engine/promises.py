"""What a question is told before it is in line: its place, when its answer may be there, or that it comes too late.

For any thread: the intake thread asks while the model thread steps, so what is said may be a step old. Nothing is
changed from here; the arithmetic is `core.outlook`'s.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace

from edged.core.fairness import RANK
from edged.core.outlook import Capacity, Left
from edged.core.rates import MEASURED_PASSES, Counters
from edged.engine.limits import Limits
from edged.engine.line import Line
from edged.engine.sequence import NO_SLOT, Sequence
from edged.engine.slots import COPY_MIN, Slots, common
from edged.errors import Refusal

LOOKED_AT = 8
"""Questions ahead that a prompt is compared with: those of a fleet begin alike, and one look takes tens of us."""

TRY_S = 30.0
"""So long after the last prompt was read, while questions are refused for what reading takes, one is let in all the
same: the cores, the clock or the neighbours may be others by now, and only reading tells."""


class Promises:
    """What may be promised.

    Args:
        line, slots, limits, counters: the scheduler's.
    """

    def __init__(self, line: Line, slots: Slots, limits: Limits, counters: Counters) -> None:
        self._line = line
        self._slots = slots
        self._limits = limits
        self._counters = counters
        self._reads, self._refused_since = -1, 0.0

    def estimate(self, sequence: Sequence) -> tuple[int, float]:
        """How many questions must end before this one begins, and in how many seconds its answer may be there."""
        ahead = self._line.before(sequence)
        sequence.foreseen = self._foreseen(sequence, ahead)
        own = Left(sequence.prompt_tokens - sequence.foreseen, sequence.room)
        in_line = max(0, len(ahead) + 1 - self._limits.slots)
        return in_line, self._capacity().eta_s(self._left(ahead, sequence, own.read), own)

    def refusal(self, sequence: Sequence, now: float) -> Refusal | None:
        """The refusal of a question that cannot begin its answer before its deadline; None where it may.

        It errs on the question's side: answers ahead may be short, prompts in the cache, a rate a poor one. One
        that comes for its next round was taken on, and ends with what it has.
        """
        deadline = sequence.order.deadline
        if deadline is None or sequence.order.context or self._counters.steps < MEASURED_PASSES:
            return None
        ahead = self._line.before(sequence)
        own = Left(sequence.prompt_tokens - self._foreseen(sequence, ahead), sequence.room)
        first = self._left(ahead, sequence, own.read) if len(ahead) >= self._limits.slots else []
        capacity = replace(self._capacity(), rates=self._counters.rates.kinder())
        refusal = capacity.refusal(first, own, sequence.prompt_tokens, deadline - now)
        if refusal is None or (not first and self._is_time_to_try(now)):
            return None
        refusal.details["eta_ms"] = round(1000 * self.estimate(sequence)[1])
        return refusal

    def _is_time_to_try(self, now: float) -> bool:
        """Whether questions have been refused for so long without one that told how fast prompts are read."""
        if self._reads != self._counters.rates.reads:
            self._reads, self._refused_since = self._counters.rates.reads, now
        if now - self._refused_since < TRY_S:
            return False
        self._refused_since = now
        return True

    def _left(self, ahead: Items[Sequence], sequence: Sequence, read: int) -> list[Left]:
        """What is to be done before a question of `read` tokens, or beside it, where shorter prompts come first."""
        own, left = RANK[sequence.order.priority], list[Left]()
        for other in ahead:
            rank = RANK[other.order.priority]
            most = read if rank == own else 0
            beside = rank >= own and other.slot != NO_SLOT
            left.append(replace(other.left, read=min(other.left.read, most)) if beside else other.left)
        return left

    def _foreseen(self, sequence: Sequence, others: Items[Sequence]) -> int:
        """Tokens of a prompt that will not be computed for it: they are known, or read before for one of others."""
        known = sequence.known(self._slots)
        if not sequence.order.reuse or not self._slots.rewinds:
            return known
        alike = [
            common(other.tokens[: other.prompt_tokens], sequence.tokens)
            for other in others[-LOOKED_AT:]
            if other.order.reuse and RANK[other.order.priority] <= RANK[sequence.order.priority]
        ]
        return max([known, *(count for count in alike if count >= COPY_MIN)])

    def _capacity(self) -> Capacity:
        return Capacity(self._counters.rates, self._limits.slots, self._limits.pace.share)
