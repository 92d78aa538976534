"""Runs a pass: the rows that are due are put in, llama.cpp computes them, and what it took is counted.

Belongs to the model thread, but for `interrupt`. What a pass holds is decided in `core.batching`; this file carries
it out. Who runs, and what becomes of the logits, is the scheduler's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from edged.core.batching import CHUNK_MIN, Need, Turns, plan
from edged.core.rates import Counters
from edged.engine.drafts import Draft, Drafts
from edged.engine.limits import Limits
from edged.engine.line import Line
from edged.engine.ports import ABORTED, Passes
from edged.engine.sequence import Sequence
from edged.engine.slots import Slots
from edged.errors import EngineError

LONG_PASS_ROWS = 16
"""A cancelled question's pass is aborted only when it reads that much, for a shorter one is over as soon, and when
nobody else runs: who asks and takes back without a pause would keep all others from ever getting on."""


@dataclass(slots=True)
class Part:
    """What a pass holds of one sequence.

    Attributes:
        count: its next tokens.
        reading: they are a prompt's, or were forced upon the answer; else the answer's last one, which was chosen.
        row: the row that has the logits for the token after them; None while more of the prompt is to be read.
        draft: tokens that may follow, in the rows after `row`.
    """

    sequence: Sequence
    count: int
    reading: bool
    row: int | None
    draft: Draft | None


@dataclass(slots=True)
class Passed:
    """A pass that was computed.

    Attributes:
        answers: how many of the parts have nothing but an answer's next token.
        drafted: some have drafts.
        ended: monotonic seconds.
        seconds: how long it took.
    """

    parts: list[Part]
    answers: int
    drafted: bool
    ended: float
    seconds: float


class Runner:
    """Runs one pass after another.

    Args:
        passes: the context.
        slots, drafts, limits, counters: the scheduler's.
        running: the questions in a slot, by number.
        line: gives the order in which their prompts are read.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        passes: Passes,
        slots: Slots,
        drafts: Drafts,
        limits: Limits,
        counters: Counters,
        *,
        running: Mapping[int, Sequence],
        line: Line,
        clock: Callable[[], float],
    ) -> None:
        self._passes = passes
        self._slots = slots
        self._drafts = drafts
        self._limits = limits
        self._counters = counters
        self._running = running
        self._line = line
        self._overtaken = False
        self._clock = clock
        self._turns = Turns()
        self._reading_now: frozenset[int] = frozenset()

    def interrupt(self, number: int) -> None:
        """Abort the running pass if it reads this prompt, and no other question runs. From any thread."""
        if number in self._reading_now:
            self._passes.stop_pass()

    def plan(self) -> list[tuple[Sequence, int]]:
        """What the next pass is to hold: sequences, and how many of their next tokens."""
        # A slow pace reads prompts in smaller passes as well: short bursts of heat, and short rests.
        most = self._passes.batch_tokens
        needs = [
            Need(s.number, s.rows, not s.answering, s.fresh)
            for s in self._line.in_turn(eldest=self._overtaken)
        ]
        hold = self._turns.hold(needs)
        least = max(self._limits.slots_max + 1, CHUNK_MIN)
        shares = plan(
            needs,
            batch_tokens=min(most, max(least, int(most * self._limits.pace.share))),
            chunk=self._turns.chunk(self._counters.rates.read_s, batch_tokens=most, hold=hold),
            hold=hold,
        )
        # llama.cpp computes streams together only in the order of their numbers, see `closing_up`.
        chosen = [(self._running[share.slot], share.rows) for share in shares]
        if any(not sequence.answering for sequence, _ in chosen):
            eldest = self._line.eldest_unread()
            self._overtaken = all(sequence is not eldest for sequence, _ in chosen)
        return sorted(chosen, key=lambda each: each[0].slot)

    def run(self, shares: list[tuple[Sequence, int]]) -> Passed | None:
        """Compute what was planned, with drafts beside it where these pay; None where it was interrupted.

        Raises:
            EngineError: llama.cpp failed in a way that another pass will not mend.
        """
        self._passes.stop_pass(False)
        drafts = self._drafts.make([sequence for sequence, _ in shares], self._limits.decode_threads)
        parts = self._fill(shares, drafts)
        read = sum(part.count for part in parts if part.reading)
        if read >= LONG_PASS_ROWS and len(self._running) == 1:
            self._reading_now = frozenset(self._running)
        long = any(part.count > 1 for part in parts)
        begun = self._clock()
        code = self._passes.decode(self._limits.prefill_threads if long else self._limits.decode_threads)
        self._reading_now = frozenset()
        ended = self._clock()
        self._limits.pace.worked(begun, ended)
        self._slots.passed()
        if code == ABORTED:
            self._counters.aborted += 1
            for part in parts:
                self._slots.restore(part.sequence.slot)
                part.sequence.past = self._slots.length(part.sequence.slot)
            return None
        if code != 0:
            raise EngineError(f"llama_decode returned {code} for {sum(part.count for part in parts)} rows")
        self._counters.steps += 1
        self._counters.read += read
        answers = sum(not part.reading for part in parts)
        if not drafts:
            self._counters.rates.passed(ended - begun, written=answers, read=read)
        self._count_turn(ended - begun, parts)
        return Passed(parts, answers, bool(drafts), ended, ended - begun)

    def count(self, passed: Passed, right: int) -> None:
        """Count what a pass wrote, once it is written; `right` tokens of its drafts came true."""
        rates, threads, answers = self._counters.rates, self._limits.decode_threads, passed.answers
        if passed.drafted:
            rates.drafted(passed.seconds, answers=answers, written=answers + right)
        if answers == len(passed.parts):
            self._drafts.passed(answers, threads, drafted=passed.drafted, seconds=passed.seconds)
        if answers == len(passed.parts) == 1:
            rates.alone(passed.seconds / (self._drafts.cost(1, threads) if passed.drafted else 1.0))
        else:
            rates.together()

    def _fill(self, shares: list[tuple[Sequence, int]], drafts: list[Draft]) -> list[Part]:
        """Put the rows into the batch."""
        parts: list[Part] = []
        for (sequence, count), draft in zip_longest(shares, drafts):
            row = None
            last = len(sequence.tokens) - 1
            for position in range(sequence.past, sequence.past + count):
                at = self._passes.add(
                    sequence.tokens[position], position, sequence.slot, logits=position == last
                )
                if position == last:
                    row = at
            for position, token in enumerate(draft.tokens if draft else (), start=last + 1):
                self._passes.add(token, position, sequence.slot, logits=True)
            parts.append(Part(sequence, count, sequence.reading, row, draft))
        return parts

    def _count_turn(self, seconds: float, parts: list[Part]) -> None:
        """Whose turn a pass was; tokens forced upon an answer are the answer's."""
        prompts = written = 0
        for part in parts:
            if part.sequence.answering:
                written += 1
            else:
                prompts += part.count
        held = 0 if written else sum(sequence.answering for sequence in self._running.values())
        step_s = self._counters.rates.step_s
        self._turns.passed(seconds, step_s, written=written, read=prompts, held=held)
