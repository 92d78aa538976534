"""The desk: follows each job from the journal through the engine to its last message.

Belongs to the dispatcher thread, which alone touches a job. Every path ends in exactly one terminal message:
it goes into the journal first and from there, through the outbox, to the broker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from edged.core import reply, rounds
from edged.core.job import Happening, Job, State
from edged.core.question import Message, Question
from edged.core.records import Finished, Publish, Recovered, SessionTurn, StoredSession, remaining_s
from edged.core.tools import Call, Tool
from edged.engine.messages import Cancel, Ended, Order, Piece, Prepared, Refused, Started, Submit
from edged.errors import Refusal
from edged.node.outbox import Outbox
from edged.node.replies import Replies
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.tools.client import ToolsRan

BEGUN_MAX = 10
"""Runs of a question that none of its daemons saw end, after which it is `poison`: a question that takes the
board down leaves no other trace, and an orderly restart in mid-answer is no fault of the question."""


class Journal(Protocol):
    """The journal, as far as running jobs need it; answers come back as events."""

    def attempt(self, number: int) -> None:
        """Count a run."""

    def finish(self, number: int, publishes: tuple[Publish, ...], turn: SessionTurn | None = None) -> None:
        """Store the terminal messages, and what the answer adds to its session."""


class Tools(Protocol):
    """The node's own tools, as far as running jobs need them; the results come back as `ToolsRan`."""

    @property
    def tools(self) -> dict[str, Tool]:
        """What they are, by name."""

    def run(self, number: int, run: int, calls: tuple[Call, ...], node: str, vitals: dict[str, Any]) -> None:
        """Run some calls."""


