"""Measured speeds of the engine and what they promise: seconds a pass, seconds a prompt token, ETAs. Pure."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass, field

WEIGHT = 0.1
"""Share of the newest measurement in a moving average: about the last twenty passes count."""

LATELY = 8
"""Passes of a kind whose median counts where a question would be refused."""

HOPELESS = 0.5
"""A question is refused for its deadline only when this share of the expected time is more than it leaves."""
MEASURED_PASSES = 32
"""Before so many passes the rates are those of the warm-up: no reason to refuse anybody."""


class Rates:
    """Moving averages of the passes so far.

    Attributes:
        step_s: seconds of a pass that only writes; 0.0 before the first.
        read_s: seconds to read one token of a prompt; 0.0 before the first.
        answer_tokens: tokens of an average answer, for ETAs of questions without `max_tokens`.
        reads: passes that told how fast prompts are read.
    """

    def __init__(self) -> None:
        self.step_s = 0.0
        self.read_s = 0.0
        self.answer_tokens = 128.0
        self.reads = 0
        self.written_per_s = 0.0
        self._plain_s = 0.0
        self._alone_s, self._alone = 0.0, False
        # Replaced, never changed: another thread may look.
        self._last_steps_s: tuple[float, ...] = ()
        self._last_reads_s: tuple[float, ...] = ()

    def expect(self, step_s: float, read_s: float) -> None:
        """Begin with figures that were measured before, in place of a few passes' own; they move on from there."""
        self.step_s, self.read_s = step_s, read_s

    def passed(self, seconds: float, *, written: int, read: int) -> None:
        """Count a pass of `written` rows of answers and `read` rows of prompts."""
        if read == 0 and written > 0:
            self._stepped(seconds)
            self._plain_s = _mix(self._plain_s, seconds)
            self.written_per_s = _mix(self.written_per_s, written / seconds if seconds > 0 else 0.0)
        elif read >= 8:  # noqa: PLR2004 - shorter reads are dominated by the weights, as a written token is
            # What the answers in it took, of which passes with prompts have no drafts.
            beside_s = (self._plain_s or self.step_s) if written else 0.0
            read_s = max(0.0, seconds - beside_s) / read
            self.read_s = _mix(self.read_s, read_s)
            self._last_reads_s = _with(self._last_reads_s, read_s)
            self.reads += 1

    def drafted(self, seconds: float, *, answers: int, written: int) -> None:
        """Count a pass that wrote `written` tokens of `answers`, more than one of each where drafts came true."""
        self._stepped(seconds * answers / written)
        self.written_per_s = _mix(self.written_per_s, written / seconds if seconds > 0 else 0.0)

    def alone(self, seconds: float) -> None:
        """Count a pass of one answer alone: what it took, or would have taken, without a draft."""
        self._alone_s, self._alone = _mix(self._alone_s, seconds), True

    def together(self) -> None:
        """Count a pass of anything else: what was alone before it is no measure of what comes after."""
        self._alone_s, self._alone = 0.0, False

    def take_alone(self) -> float:
        """Tokens a second of an answer alone, without drafts, as a calibration measures; 0.0 without a new pass."""
        rate = per_s(self._alone_s) if self._alone else 0.0
        self._alone = False
        return rate

    def cores_changed(self, speed: float) -> None:
        """The cores are `speed` times as fast together from now on, by their number and clock.

        Reading follows at once, for arithmetic bounds it, and the next prompt may come after hours. Writing is
        bound by the memory: how much it changes its next passes tell.
        """
        self.read_s /= speed
        self._last_reads_s = tuple(read_s / speed for read_s in self._last_reads_s)

    def kinder(self) -> Rates:
        """These as a refusal goes by them: what the last passes took, the very last two if these were quicker.

        One pass that waited for weights from the swap, or stood still with the machine, moves an average far; and
        where all is refused there is no other pass to move it back. From any thread.
        """
        kinder = copy.copy(self)
        kinder.step_s = _kindest(self._last_steps_s, self.step_s)
        kinder.read_s = _kindest(self._last_reads_s, self.read_s)
        return kinder

    def _stepped(self, step_s: float) -> None:
        self.step_s = _mix(self.step_s, step_s)
        self._last_steps_s = _with(self._last_steps_s, step_s)

    def answered(self, tokens: int) -> None:
        """Count the length of a finished answer."""
        self.answer_tokens = _mix(self.answer_tokens, float(tokens))

    def work_s(self, *, read: int, write: int) -> float:
        """Seconds that a question of `read` prompt tokens and `write` answer tokens takes alone."""
        return read * self.read_s + write * self.step_s


@dataclass(slots=True)
class Counters:
    """What the engine has done since its start: passes, aborted ones, tokens of prompts and of drafts."""

    steps: int = 0
    aborted: int = 0
    read: int = 0
    drafted: int = 0
    drafted_right: int = 0
    rates: Rates = field(default_factory=Rates)


def hopeless(left_s: float, *, wait_s: float, read_s: float) -> bool:
    """Whether not even the first token can come before a deadline: then it is kinder to say so at once.

    Args:
        left_s: seconds until the deadline.
        wait_s: expected until a slot is free, by answers of average length.
        read_s: to read what of the prompt must be computed.

    An answer ahead may end early, and a rate may be a poor one: only what is off by more than twice is refused.
    """
    return left_s < HOPELESS * (wait_s + read_s)


def per_s(seconds: float) -> float:
    """How many a second, where each takes so long; 0.0 where that is not known."""
    return 1 / seconds if seconds > 0 else 0.0


def _kindest(last: tuple[float, ...], average: float) -> float:
    return min(statistics.median_low(last), max(last[-2:])) if last else average


def _with(last: tuple[float, ...], newest: float) -> tuple[float, ...]:
    return (*last[1 - LATELY :], newest)


def _mix(old: float, new: float) -> float:
    return new if old == 0.0 else old + WEIGHT * (new - old)
