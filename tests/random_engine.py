"""An engine and a larger server that say what is settled, at moments that are drawn by lot.

They stand where the engine process and the server of `[upstream]` do. Orders reach the engine late, what it reports
waits in the node's inbox, and its process ends now and then. `step` lets one thing happen.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from edged.core import upstream
from edged.core.fairness import RANK, Waiting, choose
from edged.core.reply import FinishReason, Timings, Usage
from edged.core.tools import Call
from edged.engine.messages import (
    Cancel,
    Ended,
    ForgetPrompts,
    Join,
    Order,
    Piece,
    Prepared,
    PromptsForgotten,
    Refused,
    Said,
    Started,
    Submit,
)
from edged.errors import Code

TOO_LATE = "too late"
"""What the engine says where it cannot keep a deadline."""
TOO_LATE_CODES: tuple[Code, ...] = ("expired", "busy")
PART = 3
"""Characters of a piece; an answer has three of them."""


def answer_to(texts: Sequence[str]) -> str:
    """What is said to these messages, by both: nine characters that tell them from all others."""
    return "h" + hashlib.sha256(json.dumps(texts).encode()).hexdigest()[: 3 * PART - 1]


def as_json(answer: str) -> str:
    """The same where the question has a schema, of a string."""
    return f'"{answer}"'


@dataclass(frozen=True)
class Up:
    """The engine is ready."""


@dataclass(frozen=True)
class Gone:
    """The engine's process has ended."""


@dataclass
class Run:
    """A question in the engine; `written` pieces of its answer are told."""

    order: Submit
    written: int = 0

    @property
    def answer(self) -> str:
        """All that will be said."""
        return answer_to([message.content or "" for message in self.order.messages])

    @property
    def so_far(self) -> str:
        """What was said."""
        return self.answer[: self.written * PART]

    def ended(
        self, outcome: FinishReason | Literal["cancelled"], text: str, calls: tuple[Call, ...] = ()
    ) -> Ended:
        """The last word on it."""
        said = Said(text, ()) if self.order.session and outcome != "cancelled" else None
        usage = Usage(9, 0, self.written)
        return Ended(self.order.number, outcome, text, "", usage, Timings(), said=said, calls=calls)


