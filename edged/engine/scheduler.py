"""Many questions, one model: `step()` plans a pass, runs it, chooses tokens and says what came of it.

Belongs to the model thread; where a method may be called from another one, it says so. What a pass holds
is decided in `core.batching`, who is next in `core.fairness`; this file carries it out.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from edged.core.batching import CHUNK_MIN, Need, chunk_rows, plan
from edged.core.fairness import RANK, TokenLedger, Waiting, choose
from edged.core.pace import PACE_MIN, Pace
from edged.core.rates import MEASURED_PASSES, Rates, hopeless
from edged.core.reply import FinishReason
from edged.engine.constraint import Constraint, OutgrownError
from edged.engine.messages import Refused, Report, SetLimits, Started
from edged.engine.ports import Chooser, MakeChooser, Passes, Vocabulary
from edged.engine.sequence import NO_SLOT, Sequence
from edged.engine.slots import COPY_MIN, Slots, common
from edged.errors import EngineError, Refusal

TEMPERATURE, TOP_P = 0.6, 0.95
"""Sampling for questions that name none: DeepSeek's model card for R1-Distill."""
ABORTED = 2  # llama_decode: stopped by the abort callback
CLOCK_SHARE_MIN = 0.1
LONG_PASS_ROWS = 16
"""A cancelled question's pass is aborted only when it reads that much; a shorter one is over as soon."""

MOVE_MIN = 16
"""Answers that two questions must still have before them for one of them to be moved beside the other: a move
costs as much as some passes."""


@dataclass(slots=True)
class Counters:
    """What the engine has done since its start."""

    steps: int = 0
    aborted: int = 0
    written: int = 0
    read: int = 0
    rates: Rates = field(default_factory=Rates)


