"""Questions that are answered elsewhere: what a larger server says, told to the desk as if the engine had said it.

Belongs to the dispatcher thread. It knows the policy, whether the server is well, and the texts of what runs there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from edged.core.answer_text import AnswerText
from edged.core.breaker import Breaker
from edged.core.question import Message, Question
from edged.core.reply import FinishReason, Timings, Usage, parsed
from edged.core.upstream import Ask, Begun, Broke, Event, Over, Policy, Said, Why, request
from edged.engine.messages import Ended, Piece, Started
from edged.engine.messages import Said as Kept
from edged.errors import Refusal

log = structlog.get_logger()


class Server(Protocol):
    """`edged.adapters.upstream.Upstream`, as far as it is needed here."""

    def ask(self, ask: Ask) -> None:
        """Send a question."""

    def cancel(self, number: int) -> None:
        """Give a question up."""


@dataclass(slots=True)
class Run:
    """One question there. Its text is split anew, for some servers leave the thinking in it."""

    question: Question
    sent: float
    text: AnswerText = field(default_factory=lambda: AnswerText(thinks=True))
    reasoning: list[str] = field(default_factory=list)
    begun: float | None = None
    first: float | None = None


@dataclass(slots=True)
class Away:
    """The larger server, as the desk knows it.

    Attributes:
        clock: monotonic seconds.
        asked, done, cancelled, failed: questions, since the start.
        busy_s: from sending to the end, of all that are done together.
        reason: of the latest failure; empty after a success.
    """

    server: Server
    policy: Policy
    clock: Callable[[], float]
    breaker: Breaker = field(default_factory=Breaker)
    asked: int = 0
    done: int = 0
    cancelled: int = 0
    failed: int = 0
    busy_s: float = 0.0
    reason: str = ""
    service_s: float = 5.0
    _runs: dict[int, Run] = field(default_factory=dict)

    def why(self, question: Question, level: str | None) -> Why | None:
        """Why this question goes there now; None when it does not, or the server is not well."""
        return self.policy.why(question, level) if self.breaker.allows(self.clock()) else None

    def takes(self, why: Why) -> bool:
        """Whether a question may go there for this reason now."""
        return why in self.policy.when and self.breaker.allows(self.clock())

    def retry_after_ms(self) -> int:
        """When asking again has a chance."""
        return round(1000 * self.breaker.retry_after_s(self.clock()))

    def send(
        self, number: int, question: Question, messages: tuple[Message, ...], deadline: float | None
    ) -> None:
        """Ask there."""
        now = self.clock()
        self.breaker = self.breaker.entered()
        self.asked += 1
        self._runs[number] = Run(question, now)
        left_s = None if deadline is None else max(0.05, deadline - now)
        self.server.ask(Ask(number, request(question, messages, self.policy.model), left_s))

    def cancel(self, number: int) -> str:
        """Give it up; returns the text so far."""
        self.breaker = self.breaker.left()
        self.server.cancel(number)
        self.cancelled += 1
        run = self._runs.pop(number, None)
        return "" if run is None else run.text.text

    def told(self, event: Event) -> list[Started | Piece | Ended | Broke]:
        """What an event of the server means to the desk, in the engine's words; nothing for one given up."""
        run = self._runs.get(event.number)
        if run is None:
            return []
        match event:
            case Begun(number):
                run.begun = self.clock()
                return [Started(number)]
            case Said(number, kind, text):
                return self._said(number, run, kind, text)
            case Over(number, outcome, usage):
                return self._over(number, run, outcome, usage)
            case Broke():
                return [self._broke(event)]

    def _said(self, number: int, run: Run, kind: str, text: str) -> list[Started | Piece | Ended | Broke]:
        run.first = run.first or self.clock()
        if kind == "reasoning":
            run.reasoning.append(text)
            pieces: list[Any] = [("reasoning", text)]
        else:
            pieces = list(run.text.feed(text.encode()))
        return self._pieces(number, run, pieces)

    def _pieces(self, number: int, run: Run, pieces: list[Any]) -> list[Started | Piece | Ended | Broke]:
        if not run.question.stream:
            return []
        shown = run.question.reasoning_mode != "hide"
        return [Piece(number, kind, text) for kind, text in pieces if kind == "text" or shown]

    def _over(
        self, number: int, run: Run, outcome: FinishReason, usage: Usage
    ) -> list[Started | Piece | Ended | Broke]:
        rest = self._pieces(number, run, list(run.text.finish()))
        if run.question.schema is not None and not _is_json(run.text.text):
            return [self._broke(Broke(number, "its answer is not the JSON that was asked for", ours=True))]
        del self._runs[number]
        self.breaker = self.breaker.succeeded()
        now = self.clock()
        self.service_s += 0.2 * (now - run.sent - self.service_s)
        self.done, self.busy_s, self.reason = self.done + 1, self.busy_s + now - run.sent, ""
        begun = run.begun or now
        first = run.first or now
        decode_s = max(1e-3, now - first)
        text, shown = run.text.text, run.question.reasoning_mode != "hide"
        ended = Ended(
            number=number,
            outcome=outcome,
            text=text,
            reasoning="".join(run.reasoning) + run.text.reasoning if shown else "",
            usage=usage,
            timings=Timings(
                queue_ms=round(1000 * (begun - run.sent)),
                prefill_ms=round(1000 * (first - begun)),
                decode_ms=round(1000 * decode_s),
                decode_tokens_per_s=round(usage.completion_tokens / decode_s, 2),
            ),
            said=None if run.question.session is None else Kept(text, ()),
        )
        return [*rest, ended]

    def _broke(self, event: Broke) -> Broke:
        del self._runs[event.number]
        self.failed += 1
        self.reason = event.reason
        self.breaker = self.breaker.left() if event.ours else self.breaker.failed(self.clock())
        log.warning("upstream_failed", host=self.policy.host, reason=event.reason, breaker=self.breaker.state)
        return event

    @property
    def relieves(self) -> bool:
        """Whether what this board is too hot for is answered there: the server is well, as far as is known."""
        return "hot" in self.policy.when and self.breaker.state == "closed"

    def news(self) -> dict[str, Any]:
        """For health."""
        told: dict[str, Any] = {
            "state": self.breaker.state,
            "active": len(self._runs),
            "asked": self.asked,
            "failed": self.failed,
            "done": self.done,
            "cancelled": self.cancelled,
            "busy_s": round(self.busy_s, 3),
        }
        if self.reason:
            told["reason"] = self.reason
        return told


def _is_json(text: str) -> bool:
    """Some servers pass a schema over, or cut the value; that it follows the schema is their word."""
    try:
        parsed(text)
    except Refusal:
        return False
    return True
