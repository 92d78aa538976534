"""Drafts of running answers: put beside the row that is due, and compared with what the model then chooses.

Belongs to the model thread. The choice is the sequence's own, made from the model's logits and in the same order as
without a draft: a text is the same with and without, but for rounding. From 256 tokens on llama.cpp attends to a
lone row in another order than to four, and what is drafted hangs on measured times: a question that names a seed,
which is to repeat, is written without. When to draft is `core.drafting`'s.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from edged.core.drafting import Drafting, Guesses, Kind, drafted_of
from edged.core.rates import Counters
from edged.engine.ports import Passes
from edged.engine.sequence import Sequence
from edged.engine.slots import Slots
from edged.engine.writer import Writer


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that may follow what a sequence holds.

    `kind` tells how they were found; None where they fill the pass up beside another sequence's.
    """

    tokens: list[int]
    kind: Kind | None


class Drafts:
    """Makes and verifies the drafts of all answers.

    Args:
        passes, slots, writer: the scheduler's.
        running: numbers of the questions in a slot.
        counters: count what is drafted, and what of it comes true.
    """

    def __init__(
        self, passes: Passes, slots: Slots, writer: Writer, running: Container[int], counters: Counters
    ) -> None:
        self._passes = passes
        self._slots = slots
        self._writer = writer
        self._running = running
        self._counters = counters
        self._drafting = Drafting()
        self.most = 0

    def make(self, sequences: list[Sequence], threads: int) -> list[Draft]:
        """Drafts for the next pass, one for each of the sequences in it; none for any where that would not pay."""
        count = drafted_of(len(sequences), self.most)
        if count < 1 or not self._passes.cuts or len(sequences) * (1 + count) > self._passes.batch_tokens:
            return []
        if not all(each.answering and each.rows == 1 and each.room > count for each in sequences):
            return []
        if any(each.order.seed is not None for each in sequences):
            return []
        drafts, won = [], []
        for sequence in sequences:
            if sequence.guesses is None:
                sequence.guesses = Guesses(self._drafting.new_luck())
            size, tokens = sequence.guesses.lookup.follow(sequence.tokens, count)
            kind = (size, count) if tokens else None
            won.append(sequence.guesses.luck.expected(kind) if kind else 0.0)
            # llama.cpp computes sequences together that have as many rows, see `core.batching.plan`.
            drafts.append(Draft(tokens or sequence.tokens[-1:] * count, kind))
        if not any(draft.kind for draft in drafts):
            return []
        if self._drafting.pays(won, threads):
            return drafts
        for sequence, draft in zip(sequences, drafts, strict=True):
            if sequence.guesses is not None and draft.kind is not None:
                sequence.guesses.luck.passed_over(draft.kind)
        return []

    def verify(self, sequence: Sequence, draft: Draft, row: int, now: float) -> int:
        """Go on with a sequence whose next token was just chosen from `row`; the rows after it are its draft's.

        Returns:
            How many tokens of the draft came true.
        """
        right = 0
        while right < len(draft.tokens) and sequence.number in self._running:
            pending = sequence.tokens[sequence.past :]
            rest = draft.tokens[right:]
            same = 0
            while same < min(len(pending), len(rest)) and pending[same] == rest[same]:
                same += 1
            self._slots.extend(sequence.slot, pending[:same])
            sequence.past += same
            right += same
            if same < len(pending):
                break
            self._writer.write(sequence, row + right, now)
        self._passes.forget(sequence.slot, self._slots.length(sequence.slot))
        if draft.kind is not None and sequence.guesses is not None:
            sequence.guesses.luck.came_true(draft.kind, right)
            self._counters.drafted += len(draft.tokens)
            self._counters.drafted_right += right
        return right

    def cost(self, answers: int, threads: int) -> float:
        """What a pass with drafts takes, in passes without."""
        return self._drafting.cost(answers, threads)

    def passed(self, answers: int, threads: int, *, drafted: bool, seconds: float) -> None:
        """Count a pass that only wrote."""
        if drafted_of(answers, self.most):
            self._drafting.passed(answers, threads, drafted=drafted, seconds=seconds)
