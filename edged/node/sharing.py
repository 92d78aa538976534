"""Answers that one computing gives to several questions: those under way, which others join, and those kept.

Belongs to the dispatcher thread. Which runs there are stands in `joint`, which answers in `core.answer_cache`; here
a job is given what another one had computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edged.core import answer_cache, rounds
from edged.core.answer_cache import AnswerCache, Kept
from edged.core.job import Job, State
from edged.engine.messages import (
    Cancel,
    Ended,
    EndReasoning,
    Join,
    Order,
    Piece,
    Prepared,
    Started,
)
from edged.errors import Refusal
from edged.node import endings
from edged.node.course import Course
from edged.node.joint import Joint, Run


class Orders(Protocol):
    """The engine, as far as running jobs need it."""

    @property
    def ready(self) -> bool:
        """Whether orders are taken."""

    def send(self, order: Order) -> None:
        """Give an order."""


@dataclass(slots=True)
class Sharing:
    """All that is computed once for several.

    Attributes:
        course: where a job is moved on.
        engine: takes orders.
        clock: monotonic seconds.
        joint: runs of the engine that several questions may share.
        answers: answers that may be given again.
    """

    course: Course
    engine: Orders
    clock: Callable[[], float]
    answers: AnswerCache
    joint: Joint = field(default_factory=Joint)

    def __post_init__(self) -> None:
        self.course.leaves = self.leave

    def key(self, job: Job) -> bytes | None:
        """What tells this question from others that are answered alike; None where it is computed for itself."""
        return answer_cache.key(job.question) if self.answers.answers_max else None

    def give(self, job: Job, key: bytes) -> bool:
        """Answer a question from what was answered before, or let it share what is being computed."""
        kept = self.answers.get(key, self.clock())
        if kept is not None:
            self._give_again(job, kept)
            return True
        run = self.joint.open(key)
        if run is None:
            return False
        job.submitted, job.run = True, run.number
        run.jobs.append(job)
        self.course.replies.counts.cached += 1
        if run.deadline is not None and (job.deadline is None or job.deadline > run.deadline):
            run.deadline = job.deadline
        self.engine.send(Join(run.number, job.question.client, job.question.priority, run.deadline))
        if run.prepared is not None:
            self.course.prepared(job, run.outlook(run.prepared, self.clock()))
        if run.started:
            self.course.started(job)
            for kind, text in run.pieces:
                self.course.piece(job, kind, text)
        return True

    def knows(self, key: bytes) -> bool:
        """Whether `give` would spare the engine this question."""
        return self.joint.open(key) is not None or self.answers.get(key, self.clock()) is not None

    def begin(self, job: Job, key: bytes | None, number: int) -> None:
        """This question was given to the engine under this number; others may join where it has a key."""
        job.run = self.joint.begin(job, key, number).number

    def note(self, report: Prepared | Started | Piece) -> None:
        """Remember how far a run is, for those who join later."""
        run = self.joint.of(report.number)
        match report:
            case _ if run is None:
                return
            case Prepared():
                run.prepared, run.due = report, self.clock() + report.eta_s
            case Started():
                run.started = True
            case Piece():
                run.add(report)

    def ended(self, report: Ended) -> None:
        """A run is over: keep an answer that would be the same next time."""
        run = self.joint.of(report.number)
        if run is None:
            return
        self.joint.end(run)
        outcome = report.outcome
        if run.key is None or run.altered or not run.jobs:
            return
        if report.hurried or outcome == "cancelled":
            return
        trimmed, written = report.trimmed > 0, report.usage.completion_tokens
        asked = run.jobs[0].question
        if not answer_cache.may_keep(asked, outcome, report.text, trimmed=trimmed, written=written):
            return
        context = 0 if run.prepared is None else run.prepared.context
        kept = Kept(report.text, report.reasoning, outcome, report.usage, context)
        self.answers.put(run.key, kept, self.clock())

    def cancel(self, job: Job) -> bool:
        """Take one question back where others wait on; False where the engine's run ends with it."""
        run = self.joint.run_of(job)
        if run is None or len(run.jobs) == 1:
            return False
        self.course.finish(job, endings.cancelled(job, run))
        return True

    def close(self, job: Job) -> int:
        """The run of this question is being cancelled, nobody may join; returns its number in the engine."""
        run = self.joint.run_of(job)
        if run is None:
            return job.number
        run.closed = True
        return run.number

    def end_reasoning(self, job: Job) -> None:
        """Its device has seen enough of the thinking; those who share it may not have."""
        run = self.joint.run_of(job)
        if run is not None and len(run.jobs) > 1:
            return
        job.progress = rounds.enough(job.progress)
        if run is None:
            self.engine.send(EndReasoning(job.number))
        else:
            run.closed = run.altered = True
            self.engine.send(EndReasoning(run.number))

    def expire(self, now: float) -> None:
        """End those whose own deadline passed, while others who share their run wait longer."""
        for run, job in self.joint.late(now):
            self._cut(run, job)

    def leave(self, job: Job) -> None:
        """It waits for the engine no longer; when nobody does, neither need the engine go on."""
        run = self.joint.run_of(job)
        if run is None:
            return
        run.jobs.remove(job)
        if not run.jobs and not run.closed:
            run.closed = True
            self.engine.send(Cancel(run.number))

    def _give_again(self, job: Job, kept: Kept) -> None:
        usage = kept.usage
        self.course.replies.counts.cached += 1
        self.course.prepared(job, Prepared(job.number, usage.prompt_tokens, kept.context, 0, 0.0))
        if job.question.stream:
            if kept.reasoning:
                self.course.delta(job, "reasoning", kept.reasoning)
            if kept.text:
                self.course.delta(job, "text", kept.text)
        self.course.answer(job, endings.given_again(job, self.course.who, kept))

    def _cut(self, run: Run, job: Job) -> None:
        """End a question at its own deadline, with what there is."""
        if job.state is not State.RUNNING:
            self.course.fail(job, Refusal("expired", "the deadline passed before the question's turn came"))
            return
        if job.question.schema is not None:
            self.course.fail(
                job, Refusal("expired", "the answer was not complete; allow a longer deadline_ms")
            )
            return
        self.course.answer(job, endings.cut_off(job, self.course.who, run))