class RandomEngine:
    """An engine process, as the daemon finds it.

    Args:
        rng: draws what happens.
        clock: monotonic seconds.
        slots: questions that run at once.
        tell: takes reports, `Up` and `Gone`.
        needs_s: a question with less time left is refused at once.

    Attributes:
        ready: the daemon has heard `Up`, and no `Gone` since.
        alive: there is a process.
        runs: its questions by number.
    """

    def __init__(
        self,
        rng: random.Random,
        clock: Callable[[], float],
        slots: int,
        tell: Callable[[object], None],
        needs_s: float,
    ) -> None:
        self.rng, self.clock, self.slots, self.tell, self.needs_s = rng, clock, slots, tell, needs_s
        self.ready = self.alive = False
        self.runs: dict[int, Run] = {}
        self._running: list[int] = []
        self._orders: deque[Order] = deque()
        self._refused: set[tuple[int, float]] = set()
        self._mourned = True  # the daemon knows that the last process is gone

    def start(self) -> None:
        """Begin a process, where the daemon would."""
        if not self.alive and self._mourned:
            self.alive, self._mourned = True, False
            self.tell(Up())

    def die(self) -> None:
        """End the process."""
        if self.alive:
            self.alive = False
            self._orders.clear()
            self.runs.clear()
            self._running.clear()
            self.tell(Gone())

    def mourn(self) -> None:
        """The daemon has heard of its end."""
        self.ready, self._mourned = False, True

    def send(self, order: Order) -> None:
        """Take an order, unless nobody is there to read it."""
        if self.ready and self.alive:
            self._orders.append(order)

    def read(self) -> None:
        """Carry out the oldest order."""
        if not self._orders:
            return
        match self._orders.popleft():
            case Submit() as order:
                self._measure(order)
            case Cancel(number):
                run = self.runs.get(number)
                if run is not None:
                    self._forget(number)
                    self.tell(run.ended("cancelled", run.so_far))
            case ForgetPrompts():
                self.tell(PromptsForgotten())
            case Join(number, client, priority, deadline):
                run = self.runs.get(number)
                if run is not None:
                    order = run.order
                    if RANK[priority] < RANK[order.priority]:
                        order = msgspec.structs.replace(order, client=client, priority=priority)
                    run.order = msgspec.structs.replace(order, deadline=deadline)

    def step(self) -> None:
        """End what is late, fill the slots, and write one piece of an answer, or its end."""
        if not self.alive or not self.ready:
            return
        for number, run in list(self.runs.items()):
            if run.order.deadline is not None and run.order.deadline <= self.clock():
                self._cut(number, run)
        self._fill()
        if self._running:
            self._write(self.rng.choice(self._running))

    def _measure(self, order: Submit) -> None:
        number, deadline = order.number, order.deadline
        assert number not in self.runs, f"{number} is in the engine already"
        if deadline is not None and deadline < self.clock() + self.needs_s:
            assert (number, deadline) not in self._refused, (
                f"{number} is asked again, and nothing has changed"
            )
            self._refused.add((number, deadline))
            self.tell(Refused(number, self.rng.choice(TOO_LATE_CODES), TOO_LATE, {}, 100))
        elif self.rng.random() < 0.03:
            self.tell(Refused(number, "too_long", "too long", {"prompt_tokens": 9, "context": 2}))
        else:
            self.runs[number] = Run(order)
            self.tell(Prepared(number, 9, 2048, 0, 1.0))

    def _cut(self, number: int, run: Run) -> None:
        begun = number in self._running
        self._forget(number)
        if begun and run.order.schema is None:
            self.tell(run.ended("deadline", run.so_far))
        else:
            self.tell(Refused(number, "expired", "the deadline has passed", {}))

    def _fill(self) -> None:
        while len(self._running) < self.slots:
            line = [
                Waiting(number, run.order.client, run.order.priority)
                for number, run in self.runs.items()
                if number not in self._running
            ]
            chosen = choose(line, {})
            if chosen is None:
                return
            self._running.append(chosen.number)
            self.tell(Started(chosen.number))

    def _write(self, number: int) -> None:
        run = self.runs[number]
        order = run.order
        if run.written < 3:
            before = run.so_far
            run.written += 1
            if order.stream:
                self.tell(Piece(number, "text", run.so_far[len(before) :], run.written, 0))
            return
        self._forget(number)
        may_call = order.tools and order.tool_mode != "none" and order.messages[-1].role != "tool"
        if may_call and self.rng.random() < 0.8:
            self.tell(run.ended("tool_calls", "", (Call("c1", "t", "{}"),)))
        else:
            self.tell(run.ended("stop", run.answer if order.schema is None else as_json(run.answer)))

    def _forget(self, number: int) -> None:
        del self.runs[number]
        if number in self._running:
            self._running.remove(number)


@dataclass
class Request:
    """A question at the larger server."""

    answer: str
    shaped: bool
    until: float | None
    told: int = 0


class RandomServer:
    """A larger server. Arguments as of `RandomEngine`.

    Attributes:
        runs: its questions by number.
    """

    def __init__(
        self, rng: random.Random, clock: Callable[[], float], tell: Callable[[object], None]
    ) -> None:
        self.rng, self.clock, self.tell = rng, clock, tell
        self.runs: dict[int, Request] = {}

    def ask(self, ask: upstream.Ask) -> None:
        """Take a question."""
        assert ask.number not in self.runs, f"{ask.number} is there already"
        answer = answer_to([message.get("content") or "" for message in json.loads(ask.body)["messages"]])
        until = None if ask.timeout_s is None else self.clock() + ask.timeout_s
        self.runs[ask.number] = Request(as_json(answer) if ask.shaped else answer, ask.shaped, until)

    def cancel(self, number: int) -> None:
        """Give it up."""
        self.runs.pop(number, None)

    def step(self) -> None:
        """Say the next thing of one question."""
        if not self.runs:
            return
        number = self.rng.choice(list(self.runs))
        run = self.runs[number]
        usage = Usage(9, 0, 3)
        if self.rng.random() < 0.05:
            self._end(number, upstream.Broke(number, "broken"))
        elif run.until is not None and run.until <= self.clock():
            hasty = run.told < 2 or run.shaped
            broke = upstream.Broke(number, "late", cramped=True)
            self._end(number, broke if hasty else upstream.Over(number, "deadline", usage))
        elif run.told == 0:
            run.told = 1
            self.tell(upstream.Begun(number))
        elif run.told == 1:
            run.told = 2
            self.tell(upstream.Said(number, "text", run.answer[:4]))
        else:
            self.tell(upstream.Said(number, "text", run.answer[4:]))
            self._end(number, upstream.Over(number, "stop", usage))

    def _end(self, number: int, event: upstream.Event) -> None:
        del self.runs[number]
        self.tell(event)
