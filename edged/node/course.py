"""The course of a job: each move of its life from the journal on, with what its device is told of it.

Belongs to the dispatcher thread, which alone touches a job. Every job ends in exactly one terminal message: it goes
into the journal first and from there, through the outbox, to the broker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from edged.core import reply
from edged.core.answer_text import Kind
from edged.core.job import Happening, Job, State
from edged.core.records import Publish, SessionTurn
from edged.engine.messages import Prepared
from edged.errors import Refusal
from edged.node.endings import Who
from edged.node.replies import Replies

log = structlog.get_logger()


class Journal(Protocol):
    """The journal, as far as running jobs need it; answers come back as events."""

    def attempt(self, number: int) -> None:
        """Count a run."""

    def finish(
        self,
        number: int,
        publishes: tuple[Publish, ...],
        turn: SessionTurn | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Store the terminal messages, and what the answer adds to its session; `again`: its id is free then."""


def _nothing(_job: Job) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Course:
    """All jobs' courses.

    Attributes:
        replies, journal: the outside.
        clock: monotonic seconds.
        model: who answers; "" before there was one.
        level: heat level, for `done`.
        running: jobs that have a slot, or run elsewhere.
        leaves: told of a job before it ends, while it may still share a run.
        over: told of a job once its last message is on its way.
    """

    replies: Replies
    journal: Journal
    clock: Callable[[], float]
    model: str = ""
    level: str | None = None
    running: int = 0
    leaves: Callable[[Job], None] = _nothing
    over: Callable[[Job], None] = _nothing

    @property
    def who(self) -> Who:
        """Who answers, where this board does."""
        return Who(self.replies.topics.node, self.model, self.level)

    def prepared(self, job: Job, report: Prepared) -> None:
        """It was measured: tell its device where it stands, once."""
        if job.progress.rounds:
            return
        job.prompt_tokens, job.context = report.prompt_tokens, report.context
        log.debug("question_prepared", job_id=job.question.id, prompt_tokens=report.prompt_tokens)
        self.accepted(job, position=report.ahead, eta_s=report.eta_s)

    def accepted(
        self,
        job: Job,
        *,
        position: int,
        eta_s: float,
        upstream: str | None = None,
        duplicate: bool | None = None,
    ) -> None:
        """Tell its device that it was taken on; `duplicate`: that it has been for some time."""
        job.position, job.due = position, self.clock() + eta_s
        deadline_ms = None if job.deadline is None else max(0, round(1000 * (job.deadline - self.clock())))
        self.replies.send(
            job,
            reply.Accepted(
                id=job.question.id,
                seq=job.next_seq(),
                node=self.replies.topics.node,
                position=position,
                eta_ms=round(1000 * eta_s),
                prompt_tokens=job.prompt_tokens or None,
                context=job.context or None,
                deadline_ms=deadline_ms,
                duplicate=duplicate,
                history=None if job.question.session is None else job.history,
                upstream=upstream,
            ),
            qos=1,
        )

    def accepted_again(self, job: Job, upstream: str | None) -> None:
        """Tell a device that asks the same again: part of the wait is over."""
        position = job.position if job.state is State.WAITING else 0
        eta_s = max(0.0, job.due - self.clock())
        self.accepted(job, position=position, eta_s=eta_s, upstream=upstream, duplicate=True)

    def started(self, job: Job) -> None:
        """It has a slot: the run counts, on disk too."""
        if job.state is not State.WAITING:
            return
        job.move(Happening.STARTED)
        job.attempts += 1
        self.running += 1
        log.debug("answer_begun", job_id=job.question.id, attempt=job.attempts)
        if not (job.begun and job.attempts == 1):
            self.journal.attempt(job.number)

    def piece(self, job: Job, kind: Kind, text: str) -> None:
        """The next delta of its answer."""
        if job.state is State.RUNNING and job.question.stream:
            self.delta(job, kind, text)

    def delta(self, job: Job, kind: Kind, text: str) -> None:
        """Text for its device, also where nothing ran for it."""
        self.replies.delta(job, reply.Delta if kind == "text" else reply.ReasoningDelta, text)

    def anew(self, job: Job) -> None:
        """What answered it is gone or did not end it: it waits again, for its next attempt."""
        if job.state is State.RUNNING:
            self.running -= 1
        job.move(Happening.ENGINE_GONE)
        job.begin_anew()

    def fail(self, job: Job, refusal: Refusal) -> None:
        """End a job with an error."""
        self.finish(job, reply.failed(job.question.id, job.next_seq(), refusal))

    def answer(self, job: Job, done: reply.Done, turn: SessionTurn | None = None) -> None:
        """End a job with its answer, and keep what it adds to its session."""
        self.finish(job, done, plain_text=done.text if job.question.plain else None, turn=turn)

    def finish(
        self,
        job: Job,
        last: reply.Terminal,
        *,
        plain_text: str | None = None,
        turn: SessionTurn | None = None,
    ) -> None:
        """End a job."""
        if job.state is State.RUNNING:
            self.running -= 1
        self.leaves(job)
        job.move(Happening.ENDED)
        # A device that is told to ask again later, or to give it longer, does so under the same id: the deadline is
        # no part of what it asks (`Question.digest`).
        again = isinstance(last, reply.Failed) and (last.code == "expired" or last.retry_after_ms is not None)
        self.journal.finish(job.number, self.replies.last(job, last, plain_text), turn, again=again)
        self.over(job)
