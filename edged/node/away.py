"""Questions that are answered elsewhere: what a larger server says, told to the desk as if the engine had said it.

Belongs to the dispatcher thread. It knows the policy, whether the server is well, and the texts of what runs there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from edged.core.answer_text import AnswerText, Part
from edged.core.breaker import Breaker
from edged.core.question import Message, Question
from edged.core.reply import FinishReason, Timings, Usage
from edged.core.thinking import THINK
from edged.core.upstream import Ask, Begun, Broke, Event, Over, Policy, Said, Why, request
from edged.engine.messages import Ended, Piece, Started
from edged.engine.messages import Said as Kept

log = structlog.get_logger()


class Server(Protocol):
    """`edged.adapters.upstream.Upstream`, as far as it is needed here."""

    def ask(self, ask: Ask) -> None:
        """Send a question."""

    def cancel(self, number: int) -> None:
        """Give a question up."""


class Judge(Protocol):
    """`edged.adapters.judge`: whether answers follow schemas."""

    def takes(self, schema: str) -> bool:
        """Whether answers can be held against this schema here."""

    def fault(self, schema: str, text: str) -> str | None:
        """What is wrong with an answer; None where nothing is."""


@dataclass(slots=True)
class Run:
    """One question there. Its text is split anew, for some servers leave the thinking in it.

    Attributes:
        inline: the text so far, with the thinking between tags.
        told: the thinking is over, and so is what `inline` takes of it.
    """

    question: Question
    sent: float
    text: AnswerText = field(default_factory=lambda: AnswerText(tags=THINK))
    reasoning: list[str] = field(default_factory=list)
    inline: str = ""
    told: bool = False
    begun: float | None = None
    first: float | None = None

    @property
    def shown(self) -> str:
        """The text as its device wants it."""
        return self.inline if self.question.reasoning_mode == "inline" else self.text.text

    def show(self, pieces: list[Part]) -> list[Part]:
        """What its device is to see of these pieces."""
        match self.question.reasoning_mode:
            case "separate":
                return pieces
            case "hide":
                return [piece for piece in pieces if piece[0] == "text"]
        before = len(self.inline)
        for kind, text in pieces:
            if kind == "text":
                self.inline += text if self.told or not self.inline else f"{THINK.close}\n\n{text}"
                self.told = True
            elif not self.told:
                self.inline += text if self.inline else THINK.open + text
        new = self.inline[before:]
        return [("text", new)] if new else []


@dataclass(slots=True)
class Away:
    """The larger server, as the desk knows it.

    Attributes:
        clock: monotonic seconds.
        breaker: for all questions: whether the server is well.
        shapes: for questions with a `response_format` alone: whether it does what they ask for.
        system_prompt: the node's own, for questions that bring none; may be empty.
        asked, done, cancelled, failed: questions, since the start.
        busy_s: from sending to the end, of all that are done together.
        reason: of the latest failure; empty after a success.
    """

    server: Server
    policy: Policy
    clock: Callable[[], float]
    judge: Judge
    breaker: Breaker = field(default_factory=Breaker)
    shapes: Breaker = field(default_factory=Breaker)
    system_prompt: str = ""
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
        why = self.policy.why(question, level)
        return why if why is not None and self._passes(question) else None

    def takes(self, why: Why, question: Question) -> bool:
        """Whether this question may go there for this reason now."""
        return why in self.policy.when and self._passes(question)

    def _passes(self, question: Question) -> bool:
        now, schema = self.clock(), question.schema
        if not self.breaker.allows(now):
            return False
        return schema is None or (self.shapes.allows(now) and self.judge.takes(schema))

    def excuse(self, question: Question, broke: Broke | None) -> tuple[str, int | None]:
        """Why a question has no answer from there, and when asking again has a chance: None where it has none.

        Args:
            question: what was asked.
            broke: how that ended; None where it was not sent.
        """
        host = self.policy.host
        if broke is not None:
            words = f"the larger server {host} did not answer: {broke.reason}"
            return words, None if broke.ours or broke.cramped else self._retry_after_ms(question)
        if question.schema is not None and not self.judge.takes(question.schema):
            return f"answers of the larger server {host} cannot be held to its response_format", None
        return f"the larger server {host} is not well", self._retry_after_ms(question)

    def _retry_after_ms(self, question: Question) -> int:
        """When the server, if it is not well, is asked again."""
        now = self.clock()
        waits_s = [self.breaker.retry_after_s(now)]
        if question.schema is not None:
            waits_s.append(self.shapes.retry_after_s(now))
        return round(1000 * max(waits_s))

    def send(
        self, number: int, question: Question, messages: tuple[Message, ...], deadline: float | None
    ) -> None:
        """Ask there."""
        now = self.clock()
        self.breaker = self.breaker.entered(number)
        shaped = question.schema is not None
        if shaped:
            self.shapes = self.shapes.entered(number)
        self.asked += 1
        self._runs[number] = Run(question, now)
        if self.system_prompt and messages[0].role != "system":
            messages = (Message("system", self.system_prompt), *messages)
        left_s = None if deadline is None else max(0.05, deadline - now)
        self.server.ask(Ask(number, request(question, messages, self.policy.model), left_s, shaped))

    def cancel(self, number: int) -> str:
        """Give it up; returns the text so far."""
        self.breaker = self.breaker.left(number)
        self.server.cancel(number)
        self.cancelled += 1
        run = self._runs.pop(number, None)
        if run is None:
            return ""
        if run.question.schema is not None:
            self.shapes = self.shapes.left(number)
        return run.shown

    def told(self, event: Event) -> list[Started | Piece | Ended | Broke]:
        """What an event of the server means to the desk, in the engine's words; nothing for one given up."""
        run = self._runs.get(event.number)
        if run is None:
            return []
        match event:
            case Begun(number):
                run.begun = self.clock()
                self.breaker = self.breaker.begun(number)
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
            pieces: list[Part] = [("reasoning", text)]
        else:
            pieces = run.text.feed(text.encode())
        return self._pieces(number, run, pieces)

    def _pieces(self, number: int, run: Run, pieces: list[Part]) -> list[Started | Piece | Ended | Broke]:
        shown = run.show(pieces)
        return [Piece(number, kind, text) for kind, text in shown] if run.question.stream else []

    def _over(
        self, number: int, run: Run, outcome: FinishReason, usage: Usage
    ) -> list[Started | Piece | Ended | Broke]:
        rest = self._pieces(number, run, run.text.finish())
        if run.question.schema is not None:
            misfit = self._misfit(number, run, run.question.schema, outcome)
            if misfit is not None:
                return [self._broke(misfit)]
            self.shapes = self.shapes.succeeded()
        del self._runs[number]
        self.breaker = self.breaker.succeeded()
        now = self.clock()
        self.service_s += 0.2 * (now - run.sent - self.service_s)
        self.done, self.busy_s, self.reason = self.done + 1, self.busy_s + now - run.sent, ""
        begun = run.begun or now
        first = run.first or now
        decode_s = max(1e-3, now - first)
        separate = run.question.reasoning_mode == "separate"
        ended = Ended(
            number=number,
            outcome=outcome,
            text=run.shown,
            reasoning="".join(run.reasoning) + run.text.reasoning if separate else "",
            usage=usage,
            timings=Timings(
                queue_ms=round(1000 * (begun - run.sent)),
                prefill_ms=round(1000 * (first - begun)),
                decode_ms=round(1000 * decode_s),
                decode_tokens_per_s=round(usage.completion_tokens / decode_s, 2),
            ),
            said=None if run.question.session is None else Kept(run.text.text, ()),
        )
        return [*rest, ended]

    def _misfit(self, number: int, run: Run, schema: str, outcome: FinishReason) -> Broke | None:
        """Why an answer is not the value that was asked for; None where it is.

        What the question's own time, tokens or stop strings have cut says nothing of the server. A number without
        its last digits is none: 8 of 85 fits as well.
        """
        text, limit = run.text.text, run.question.max_tokens
        fault = self.judge.fault(schema, text)
        if outcome != "stop" and (fault is not None or text.rstrip()[-1:].isdigit()):
            if outcome == "deadline":
                return Broke(number, "the deadline passed", cramped=True)
            if limit is not None:
                why = f"its answer was not complete after {limit} tokens, allow more max_tokens"
                return Broke(number, why, cramped=True)
            fault = fault or "its answer was not complete"
        elif fault is not None and run.question.stop:
            return Broke(number, f"{fault}, leave out stop", cramped=True)
        return None if fault is None else Broke(number, fault, ours=True)

    def _broke(self, event: Broke) -> Broke:
        now, number = self.clock(), event.number
        run = self._runs.pop(number)
        self.failed += 1
        self.reason = event.reason
        own = event.ours or event.cramped
        self.breaker = self.breaker.left(number) if own else self.breaker.failed(number, now, event.wait_s)
        if run.question.schema is not None:
            self.shapes = self.shapes.failed(number, now) if event.ours else self.shapes.left(number)
        log.warning(
            "upstream_failed",
            host=self.policy.host,
            reason=event.reason,
            breaker=self.breaker.state,
            shapes=self.shapes.state,
        )
        return event

    @property
    def relieves(self) -> bool:
        """Whether what this board is too hot for is answered there: the server is well, as far as is known."""
        return "hot" in self.policy.when and self.breaker.state == "closed"

    def news(self) -> dict[str, Any]:
        """For health."""
        told: dict[str, Any] = {
            "state": self.breaker.state,
            "shapes": self.shapes.state,
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