class NoTools:
    """A node without tools of its own."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}

    def run(self, number: int, run: int, calls: tuple[Call, ...], node: str, vitals: dict[str, Any]) -> None:
        """There is nothing to run."""
        raise ValueError(
            f"job {number} called {len(calls)} tools of a node that has none ({run}, {node}, {vitals})"
        )


class Orders(Protocol):
    """The engine, as far as running jobs need it."""

    @property
    def ready(self) -> bool:
        """Whether orders are taken."""

    def send(self, order: Order) -> None:
        """Give an order."""


@dataclass(slots=True)
class Desk:
    """All jobs of this node.

    Attributes:
        replies, journal, engine, outbox: the outside.
        attempts_max: times that the engine broke under a job, after which the job is `poison`.
        clock: monotonic seconds, the same clock in the engine process.
        level: heat level, for `done`.
        roster: the jobs.
        sessions: the conversations that go on.
        toolbox: the node's own tools; `rounds_max` rounds of calls a question may make.
        vitals: the board's, as health tells them, for tools.
        service_s: seconds that a job occupied a slot, lately.
    """

    replies: Replies
    journal: Journal
    engine: Orders
    outbox: Outbox
    attempts_max: int
    clock: Callable[[], float]
    model: str = ""
    level: str | None = None
    roster: Roster = field(default_factory=Roster)
    sessions: Sessions = field(default_factory=Sessions)
    toolbox: Tools = field(default_factory=NoTools)
    rounds_max: int = 4
    vitals: dict[str, Any] = field(default_factory=dict)
    service_s: float = 1.0
    running: int = 0
    _runs: int = 0

    # taking on ------------------------------------------------------------------------------------------

    def stored(self, job: Job, number: int, session: StoredSession | None = None) -> None:
        """It stands in the journal, beside its session: give it to the engine."""
        self.roster.number(job, number)
        job.move(Happening.STORED)
        self.sessions.enter(job, session)
        self.replies.counts.accepted += 1
        if job.cancel_asked:
            self._finish(job, self._cancelled(job))
        else:
            self._submit(job)

    def drop(self, job: Job) -> None:
        """The journal did not take it; nobody was promised anything."""
        job.move(Happening.REFUSED)
        self.roster.remove(job)

    def recover(
        self,
        recovered: Recovered,
        boot_id: str,
        boot_now_s: float,
        is_passing: Callable[[str, str], bool] = lambda _client, _id: False,
    ) -> None:
        """Take up the questions that an earlier life of this node left unfinished, in their old order.

        Runs that ended with an orderly stop of the node are no sign that the question crashes it. A question of
        (client, id) that `is_passing` came by a connection that is gone: it ends here.
        """
        for old in recovered.jobs:
            question = msgspec.msgpack.decode(old.row.body, type=Question)
            left_s = remaining_s(old.row, boot_id, boot_now_s)
            now = self.clock()
            job = Job(
                question=question,
                digest=old.row.digest,
                arrived=now,
                deadline=None if old.row.deadline is None else now + left_s,
                size_bytes=len(old.row.body),
                attempts=old.attempts,
            )
            self.roster.add(job)
            self.roster.number(job, old.number)
            job.move(Happening.STORED)
            self.sessions.enter(job, old.session)
            if is_passing(question.client, question.id):
                self.cancel(job)
            elif old.attempts >= BEGUN_MAX:
                self._poison(job, f"was begun {old.attempts} times and never ended")
            else:
                self._submit(job)

    def _submit(self, job: Job) -> None:
        if job.submitted or not self.engine.ready or (job.crashes and self._suspect_runs()):
            return
        if not self.sessions.has_turn(job):
            return
        question = job.question
        try:
            conversation = self.sessions.conversation(job)
            tools = self._offered(job)
        except Refusal as refusal:
            self.fail(job, refusal)
            return
        job.submitted = True
        self.engine.send(
            Submit(
                number=job.number,
                client=question.client,
                messages=(*conversation.messages, *job.progress.turns),
                priority=question.priority,
                max_tokens=rounds.left(question.max_tokens, job.progress),
                deadline=job.deadline,
                temperature=question.temperature,
                top_p=question.top_p,
                seed=question.seed,
                stop=question.stop,
                reasoning_mode=question.reasoning_mode,
                reasoning_budget=question.reasoning_budget,
                stream=question.stream,
                overflow=question.overflow,
                reuse=question.cache == "use",
                schema=question.schema,
                sampled=conversation.sampled,
                session=question.session is not None,
                **tools,
            )
        )

    def _offered(self, job: Job) -> dict[str, Any]:
        """What the model may call in this round, as fields of `Submit`.

        Raises:
            Refusal: `unsupported`; a tool of the node is not there, or not any more.
        """
        offer = job.question.tools
        if offer is None:
            return {}
        missing = [name for name in offer.local if name not in self.toolbox.tools]
        if missing:
            there = ", ".join(self.toolbox.tools) or "none"
            raise Refusal("unsupported", f"this node has no tool {missing[0]}; it has {there}")
        mode, named = rounds.mode(offer, job.progress.rounds, self.rounds_max)
        return {
            "tools": (*offer.tools, *(self.toolbox.tools[name] for name in offer.local)),
            "tool_mode": mode,
            "tool_named": named,
            "tools_parallel": offer.parallel,
        }

    # the engine's side ----------------------------------------------------------------------------------

    def engine_ready(self, model: str) -> None:
        """Give it everything that waits, in the order of acceptance."""
        self.model = model
        for number in sorted(self.roster.numbered):
            job = self.roster.numbered[number]
            if job.state is State.WAITING:
                self._submit(job)

    def engine_gone(self, *, crashed: bool = True) -> None:
        """What ran, runs again as the next attempt; what crashed the engine too often is poison.

        Args:
            crashed: False where it was told to end, which no question is to blame for.
        """
        self.running = 0
        for job in list(self.roster.numbered.values()):
            was_running = job.state is State.RUNNING and job.submitted  # else its tools ran, not the engine
            job.move(Happening.ENGINE_GONE)
            job.begin_anew()
            if job.state is State.FINISHING:
                continue
            job.crashes += was_running and crashed
            if job.cancel_asked:
                self._finish(job, self._cancelled(job))
            elif was_running and job.crashes >= self.attempts_max:
                self._poison(job, f"crashed the engine {job.crashes} times")

    def prepared(self, report: Prepared) -> None:
        """It was measured: tell its device where it stands."""
        job = self.roster.live(report.number)
        if job is None or job.progress.rounds:
            return
        job.prompt_tokens, job.context = report.prompt_tokens, report.context
        deadline_ms = None if job.deadline is None else max(0, round(1000 * (job.deadline - self.clock())))
        self.replies.send(
            job,
            reply.Accepted(
                id=job.question.id,
                seq=job.next_seq(),
                node=self.replies.topics.node,
                position=report.ahead,
                eta_ms=round(1000 * report.eta_s),
                prompt_tokens=report.prompt_tokens,
                context=report.context,
                deadline_ms=deadline_ms,
                history=None if job.question.session is None else job.history,
            ),
            qos=1,
        )

    def started(self, report: Started) -> None:
        """It has a slot: the run counts, on disk too."""
        job = self.roster.numbered.get(report.number)
        if job is None or job.state is not State.WAITING:
            return
        job.move(Happening.STARTED)
        job.attempts += 1
        self.running += 1
        if not (job.begun and job.attempts == 1):
            self.journal.attempt(job.number)

    def piece(self, report: Piece) -> None:
        """The next delta of an answer."""
        job = self.roster.numbered.get(report.number)
        if job is None or job.state is not State.RUNNING:
            return
        kind = reply.Delta if report.kind == "text" else reply.ReasoningDelta
        self.replies.delta(job, kind, report.text)

    def ended(self, report: Ended) -> None:
        """The answer is complete, or as complete as it will be."""
        job = self.roster.live(report.number)
        if job is None:
            return
        timings = report.timings
        busy_s = (timings.prefill_ms + timings.decode_ms) / 1000
        self.service_s += 0.1 * (busy_s - self.service_s)
        self.replies.counts.tokens += report.usage.completion_tokens
        whole = rounds.added(job.progress, report.text, report.reasoning, report.usage, timings)
        job.progress = rounds.kept(job.progress, whole)
        if report.outcome == "cancelled":
            self._finish(job, self._cancelled(job))
            return
        if report.calls and report.calls[0].name in self._local_names(job):
            self._call(job, report)
            return
        parsed = None
        if job.question.schema is not None and not report.calls:
            try:
                parsed = reply.parsed(report.text)
            except Refusal as refusal:
                self.fail(job, refusal)
                return
        trimmed = report.trimmed + job.dropped
        calls = [call.shape() for call in report.calls] or None
        if calls:
            told = reply.ToolCall(id=job.question.id, seq=job.next_seq(), tool_calls=calls)
            self.replies.send(job, told, qos=1)
        done = self._done(job, report.outcome, parsed=parsed, calls=calls, trimmed=trimmed)
        turn = None
        if report.said is not None and (
            report.said.text or calls
        ):  # a turn without an answer leaves no trace
            answer = Message("assistant", report.said.text or None, tool_calls=calls)
            turn = self.sessions.answered(job, answer, report.said.tokens, trimmed)
        self._finish(job, done, plain_text=done.text if job.question.plain else None, turn=turn)

    def _done(
        self,
        job: Job,
        outcome: reply.FinishReason,
        *,
        parsed: object = None,
        calls: list[dict[str, Any]] | None = None,
        trimmed: int = 0,
    ) -> reply.Done:
        progress = job.progress
        return reply.Done(
            id=job.question.id,
            seq=job.next_seq(),
            text=progress.text,
            reasoning=progress.reasoning or None,
            finish_reason=outcome,
            usage=progress.usage,
            timings=progress.timings,
            model=self.model,
            node=self.replies.topics.node,
            attempt=job.attempts,
            parsed=parsed,
            tool_calls=calls,
            cached=progress.usage.cached_tokens > 0 or None,
            trimmed=trimmed or None,
            level=self.level,
        )

    # the node's own tools -------------------------------------------------------------------------------

    def _local_names(self, job: Job) -> tuple[str, ...]:
        return () if job.question.tools is None else job.question.tools.local

    def _call(self, job: Job, report: Ended) -> None:
        """Have the node's tools run; their results are the model's next prompt."""
        self._runs += 1
        job.submitted = False
        job.progress = rounds.called(job.progress, report.text, report.calls, self._runs)
        self.toolbox.run(job.number, self._runs, report.calls, self.replies.topics.node, self.vitals)

    def tools_ran(self, event: ToolsRan) -> None:
        """The tools of one round are done: the model goes on, unless the question is over or began anew."""
        job = self.roster.live(event.number)
        if job is None or not job.progress.calls or job.progress.run != event.run:
            return
        job.progress = rounds.answered(job.progress, event.results)
        self._submit(job)

    def refused(self, report: Refused) -> None:
        """The engine cannot run it and says why."""
        job = self.roster.live(report.number)
        if job is None:
            return
        if report.code == "expired" and job.progress.rounds and job.question.schema is None:
            self._finish(job, self._done(job, "deadline"))  # with what the rounds before came to
        else:
            self.fail(
                job,
                Refusal(
                    report.code, report.message, retry_after_ms=report.retry_after_ms, details=report.details
                ),
            )

    # ends -----------------------------------------------------------------------------------------------

    def cancel(self, job: Job) -> None:
        """Its device takes it back."""
        job.cancel_asked = True
        if job.state in {State.STORING, State.FINISHING}:
            return
        if job.submitted and self.engine.ready:
            self.engine.send(Cancel(job.number))
        else:
            self._finish(job, self._cancelled(job))

    def expire(self, now: float) -> None:
        """End what is past its deadline while no engine is there to do it."""
        for job in list(self.roster.numbered.values()):
            if (
                job.state is State.WAITING
                and not job.submitted
                and job.deadline is not None
                and job.deadline <= now
            ):
                self.fail(job, Refusal("expired", "the deadline passed before the question's turn came"))
            elif job.progress.calls and job.deadline is not None and job.deadline <= now:
                self.refused(Refused(job.number, "expired", "the deadline passed while tools ran", {}))

    def clear_answers(self) -> int:
        """Forget answers that are kept to be given again; returns how many."""
        return 0

    def fail(self, job: Job, refusal: Refusal) -> None:
        """End a job with an error."""
        self._finish(job, reply.failed(job.question.id, job.next_seq(), refusal))

    def kept(self, event: Finished) -> None:
        """Its last message stands in the journal and may go out; the job is over."""
        self.outbox.owe(event.outbox)
        job = self.roster.numbered.get(event.number)
        if job is not None and job.state is State.FINISHING:
            job.move(Happening.KEPT)
            self.roster.remove(job)
            self.sessions.forget(job)

    def _poison(self, job: Job, what: str) -> None:
        message = f"this question {what}; change it before you ask again"
        self.fail(job, Refusal("poison", message, details={"attempts": job.attempts}))

    def _suspect_runs(self) -> bool:
        """Whether the engine has a question that ran when it broke.

        They go one at a time: else one that crashes it would make poison of all that ran beside it each time.
        """
        return any(job.crashes and job.submitted for job in self.roster.numbered.values())

    def _cancelled(self, job: Job) -> reply.Cancelled:
        return reply.Cancelled(
            id=job.question.id, seq=job.next_seq(), text=job.progress.text, usage=job.progress.usage
        )

    def _finish(
        self,
        job: Job,
        last: reply.Terminal,
        *,
        plain_text: str | None = None,
        turn: SessionTurn | None = None,
    ) -> None:
        if job.state is State.RUNNING:
            self.running -= 1
        job.move(Happening.ENDED)
        if job.crashes:
            job.submitted = False
            for number in sorted(self.roster.numbered):
                other = self.roster.numbered[number]
                if other.crashes and other.state is State.WAITING:
                    self._submit(other)
        self.journal.finish(job.number, self.replies.last(job, last, plain_text), turn)
        after = self.sessions.leave(job)
        if after is not None and after.state is State.WAITING:
            self._submit(after)
