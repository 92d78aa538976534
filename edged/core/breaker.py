"""When a server that failed is asked again: a circuit breaker as a value. Pure; the present is passed in.

Closed: all may pass. After `FAILURES` in a row it opens, and nobody passes until the pause is over. Then one may
try: once it is being answered the others may follow; if it fails the pause doubles. A server that says itself how
long it wants to be left alone is left alone at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

FAILURES = 3
PAUSE_S, PAUSE_MAX_S = 10.0, 300.0

State = Literal["closed", "open", "probing"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state.

    Attributes:
        failures: in a row.
        until: monotonic seconds when the pause ends; None while closed.
        pause_s: length of the pause.
        trying: number of the question that tries; None while none does.
    """

    failures: int = 0
    until: float | None = None
    pause_s: float = PAUSE_S
    trying: int | None = None

    @property
    def state(self) -> State:
        """In one word, for health."""
        if self.until is None:
            return "closed"
        return "open" if self.trying is None else "probing"

    def allows(self, now: float) -> bool:
        """Whether somebody may pass now."""
        return self.until is None or (now >= self.until and self.trying is None)

    def retry_after_s(self, now: float) -> float:
        """How long to wait before asking has a chance again."""
        return PAUSE_S if self.until is None else max(1.0, self.until - now)

    def entered(self, number: int) -> Self:
        """A question passes; only while `allows`."""
        return self if self.until is None else replace(self, trying=number)

    def left(self, number: int) -> Self:
        """It learned nothing of the server, by a cancel or by its own fault."""
        return replace(self, trying=None) if self.trying == number else self

    def begun(self, number: int) -> Self:
        """The server begins to answer: others wait no longer for the end of that, but one failure opens again."""
        if self.until is None or self.trying != number:
            return self
        return type(self)(FAILURES - 1, pause_s=min(PAUSE_MAX_S, 2 * self.pause_s))

    def succeeded(self) -> Self:
        """The server answered."""
        return type(self)()

    def failed(self, number: int, now: float, wait_s: float | None = None) -> Self:
        """The server did not answer this question, and told to come again in `wait_s` seconds, or told nothing."""
        failures = self.failures + 1
        if self.until is not None and self.trying != number:  # passed before it opened
            return self
        if wait_s is not None:
            return type(self)(failures, now + min(PAUSE_MAX_S, max(1.0, wait_s)), self.pause_s)
        if self.until is not None:
            pause_s = min(PAUSE_MAX_S, 2 * self.pause_s)
            return type(self)(failures, now + pause_s, pause_s)
        if failures >= FAILURES:
            return type(self)(failures, now + self.pause_s, self.pause_s)
        return replace(self, failures=failures)