class Scheduler:
    """Runs sequences side by side.

    Args:
        vocabulary, passes, make_chooser: the model.
        slots: how many questions run at once; `limit` may allow fewer.
        decode_threads, prefill_threads: threads for passes that write, and for passes that read a prompt.
        emit: takes what is to be told, in order; called once at the end of each step.
        clock: monotonic seconds.
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
        self._vocabulary = vocabulary
        self._passes = passes
        self._make_chooser = make_chooser
        self._slots = Slots(passes, slots)
        self._slot_count = slots
        self._threads_max = decode_threads, prefill_threads
        self._decode_threads = decode_threads
        self._prefill_threads = prefill_threads
        self._clock_share = 1.0
        self._pace = Pace()
        self._emit = emit
        self._clock = clock
        self._announced: dict[int, Sequence] = {}
        self._waiting: dict[int, Sequence] = {}
        self._running: dict[int, Sequence] = {}
        self._ledger = TokenLedger()
        self._reports: list[Report] = []
        self._reading_now: frozenset[int] = frozenset()
        self.counters = Counters()
        self.slots = slots
        self.paused = False

    @property
    def pace(self) -> float:
        """Share of the time that passes may fill."""
        return self._pace.share

    @property
    def rest_s(self) -> float:
        """Seconds until the next pass is due by the pace; 0.0 when it is."""
        return self._pace.rest_s(self._clock())

    @property
    def running(self) -> int:
        """Questions in a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Questions that were submitted and have no slot yet."""
        return len(self._waiting)

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache."""
        return self._slots.held_tokens

    def replace_emit(self, emit: Callable[[list[Report]], None]) -> Callable[[list[Report]], None]:
        """Send reports elsewhere from now on; returns where they went before."""
        before, self._emit = self._emit, emit
        return before

    # orders ---------------------------------------------------------------------------------------------

    def announce(self, sequence: Sequence) -> None:
        """Count a question that is about to be submitted. From any thread."""
        self._announced[sequence.number] = sequence

    def submit(self, sequence: Sequence) -> None:
        """Put a measured question in line."""
        self._announced.pop(sequence.number, None)
        self._waiting[sequence.number] = sequence

    def cancel(self, number: int) -> None:
        """End a question wherever it stands; one that is over already is none of ours."""
        sequence = self._running.get(number) or self._waiting.get(number)
        if sequence is not None:
            self._end(sequence, "cancelled", self._clock())
            self._flush()

    def set_deadline(self, number: int, deadline: float | None) -> None:
        """Go on for longer, where it is not over."""
        sequence = self._running.get(number) or self._waiting.get(number)
        if sequence is not None:
            sequence.order = msgspec.structs.replace(sequence.order, deadline=deadline)

    def end_reasoning(self, number: int) -> None:
        """Spend the rest of a question's budget for thinking at once."""
        sequence = self._running.get(number) or self._waiting.get(number)
        if sequence is not None:
            sequence.budget = 0
            if sequence.slot != NO_SLOT and not sequence.reading and sequence.text.thinking:
                self._close_thinking(sequence, self._clock())

    def limit(self, limits: SetLimits) -> None:
        """Obey new limits from the next step on; what runs keeps its slot."""
        self.slots = min(self._slot_count, max(1, limits.slots))
        most_decode, most_prefill = self._threads_max
        before = self._prefill_threads * self._clock_share
        self._decode_threads = min(most_decode, max(1, limits.decode_threads))
        self._prefill_threads = min(most_prefill, max(1, limits.prefill_threads))
        self._clock_share = min(1.0, max(CLOCK_SHARE_MIN, limits.clock))
        self.counters.rates.cores_changed(self._prefill_threads * self._clock_share / before)
        self._pace.share = min(1.0, max(PACE_MIN, limits.pace))
        self.paused = limits.paused

    def forget_prompts(self) -> None:
        """Empty the streams in which nothing runs."""
        self._slots.forget_idle()

    def interrupt(self, number: int) -> None:
        """Abort the running pass if it reads this question's prompt. From any thread."""
        if number in self._reading_now:
            self._passes.stop_pass()

    def estimate(self, sequence: Sequence) -> tuple[int, float]:
        """How many questions must end before this one begins, and in how many seconds its answer may be there.

        From any thread: it reads copies, and an estimate may be a step old.
        """
        rates = self.counters.rates
        ahead = (*tuple(self._waiting.values()), *tuple(self._announced.values()))
        load_s = 0.0
        for other in (*ahead, *tuple(self._running.values())):
            write = min(other.room, int(rates.answer_tokens)) - other.written
            load_s += rates.work_s(read=max(0, other.prompt_tokens - other.past), write=max(1, write))
        read = sequence.prompt_tokens - self._known(sequence)
        own_s = rates.work_s(read=read, write=min(sequence.room, int(rates.answer_tokens)))
        in_line = max(0, len(ahead) + len(self._running) + 1 - self.slots)
        return in_line, (load_s / self.slots + own_s) / self._pace.share

    def _known(self, sequence: Sequence, without: Container[int] = ()) -> int:
        """How many tokens of a prompt need not be computed, as things stand; some streams left out."""
        if not sequence.order.reuse:
            return 0
        stored = common(sequence.stored.tokens, sequence.tokens) if sequence.stored is not None else 0
        return max(stored, self._slots.longest(sequence.tokens, without))

    def outlook(self, sequence: Sequence, now: float) -> Refusal | None:
        """The refusal of a question that cannot begin its answer before its deadline; None where it may.

        From any thread. It errs on the question's side: answers ahead may be short, prompts in the cache.
        """
        deadline, rates = sequence.order.deadline, self.counters.rates
        if deadline is None or self.counters.steps < MEASURED_PASSES or not (rates.step_s and rates.read_s):
            return None
        line = (*tuple(self._waiting.values()), *tuple(self._announced.values()))
        before = [s for s in line if self._goes_before(s, sequence)]
        running = tuple(self._running.values())
        wait_s = 0.0
        if len(running) + len(before) >= self.slots:
            for other in (*running, *before):
                write = min(other.room, int(rates.answer_tokens)) - other.written
                wait_s += rates.work_s(read=max(0, other.prompt_tokens - other.past), write=max(1, write))
        known = self.holds(sequence.tokens)
        if sequence.stored is not None:
            known = max(known, len(sequence.stored.tokens))
        read_s = rates.work_s(read=max(1, sequence.prompt_tokens - known), write=1)
        wait_s, read_s = wait_s / self.slots / self._pace.share, read_s / self._pace.share
        left_s = deadline - now
        if not hopeless(left_s, wait_s=wait_s, read_s=read_s):
            return None
        details = {
            "eta_ms": round(1000 * self.estimate(sequence)[1]),
            "deadline_ms": max(0, round(1000 * left_s)),
        }
        if hopeless(left_s, wait_s=0.0, read_s=read_s):
            return Refusal(
                "expired",
                f"reading {sequence.prompt_tokens} tokens takes longer than the deadline leaves; allow a longer "
                "deadline_ms, or ask with fewer tokens",
                details=details,
            )
        return Refusal(
            "busy",
            f"{len(running) + len(before)} questions go first, and the deadline passes before this one's turn; ask "
            "another node, or allow a longer deadline_ms",
            retry_after_ms=max(1, round(1000 * wait_s)),
            details=details,
        )

    def _goes_before(self, other: Sequence, sequence: Sequence) -> bool:
        rank, own = RANK[other.order.priority], RANK[sequence.order.priority]
        if rank != own:
            return rank < own
        served = self._ledger.served
        return served.get(other.order.client, 0.0) <= served.get(sequence.order.client, 0.0)

    # at rest --------------------------------------------------------------------------------------------

    def holds(self, tokens: list[int]) -> int:
        """How many tokens of a prompt stand in the cache. From any thread, where it may be a step old."""
        return self._slots.longest(tokens)

    def worthwhile(self, *, talks: bool) -> list[tuple[int, list[int]]]:
        """What may well be wanted again, see `Slots.worthwhile`."""
        return self._slots.worthwhile(talks=talks)

    def state(self, index: int, count: int) -> bytearray | None:
        """The state of a stream at rest with its first `count` tokens in it."""
        return self._slots.state(index, count)

    # the step -------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Run one pass over everything that is due.

        Returns:
            False when there was nothing to do, or nothing yet: paused, or in a rest (`rest_s`).

        Raises:
            EngineError: llama.cpp failed in a way that another pass will not mend.
        """
        self._passes.stop_pass(False)
        now = self._clock()
        self._expire(now)
        if not self.paused:
            self._close_up()
            self._admit(now)
        self._flush()  # before the pass: should it crash the process, it must be known who ran
        shares = [] if self.paused or self._pace.rest_s(now) > 0 else self._plan()
        if not shares:
            return False
        rows, read = self._fill(shares)
        begun = self._clock()
        reading = any(count > 1 for _, count, _ in rows)
        code = self._passes.decode(self._prefill_threads if reading else self._decode_threads)
        self._reading_now = frozenset()
        ended = self._clock()
        self._pace.worked(begun, ended)
        if code == ABORTED:
            self.counters.aborted += 1
            for sequence, _, _ in rows:
                self._slots.restore(sequence.slot)
                sequence.past = self._slots.length(sequence.slot)
            return True
        if code != 0:
            raise EngineError(f"llama_decode returned {code} for {sum(count for _, count, _ in rows)} rows")
        written = sum(not sequence.reading for sequence, _, _ in rows)
        self.counters.steps += 1
        self.counters.read += read
        self.counters.rates.passed(ended - begun, written=written, read=read)
        for sequence, count, row in rows:
            self._slots.extend(sequence.slot, sequence.tokens[sequence.past : sequence.past + count])
            if sequence.past >= sequence.prompt_tokens:
                self._ledger.add(sequence.order.client, count)
            sequence.past += count
            if row is not None:
                try:
                    self._write(sequence, row, ended)
                except OutgrownError as error:
                    self._refuse_outgrown(sequence, error)
        self._flush()
        return True

    def _expire(self, now: float) -> None:
        for sequence in [*self._running.values(), *self._waiting.values()]:
            deadline = sequence.order.deadline
            if deadline is None or now < deadline:
                continue
            if sequence.slot == NO_SLOT:
                del self._waiting[sequence.number]
                self._reports.append(
                    Refused(
                        sequence.number, "expired", "the deadline passed before the question's turn came", {}
                    )
                )
            else:
                self._end(sequence, "deadline", now)

    def _close_up(self) -> None:
        """Bring running answers side by side in the cache, where enough is still to come to be worth it."""
        if len(self._running) < 2:  # noqa: PLR2004 - one alone has no neighbour
            return
        if sorted(sequence.room for sequence in self._running.values())[-2] < MOVE_MIN:
            return
        moved = self._slots.close_up()
        for sequence in self._running.values():
            if sequence.slot in moved:
                sequence.slot = moved[sequence.slot]
                sequence.past = self._slots.length(sequence.slot)

    def _admit(self, now: float) -> None:
        held_off: list[Sequence] = []
        while self._slots.free > len(held_off) and len(self._running) + len(held_off) < self.slots:
            behind = {sequence.order.client for sequence in held_off}  # a client's order stays as it is
            line = [
                Waiting(s.number, s.order.client, s.order.priority)
                for s in self._waiting.values()
                if s.order.client not in behind
            ]
            chosen = choose(line, self._ledger.served)
            if chosen is None:
                return
            if self._awaits(self._waiting[chosen.number]):
                held_off.append(self._waiting[chosen.number])  # its place is kept
                continue
            sequence = self._waiting.pop(chosen.number)
            order = sequence.order
            sequence.slot, sequence.past = self._slots.take(
                sequence.tokens, reuse=order.reuse, talk=order.session, stored=sequence.stored
            )
            sequence.stored = None
            sequence.cached = sequence.past
            # Charged now, not as it is read: else one client could take every slot that comes free at once.
            self._ledger.add(order.client, sequence.prompt_tokens - sequence.cached)
            sequence.started = now
            sequence.chooser = self._make_chooser(
                temperature=TEMPERATURE if order.temperature is None else order.temperature,
                top_p=TOP_P if order.top_p is None else order.top_p,
                seed=secrets.randbits(31) if order.seed is None else order.seed,
            )
            self._running[sequence.number] = sequence
            self._reports.append(Started(sequence.number))

    def _awaits(self, sequence: Sequence) -> bool:
        """Whether a running question is just reading the same beginning: it is computed once, then copied."""
        reading = [s for s in self._running.values() if s.past < s.prompt_tokens]
        if not reading or not sequence.order.reuse:
            return False
        known = self._known(sequence, {other.slot for other in reading})
        shared = [(common(s.tokens[: s.prompt_tokens], sequence.tokens), s.past) for s in reading]
        return any(past < count >= known + COPY_MIN for count, past in shared)

    def _plan(self) -> list[tuple[Sequence, int]]:
        rates = self.counters.rates
        # A slow pace reads prompts in smaller passes as well: short bursts of heat, and short rests.
        most = self._passes.batch_tokens
        shares = plan(
            [Need(s.number, s.rows, s.reading) for s in self._running.values()],
            batch_tokens=min(most, max(self._slot_count + 1, CHUNK_MIN, int(most * self._pace.share))),
            chunk=chunk_rows(rates.step_s, rates.read_s, batch_tokens=self._passes.batch_tokens),
        )
        # llama.cpp computes streams together only in the order of their numbers, see `closing_up`.
        chosen = [(self._running[share.slot], share.rows) for share in shares]
        return sorted(chosen, key=lambda each: each[0].slot)

    def _fill(self, shares: list[tuple[Sequence, int]]) -> tuple[list[tuple[Sequence, int, int | None]], int]:
        """Put the rows into the batch; returns for each sequence its count and its row with logits."""
        rows: list[tuple[Sequence, int, int | None]] = []
        read = 0
        for sequence, count in shares:
            row = None
            last = len(sequence.tokens) - 1
            for position in range(sequence.past, sequence.past + count):
                at = self._passes.add(
                    sequence.tokens[position], position, sequence.slot, logits=position == last
                )
                if position == last:
                    row = at
            read += count if sequence.reading else 0
            rows.append((sequence, count, row))
        if read >= LONG_PASS_ROWS:
            self._reading_now = frozenset(s.number for s, count, _ in rows if count > 1)
        return rows, read

    def _write(self, sequence: Sequence, row: int, now: float) -> None:
        """Choose the next token of a sequence whose last token was just computed."""
        if sequence.chooser is None:
            raise EngineError("a running sequence has no sampler")
        token = self._choose(sequence, sequence.chooser, row)
        if sequence.written == 0:
            sequence.first = now
        if self._vocabulary.ends_answer(token):
            if sequence.text.thinking and not sequence.closed and sequence.room > len(sequence.closing):
                self._close_thinking(sequence, now)  # it stopped inside its thinking: an answer must come
            else:
                self._end(sequence, "stop", now)
            return
        data = self._vocabulary.piece(token)
        if (
            self._vocabulary.is_control(token)
            and not data.strip().endswith(b"think>")
            and (sequence.form is None or sequence.text.thinking)  # some models write calls with such tokens
        ):
            data = b""
        pieces = sequence.write(token, data)
        sequence.room -= 1
        self.counters.written += 1
        self._reports.extend(sequence.deltas(now, pieces))
        constraint = None if sequence.text.thinking else sequence.constraint
        if sequence.text.stopped or (constraint is not None and constraint.closed):
            self._end(sequence, "stop", now)
        elif sequence.room <= 0:
            self._end(sequence, "length", now)
        elif constraint is not None:
            self._force(sequence, constraint, now)
        elif sequence.text.thinking and not sequence.closed and sequence.reasoning_tokens >= sequence.budget:
            self._close_thinking(sequence, now)

    def _choose(self, sequence: Sequence, chooser: Chooser, row: int) -> int:
        """The next token; where the answer is held to a schema, one that the schema allows.

        The free choice is tried first: it nearly always fits, and a mask over the vocabulary costs more.
        """
        token = chooser.choose(row)
        constraint = sequence.constraint
        if constraint is None or sequence.text.thinking:
            return token
        if not constraint.allows(token):
            token = chooser.choose_among(row, constraint.mask())
        if not constraint.take(token):
            raise EngineError("a token that the schema allows does not fit it")
        return token

    def _force(self, sequence: Sequence, constraint: Constraint, now: float) -> None:
        """Append what the schema leaves no choice about: one pass reads it all, instead of one for each token."""
        forced = constraint.forced()
        if len(forced) > sequence.room:  # the constraint counts them as written: only here is it seen
            self._refuse_broken(sequence, "length")
            return
        for token in forced:
            self._reports.extend(sequence.deltas(now, sequence.write(token, self._vocabulary.piece(token))))
        sequence.room -= len(forced)
        self.counters.written += len(forced)
        if constraint.closed:
            self._end(sequence, "stop", now)
        elif sequence.room <= 0:
            self._end(sequence, "length", now)

    def _close_thinking(self, sequence: Sequence, now: float) -> None:
        """Write the end of the thinking for the model; it goes on with the answer, where one has room."""
        if sequence.room <= len(sequence.closing):
            self._end(sequence, "length", now)
            return
        sequence.closed = True
        sequence.tokens.extend(sequence.closing)
        sequence.room -= len(sequence.closing)
        sequence.reasoning_tokens += len(sequence.closing)
        data = b"".join(map(self._vocabulary.piece, sequence.closing))
        self._reports.extend(sequence.deltas(now, sequence.show(data)))

    def _end(self, sequence: Sequence, outcome: FinishReason | Literal["cancelled"], now: float) -> None:
        if outcome != "cancelled" and sequence.broken:
            self._refuse_broken(sequence, outcome)
            return
        self._forget(sequence)
        self._reports.extend(sequence.deltas(now, sequence.finish_text(cut=outcome != "stop")))
        if outcome != "cancelled" and sequence.text.calling:
            outcome = "tool_calls"
        self._reports.extend(sequence.piece(kind, text) for kind, text in sequence.chunker.flush(now))
        if outcome in {"stop", "length", "tool_calls"}:
            self.counters.rates.answered(sequence.written)
        self._reports.append(sequence.ending(outcome, now, self._vocabulary.piece))

    def _refuse_broken(self, sequence: Sequence, outcome: str) -> None:
        """Half a JSON value is of no use to a device: say what would make it whole."""
        self._forget(sequence)
        mend = {"length": "allow more max_tokens", "deadline": "allow a longer deadline_ms"}.get(
            outcome, "leave out stop"
        )
        self._reports.append(
            Refused(
                sequence.number,
                "expired" if outcome == "deadline" else "too_long",
                f"the {'tool call' if sequence.text.calling else 'answer'} was not complete after "
                f"{sequence.written} tokens; {mend}, or ask for a smaller schema",
                {
                    "completion_tokens": sequence.written,
                    "prompt_tokens": sequence.prompt_tokens,
                    "context": sequence.context,
                },
            )
        )

    def _refuse_outgrown(self, sequence: Sequence, error: OutgrownError) -> None:
        self._forget(sequence)
        message = f"the schema became too complex in the midst of the answer ({error}); simplify it"
        self._reports.append(Refused(sequence.number, "bad_request", message, {}))

    def _forget(self, sequence: Sequence) -> None:
        self._waiting.pop(sequence.number, None)
        if self._running.pop(sequence.number, None) is not None:
            self._slots.release(sequence.slot)
        if sequence.chooser is not None:
            sequence.chooser.close()
            sequence.chooser = None

    def _flush(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._emit(reports)
