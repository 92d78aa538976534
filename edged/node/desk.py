"""The desk: all jobs of this node, from the journal's word that a question stands there to its word on the end.

Belongs to the dispatcher thread. Here jobs are taken on, taken back and ended, and here stands what becomes of them
when the engine comes and goes. Who answers one stands in `giving`, what was said of it in `hearing`, and what its
device is told at each step in `course`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from edged.core import reply
from edged.core.job import Happening, Job, State
from edged.core.records import Finished, StoredSession
from edged.engine.messages import Cancel, Refused
from edged.errors import Refusal
from edged.node import endings
from edged.node.blame import Blame
from edged.node.calling import Calling
from edged.node.course import Course
from edged.node.forgetting import Forgetting
from edged.node.giving import Giving
from edged.node.hearing import Hearing
from edged.node.outbox import Outbox
from edged.node.replies import Replies
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.node.sharing import Orders, Sharing

log = structlog.get_logger()


@dataclass(slots=True)
class Desk:
    """All jobs of this node.

    Attributes:
        giving: has them answered; its parts stand here under their own names.
        outbox: takes their last messages to the broker.
        forgetting: whether the engine is to forget the prompts that it keeps.
        hearing: what was said of them.
    """

    giving: Giving
    outbox: Outbox
    forgetting: Forgetting
    hearing: Hearing = field(init=False)
    course: Course = field(init=False)
    engine: Orders = field(init=False)
    sharing: Sharing = field(init=False)
    roster: Roster = field(init=False)
    sessions: Sessions = field(init=False)
    calling: Calling = field(init=False)
    blame: Blame = field(init=False)

    def __post_init__(self) -> None:
        giving = self.giving
        self.course, self.engine, self.sharing = giving.course, giving.engine, giving.sharing
        self.roster, self.sessions = giving.roster, giving.sessions
        self.calling, self.blame = giving.calling, giving.blame
        self.hearing = Hearing(giving.course, giving.sharing, giving.roster, giving)

    @property
    def replies(self) -> Replies:
        """What devices hear."""
        return self.course.replies

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds, the same clock in the engine process."""
        return self.course.clock

    @property
    def running(self) -> int:
        """Jobs that have a slot, or run elsewhere."""
        return self.course.running

    # taking on ------------------------------------------------------------------------------------------

    def stored(self, job: Job, number: int, session: StoredSession | None = None) -> None:
        """It stands in the journal, beside its session: give it to the engine."""
        self.roster.number(job, number)
        job.move(Happening.STORED)
        self.replies.counts.accepted += 1
        if job.cancel_asked:
            self.giving.not_stored(job)
        ahead = self.giving.head_starts.take(job)
        if ahead is None:
            self.sessions.enter(job, session)
        if job.cancel_asked:
            self.course.finish(job, endings.cancelled(job))
        elif ahead is not None:
            job.submitted = True
            self.sharing.begin(job, ahead.key, ahead.number)
            for report in ahead.said:
                self.hearing.engine_said(report)
        elif self.blame.is_proven(job):
            self.blame.crashes_it(job)
        else:
            self.giving.give(job)

    def drop(self, job: Job) -> None:
        """The journal did not take it; nobody was promised anything."""
        self.giving.not_stored(job)
        job.move(Happening.REFUSED)
        self.roster.remove(job)

    # the engine's side ----------------------------------------------------------------------------------

    def engine_ready(self, model: str) -> None:
        """Give it everything that waits, in the order of acceptance."""
        self.course.model = model
        self.sharing.answers.clear()
        self.forgetting.engine_ready()
        for number in sorted(self.roster.numbered):
            job = self.roster.numbered[number]
            if job.state is State.WAITING:
                self.giving.give(job)

    def engine_gone(self, *, crashed: bool = True) -> None:
        """What ran, runs again as the next attempt; what crashed the engine too often is poison.

        Args:
            crashed: False where it was told to end, which no question is to blame for.
        """
        self.forgetting.engine_gone()
        measuring = self.blame.engine_gone()
        measured_now = [] if measuring is None else self.hearing.jobs(measuring)
        ahead = self.giving.head_starts.lost()
        if ahead is not None:
            ahead.job.attempts += ahead.begun
            ahead.job.crashes += crashed and (ahead.begun or ahead.number == measuring)
            self.giving.leave_session(ahead.job)
        self.sharing.joint.clear()
        for job in list(self.roster.numbered.values()):
            if job.away is not None:
                continue
            was_running = job.state is State.RUNNING and job.submitted  # else its tools ran, not the engine
            suspect = was_running or job in measured_now
            self.calling.give_up(job)
            self.course.anew(job)
            if job.state is State.FINISHING:
                continue
            job.crashes += suspect and crashed
            if job.cancel_asked:
                self.course.finish(job, endings.cancelled(job))
            elif suspect and self.blame.is_proven(job):
                self.blame.crashes_it(job)

    # ends -----------------------------------------------------------------------------------------------

    def cancel(self, job: Job) -> None:
        """Its device takes it back."""
        job.cancel_asked = True
        if job.state in {State.STORING, State.FINISHING}:
            return
        away = self.giving.away
        if job.away is not None and away is not None:
            text = away.cancel(job.number)
            last = reply.Cancelled(id=job.question.id, seq=job.next_seq(), text=text, usage=reply.Usage())
            self.course.finish(job, last)
            return
        if self.sharing.cancel(job):
            return
        if job.submitted and self.engine.ready:
            self.engine.send(Cancel(self.sharing.close(job)))
        else:
            self.course.finish(job, endings.cancelled(job))

    def expire(self, now: float) -> None:
        """End what is past its deadline where the engine does not: it is not there, or others wait longer."""
        self.sharing.expire(now)
        for job in list(self.roster.numbered.values()):
            if (
                job.state is State.WAITING
                and not job.submitted
                and job.deadline is not None
                and job.deadline <= now
            ):
                self.course.fail(
                    job, Refusal("expired", "the deadline passed before the question's turn came")
                )
            elif job.progress.calls and job.deadline is not None and job.deadline <= now:
                self.hearing.refused(
                    Refused(job.number, "expired", "the deadline passed while tools ran", {})
                )

    def kept(self, event: Finished) -> None:
        """Its last message stands in the journal and may go out; the job is over."""
        self.outbox.owe(event.outbox)
        job = self.roster.numbered.get(event.number)
        if job is not None and job.state is State.FINISHING:
            job.move(Happening.KEPT)
            log.debug("answer_stored", job_id=job.question.id)
            self.roster.remove(job)
            self.sessions.forget(job)
