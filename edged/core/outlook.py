"""When the answer to a question may be there, and whether it is kinder to refuse it at once. Pure.

Expected is an average answer of everybody, at the measured rates; all of it errs on the question's side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edged.core.rates import Rates, hopeless
from edged.errors import Refusal


@dataclass(frozen=True, slots=True)
class Left:
    """What one question has still before it.

    Attributes:
        read: tokens of its prompt that are to be computed.
        room: tokens that it may still write.
        written: tokens that it has written.
    """

    read: int
    room: int
    written: int = 0

    def read_s(self, rates: Rates) -> float:
        """Seconds to read what is left of its prompt."""
        return rates.work_s(read=max(0, self.read), write=0)

    def write_s(self, rates: Rates) -> float:
        """Seconds to write an average answer, or what is left of one, alone."""
        write = min(self.room, max(1, int(rates.answer_tokens) - self.written))
        return rates.work_s(read=0, write=write)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the engine can do now: measured `rates`, `slots` side by side, passes in a `share` of the time."""

    rates: Rates
    slots: int
    share: float

    def line_s(self, ahead: Iterable[Left]) -> float:
        """Seconds until these are done: answers are written side by side, prompts read one after the other."""
        rates, each = self.rates, [*ahead]
        read_s = sum(left.read_s(rates) for left in each)
        return (read_s + sum(left.write_s(rates) for left in each) / self.slots) / self.share

    def eta_s(self, ahead: Iterable[Left], own: Left) -> float:
        """Seconds until a question behind these is answered."""
        return self.line_s(ahead) + (own.read_s(self.rates) + own.write_s(self.rates)) / self.share

    def refusal(self, ahead: Sequence[Left], own: Left, prompt_tokens: int, left_s: float) -> Refusal | None:
        """The refusal of a question that cannot begin its answer in time; None where it may.

        Args:
            ahead: questions that go first; none while a slot is free.
            own: its own work.
            prompt_tokens: for the sentence.
            left_s: until its deadline.
        """
        wait_s = self.line_s(ahead)
        read_s = self.rates.work_s(read=max(1, own.read), write=1) / self.share
        if not hopeless(left_s, wait_s=wait_s, read_s=read_s):
            return None
        details = {"deadline_ms": max(0, round(1000 * left_s))}
        if hopeless(left_s, wait_s=0.0, read_s=read_s):
            return Refusal(
                "expired",
                f"reading {prompt_tokens} tokens takes longer than the deadline leaves; allow a longer "
                "deadline_ms, or ask with fewer tokens",
                details=details,
            )
        return Refusal(
            "busy",
            f"{len(ahead)} questions go first, and the deadline passes before this one's turn; ask another node, "
            "or allow a longer deadline_ms",
            retry_after_ms=max(1, round(1000 * wait_s)),
            details=details,
        )
