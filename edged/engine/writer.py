"""Writes answers: from a row of logits to the next token, its text, and the end of the answer.

Belongs to the model thread. It knows one sequence at a time; who runs beside it, and what becomes of a slot, is the
scheduler's to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from edged.core.rates import Counters
from edged.core.reply import FinishReason
from edged.engine.messages import Refused, Report
from edged.engine.ports import Chooser, Vocabulary
from edged.engine.sequence import Sequence
from edged.errors import EngineError, OutgrownError, Refusal

if TYPE_CHECKING:
    from edged.engine.constraint import Constraint


class Writer:
    """Writes all answers, token by token.

    Args:
        vocabulary: the model's.
        counters: count what is written.
        reports: takes what is to be told, in order.
        over: told of a sequence that has come to its end, before its last words are reported.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        counters: Counters,
        reports: list[Report],
        over: Callable[[Sequence], None],
    ) -> None:
        self._vocabulary = vocabulary
        self._counters = counters
        self._reports = reports
        self._over = over

    def write(self, sequence: Sequence, row: int, now: float) -> None:
        """Choose the next token of a sequence whose last token was just computed."""
        try:
            self._write(sequence, row, now)
        except OutgrownError as error:
            self._over(sequence)
            message = f"the answer cannot go on as the schema wants it ({error}); simplify the schema"
            self._reports.append(Refused(sequence.number, "bad_request", message, {}))

    def _write(self, sequence: Sequence, row: int, now: float) -> None:
        if sequence.chooser is None:
            raise EngineError("a running sequence has no sampler")
        token = self._choose(sequence, sequence.chooser, row)
        if sequence.written == 0:
            sequence.first = now
        if self._vocabulary.ends_answer(token):
            if sequence.text.thinking:
                self.close_thinking(sequence, now)  # it stopped inside its thinking: an answer must come
            else:
                self.end(sequence, "stop", now)
            return
        data = self._vocabulary.piece(token)
        if (
            self._vocabulary.is_control(token)
            and not (sequence.text.would_open(data) or sequence.text.would_close(data))
            and (sequence.form is None or sequence.text.thinking)  # some models write calls with such tokens
        ):
            data = b""
        pieces = sequence.write(token, data)
        sequence.room -= 1
        self._reports.extend(sequence.deltas(now, pieces))
        constraint = None if sequence.text.thinking else sequence.constraint
        if sequence.text.stopped or (constraint is not None and constraint.closed):
            self.end(sequence, "stop", now)
        elif sequence.room <= 0:
            self.end(sequence, "length", now)
        elif constraint is not None:
            self._force(sequence, constraint, now)
        elif sequence.text.thinking and sequence.reasoning_tokens >= sequence.budget:
            self.close_thinking(sequence, now)

    def _choose(self, sequence: Sequence, chooser: Chooser, row: int) -> int:
        """The next token; where the answer is held to a schema, one that the schema allows.

        The free choice is tried first: it nearly always fits, and a mask over the vocabulary costs more.
        """
        token = chooser.choose(row)
        constraint = sequence.constraint
        if constraint is None or sequence.text.thinking:
            return token
        if sequence.budget > 0 and sequence.text.would_open(self._vocabulary.piece(token)):
            return token  # Qwen3 thinks so, for one: the form is the answer's
        full = sequence.numerals.full
        if (full and self._is_digit(token)) or not constraint.allows(token):
            mask = constraint.mask()
            token = chooser.choose_among(row, self._without_digits(mask) if full else mask)
        if not constraint.take(token):
            raise EngineError("a token that the schema allows does not fit it")
        return token

    def _is_digit(self, token: int) -> bool:
        return self._vocabulary.piece(token)[:1].isdigit()

    def _without_digits(self, mask: bytes) -> bytes:
        """The mask where a number has digits enough: without those that would go on with it, unless it must."""
        left = bytearray(mask)
        for at, byte in enumerate(mask):
            for bit in range(8) if byte else ():
                if byte >> bit & 1 and self._is_digit(8 * at + bit):
                    left[at] &= ~(1 << bit)
        return bytes(left) if any(left) else mask

    def _force(self, sequence: Sequence, constraint: Constraint, now: float) -> None:
        """Append what the schema leaves no choice about: one pass reads it all, instead of one for each token."""
        forced = constraint.forced()
        if len(forced) > sequence.room:  # the constraint counts them as written: only here is it seen
            self._refuse_broken(sequence, "length")
            return
        for token in forced:
            self._reports.extend(sequence.deltas(now, sequence.write(token, self._vocabulary.piece(token))))
        sequence.room -= len(forced)
        if constraint.closed:
            self.end(sequence, "stop", now)
        elif sequence.room <= 0:
            self.end(sequence, "length", now)

    def close_thinking(self, sequence: Sequence, now: float) -> None:
        """Write the end of the thinking for the model; it goes on with the answer, where one has room."""
        if sequence.room <= len(sequence.closing):
            self.end(sequence, "length", now)
            return
        sequence.closed = True
        sequence.tokens.extend(sequence.closing)
        sequence.room -= len(sequence.closing)
        sequence.reasoning_tokens += len(sequence.closing)
        sequence.text.break_off()
        data = b"".join(map(self._vocabulary.piece, sequence.closing))
        self._reports.extend(sequence.deltas(now, sequence.show(data)))

    def end(self, sequence: Sequence, outcome: FinishReason | Literal["cancelled"], now: float) -> None:
        """The answer is over: tell what there is of it, or that half of it is of no use."""
        if outcome != "cancelled" and (sequence.broken or self._within_number(sequence, outcome)):
            self._refuse_broken(sequence, outcome)
            return
        self._over(sequence)
        self._reports.extend(sequence.deltas(now, sequence.finish_text(cut=outcome != "stop")))
        if outcome != "cancelled" and sequence.text.calling:
            outcome = "tool_calls"
        self._reports.extend(sequence.piece(kind, text) for kind, text in sequence.chunker.flush(now))
        if outcome in {"stop", "length", "tool_calls"}:
            self._counters.rates.answered(sequence.written)
        try:
            self._reports.append(sequence.ending(outcome, now, self._vocabulary.piece))
        except Refusal as refusal:
            self._reports.append(Refused(sequence.number, refusal.code, refusal.message, {}))

    def _within_number(self, sequence: Sequence, outcome: str) -> bool:
        """Whether an answer that was cut off may have lost digits: 12 of 1234 is whole to a schema."""
        constraint = sequence.constraint
        if constraint is None or sequence.order.schema is None or outcome not in {"length", "deadline"}:
            return False
        last = self._vocabulary.piece(sequence.tokens[-1])
        return last[-1:].isdigit()

    def _refuse_broken(self, sequence: Sequence, outcome: str) -> None:
        """Half a JSON value is of no use to a device: say what would make it whole."""
        self._over(sequence)
        most, spent = sequence.order.max_tokens, sequence.order.spent
        written = spent + sequence.written
        left = sequence.room if outcome == "length" else 0  # what is forced at once may need more than that
        bound = most is not None and sequence.prompt_tokens + most < sequence.context
        mend = {
            "length": "allow more max_tokens" if bound else "the context holds no more: shorten the prompt",
            "deadline": "allow a longer deadline_ms",
        }.get(outcome, "leave out stop")
        details: dict[str, Any] = {
            "completion_tokens": written,
            "prompt_tokens": sequence.prompt_tokens,
            "context": sequence.context,
        }
        if outcome == "length" and most is not None and bound:
            details["max_tokens"] = spent + most
        elif outcome == "stop":
            details["stop"] = list(sequence.order.stop)
        self._reports.append(
            Refused(
                sequence.number,
                "expired" if outcome == "deadline" else "too_long",
                f"the {'tool call' if sequence.text.calling else 'answer'} was not complete after "
                f"{written + left} tokens; {mend}, or ask for a smaller schema",
                details,
            )
        )
