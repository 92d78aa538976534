"""Many questions, one model: `step()` lets in whose turn it is, has a pass run and the next tokens written.

Belongs to the model thread; where a method may be called from another one, it says so. Whose turn it is stands in
`line`, what a pass holds and takes in `runner`, what the cache holds in `slots`; what becomes of a row of logits is
`writer`'s.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import msgspec

from edged.core.fairness import RANK
from edged.core.question import Priority
from edged.core.rates import Counters
from edged.engine.drafts import Drafts
from edged.engine.limits import Limits
from edged.engine.line import Line
from edged.engine.messages import Refused, Report, SetLimits, Started
from edged.engine.ports import MakeChooser, Passes, Vocabulary
from edged.engine.promises import Promises
from edged.engine.runner import Passed, Runner
from edged.engine.sequence import NO_SLOT, Sequence
from edged.engine.slots import COPY_MIN, Slots, common
from edged.engine.writer import Writer

TEMPERATURE, TOP_P = 0.6, 0.95
"""Sampling for questions that name none: DeepSeek's model card for R1-Distill."""
MOVE_MIN = 16
"""Tokens that two answers must still have before them for one of them to be moved beside the other: a move costs
as much as some passes."""


class Scheduler:
    """Runs sequences side by side.

    Args:
        vocabulary, passes, make_chooser: the model.
        slots: how many questions run at once; `limits` may allow fewer.
        decode_threads, prefill_threads: threads for passes that write, and for passes that read a prompt.
        emit: takes what is to be told, in order, before a pass and after it.
        clock: monotonic seconds.

    Attributes:
        slots: what the cache holds.
        limits: what heat leaves of all this.
        drafts: of running answers.
        promises: what a question may be told before it is submitted.
        counters: what was done so far.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        passes: Passes,
        make_chooser: MakeChooser,
        *,
        slots: int,
        decode_threads: int,
        prefill_threads: int,
        emit: Callable[[list[Report]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_chooser = make_chooser
        self.slots = Slots(passes, slots)
        self._emit = emit
        self._clock = clock
        self._line = Line()
        self._reports: list[Report] = []
        self.counters = Counters()
        self._writer = Writer(vocabulary, self.counters, self._reports, self._forget)
        self.drafts = Drafts(passes, self.slots, self._writer, self._line.running, self.counters)
        self.limits = Limits(slots=slots, decode_threads=decode_threads, prefill_threads=prefill_threads)
        self.promises = Promises(self._line, self.slots, self.limits, self.counters)
        self._runner = Runner(
            passes,
            self.slots,
            self.drafts,
            self.limits,
            self.counters,
            running=self._line.running,
            line=self._line,
            clock=clock,
        )

    @property
    def rest_s(self) -> float:
        """Seconds until the next pass is due by the pace; 0.0 when it is."""
        return self.limits.pace.rest_s(self._clock())

    @property
    def running(self) -> int:
        """Questions in a slot."""
        return len(self._line.running)

    @property
    def waiting(self) -> int:
        """Questions that were submitted and have no slot yet."""
        return len(self._line.waiting)

    def replace_emit(self, emit: Callable[[list[Report]], None]) -> Callable[[list[Report]], None]:
        """Send reports elsewhere from now on; returns where they went before."""
        before, self._emit = self._emit, emit
        return before

    # orders ---------------------------------------------------------------------------------------------

    def announce(self, sequence: Sequence) -> None:
        """Count a question that is about to be submitted. From any thread."""
        self._line.announce(sequence)

    def submit(self, sequence: Sequence) -> None:
        """Put a measured question in line."""
        self._line.submit(sequence)

    def cancel(self, number: int) -> None:
        """End a question wherever it stands; one that is over already is none of ours."""
        sequence = self._line.find(number)
        if sequence is not None:
            self._writer.end(sequence, "cancelled", self._clock())
            self._flush()

    def join(self, number: int, client: str, priority: Priority, deadline: float | None) -> None:
        """Another question is the same as one that is not over: go by the sooner turn, and by this deadline."""
        sequence = self._line.find(number)
        if sequence is not None:
            self._line.join(sequence, client, priority)
            sequence.order = msgspec.structs.replace(sequence.order, deadline=deadline)

    def end_reasoning(self, number: int) -> None:
        """Spend the rest of a question's budget for thinking at once."""
        sequence = self._line.find(number)
        if sequence is not None:
            sequence.budget = 0
            if sequence.slot != NO_SLOT and not sequence.reading and sequence.text.thinking:
                self._writer.close_thinking(sequence, self._clock())

    def limit(self, limits: SetLimits) -> None:
        """Obey new limits from the next step on; what runs keeps its slot."""
        self.counters.rates.cores_changed(self.limits.obey(limits))

    def confine(self, cores: int, spared: int = 0) -> None:
        """Use no more threads than cores from the next step on, and spare some, whatever heat allows."""
        self.counters.rates.cores_changed(self.limits.confine(cores, spared))

    def interrupt(self, number: int) -> None:
        """Abort the running pass if it reads this prompt, and no other question runs. From any thread."""
        self._runner.interrupt(number)

    # the step -------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Run one pass over everything that is due.

        Returns:
            False when there was nothing to do, or nothing yet: paused, or in a rest (`rest_s`).

        Raises:
            EngineError: llama.cpp failed in a way that another pass will not mend.
        """
        now = self._clock()
        self._expire(now)
        if not self.limits.paused:
            self._close_up()
            self._admit(now)
        self._flush()
        shares = [] if self.limits.paused or self.limits.pace.rest_s(now) > 0 else self._runner.plan()
        if not shares:
            return False
        passed = self._runner.run(shares)
        if passed is not None:
            right = self._go_on(passed)
            self._runner.count(passed, right)
            self._flush()
        return True

    def _go_on(self, passed: Passed) -> int:
        """Have the next tokens written where a row has logits; returns how many of the drafts came true."""
        right = 0
        for part in passed.parts:
            sequence, count = part.sequence, part.count
            answering = sequence.answering
            self.slots.extend(sequence.slot, sequence.tokens[sequence.past : sequence.past + count])
            sequence.past += count
            won = 0
            if part.row is not None:
                self._writer.write(sequence, part.row, passed.ended)
                if part.draft is not None:
                    won = self.drafts.verify(sequence, part.draft, part.row, passed.ended)
            if answering:
                self._line.ledger.add(sequence.order.client, count + won)
            right += won
        return right

    def _expire(self, now: float) -> None:
        for sequence in [*self._line.running.values(), *self._line.waiting.values()]:
            deadline = sequence.order.deadline
            if deadline is None or now < deadline:
                continue
            if sequence.slot == NO_SLOT:
                del self._line.waiting[sequence.number]
                self._reports.append(
                    Refused(
                        sequence.number, "expired", "the deadline passed before the question's turn came", {}
                    )
                )
            else:
                self._writer.end(sequence, "deadline", now)

    def _close_up(self) -> None:
        """Bring running answers side by side in the cache, where enough is still to come to be worth it."""
        if len(self._line.running) < 2:  # noqa: PLR2004 - one alone has no neighbour
            return
        if sorted(sequence.room for sequence in self._line.running.values())[-2] < MOVE_MIN:
            return
        moved = self.slots.close_up()
        for sequence in self._line.running.values():
            if sequence.slot in moved:
                sequence.slot = moved[sequence.slot]
                sequence.past = self.slots.length(sequence.slot)

    def _admit(self, now: float) -> None:
        held_off: list[Sequence] = []
        while self.slots.free > len(held_off) and len(self._line.running) + len(held_off) < self.limits.slots:
            behind = {sequence.order.client for sequence in held_off}  # a client's order stays as it is
            sequence = self._line.next(behind)
            if sequence is None:
                return
            if self._awaits(sequence):
                held_off.append(sequence)  # its place is kept
                continue
            del self._line.waiting[sequence.number]
            order = sequence.order
            # Told before llama.cpp moves what it holds: should that crash the process, it must be known for whom.
            self._reports.append(Started(sequence.number))
            self._flush()
            sequence.slot, sequence.past = self.slots.take(
                sequence.tokens, reuse=order.reuse, talk=order.session, stored=sequence.stored
            )
            sequence.stored = None
            sequence.cached = sequence.past
            self._line.ledger.begins(order.client, order.priority)
            # Charged now, not as it is read: else one client could take every slot that comes free at once.
            self._line.ledger.add(order.client, sequence.prompt_tokens - sequence.cached)
            sequence.started = now
            sequence.chooser = self._make_chooser(
                temperature=TEMPERATURE if order.temperature is None else order.temperature,
                top_p=TOP_P if order.top_p is None else order.top_p,
                seed=secrets.randbits(31) if order.seed is None else order.seed,
            )
            self._line.running[sequence.number] = sequence

    def _awaits(self, sequence: Sequence) -> bool:
        """Whether a running question is just reading the same beginning: it is computed once, then copied.

        Not one of lower priority, whose prompt may itself have to wait for others.
        """
        rank = RANK[sequence.order.priority]
        reading = [
            s
            for s in self._line.running.values()
            if s.past < s.prompt_tokens and s.order.reuse and RANK[s.order.priority] <= rank
        ]
        if not reading or not sequence.order.reuse or not self.slots.rewinds:
            return False
        known = sequence.known(self.slots, {other.slot for other in reading})
        shared = [(common(s.tokens[: s.prompt_tokens], sequence.tokens), s.past) for s in reading]
        return any(past < count >= known + COPY_MIN for count, past in shared)

    def _forget(self, sequence: Sequence) -> None:
        self._line.waiting.pop(sequence.number, None)
        if self._line.running.pop(sequence.number, None) is not None:
            self.slots.release(sequence.slot)
        if sequence.chooser is not None:
            sequence.chooser.close()
            sequence.chooser = None

    def _flush(self) -> None:
        if self._reports:
            reports = self._reports.copy()
            self._reports.clear()
            self._emit(reports)
