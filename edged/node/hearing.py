"""Hearing: what was said of the jobs that were given away, and what follows from it.

The engine says it, or a larger server in its place, or the node's own tools. Belongs to the dispatcher thread. A
report is of one run, which several questions may share; what a device is told of it stands in `course`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.core import reply, rounds
from edged.core.job import Job, State
from edged.core.question import Message
from edged.core.upstream import Broke
from edged.core.upstream import Event as UpstreamEvent
from edged.engine.messages import Ended, Piece, Prepared, Refused, Started
from edged.errors import Refusal
from edged.node import endings
from edged.node.away import Away
from edged.node.course import Course
from edged.node.endings import Who
from edged.node.giving import Giving
from edged.node.head_start import Said
from edged.node.roster import Roster
from edged.node.sharing import Sharing
from edged.tools.client import ToolsRan

SOON_S = 0.1
"""A deadline that is nearer than this has passed."""
TOO_LATE = frozenset({"expired", "busy"})
"""What the engine refuses for its deadline: one that has passed, or that cannot be kept."""


@dataclass(slots=True)
class Hearing:
    """What came of the jobs.

    Attributes:
        course: where jobs are moved on and their devices told.
        sharing: what is computed once for several questions.
        roster: the jobs.
        giving: has them answered, those too that need another answer.
        service_s: seconds that a job occupied a slot, lately.
    """

    course: Course
    sharing: Sharing
    roster: Roster
    giving: Giving
    service_s: float = 1.0

    def engine_said(self, report: Said) -> None:
        """The engine, or a larger server in its place, said something of a run."""
        if isinstance(report, Prepared | Refused):
            self.giving.blame.measured(report.number)
        if self.giving.head_starts.holds(report):
            return
        match report:
            case Prepared():
                self._prepared(report)
            case Started():
                self._started(report)
            case Piece():
                self._piece(report)
            case Ended():
                self._ended(report)
            case Refused():
                self.refused(report)

    def jobs(self, number: int) -> list[Job]:
        """The questions that a report of the engine is about."""
        run = self.sharing.joint.of(number)
        if run is not None:
            return list(run.jobs)
        job = self.roster.live(number)
        return [] if job is None else [job]

    def _prepared(self, report: Prepared) -> None:
        """It was measured: tell its device where it stands."""
        self.sharing.note(report)
        for job in self.jobs(report.number):
            self.course.prepared(job, report)

    def _started(self, report: Started) -> None:
        """It has a slot: the run counts, on disk too."""
        self.sharing.note(report)
        for job in self.jobs(report.number):
            self.course.started(job)

    def _piece(self, report: Piece) -> None:
        """The next delta of an answer."""
        self.sharing.note(report)
        for job in self.jobs(report.number):
            self.course.piece(job, report.kind, report.text)

    def _ended(self, report: Ended) -> None:
        """The answer is complete, or as complete as it will be."""
        run = self.sharing.joint.of(report.number)
        jobs = self.jobs(report.number)
        self.sharing.ended(report)
        if not jobs:
            return
        timings = report.timings
        busy_s = (timings.prefill_ms + timings.decode_ms) / 1000
        if jobs[0].away is None:
            self.service_s += 0.1 * (busy_s - self.service_s)
        self.course.replies.counts.tokens += report.usage.completion_tokens
        now = self.course.clock()
        for job in jobs:
            if report.outcome == "deadline" and job.deadline is not None and job.deadline > now + SOON_S:
                self.giving.anew(job)  # the engine had not heard yet that this one waits longer
            else:
                self._over(job, report, first=run is None or run.first is job)

    def _over(self, job: Job, report: Ended, *, first: bool) -> None:
        whole = rounds.added(job.progress, report.text, report.reasoning, report.usage, report.timings)
        job.progress = rounds.kept(job.progress, whole)
        # A cancel that came too late to end it: nobody is to make its calls.
        if report.outcome == "cancelled" or (job.cancel_asked and report.calls):
            self.course.finish(job, endings.cancelled(job))
            return
        if self.giving.calling.begin(job, report):
            return
        parsed = None
        if job.question.schema is not None and not report.calls:
            try:
                parsed = reply.parsed(report.text)
            except Refusal as refusal:
                self.course.fail(job, refusal)
                return
        trimmed = report.trimmed + job.dropped
        calls = [call.shape() for call in report.calls] or None
        if calls:
            told = reply.ToolCall(id=job.question.id, seq=job.next_seq(), tool_calls=calls)
            self.course.replies.send(job, told, qos=1)
        who = self._who(job)
        done = endings.done(
            job, who, report.outcome, parsed=parsed, calls=calls, trimmed=trimmed, cached=not first
        )
        turn = None
        # A turn without an answer leaves no trace.
        if report.said is not None and (report.said.text or calls):
            answer = Message("assistant", report.said.text or None, tool_calls=calls)
            turn = self.giving.sessions.answered(job, answer, report.said.tokens, trimmed)
        self.course.answer(job, done, turn)

    def refused(self, report: Refused) -> None:
        """The engine cannot run it and says why."""
        jobs = self.jobs(report.number)
        run = self.sharing.joint.of(report.number)
        if run is not None:
            self.sharing.joint.end(run)
        refusal = Refusal(
            report.code, report.message, retry_after_ms=report.retry_after_ms, details=report.details
        )
        now = self.course.clock()
        away = self.giving.away
        for job in jobs:
            longer = job.deadline is None or job.deadline > now + SOON_S
            if run is not None and report.code in TOO_LATE and longer and run.is_shorter_for(job):
                self.giving.anew(job)
            elif report.code == "expired" and job.progress.rounds and job.question.schema is None:
                # With what the rounds before came to.
                self.course.answer(job, endings.done(job, self._who(job), "deadline"))
            elif job.cancel_asked:
                self.course.finish(job, endings.cancelled(job))
            elif away is not None and "context" in away.policy.when and _is_too_long(job, report):
                self._too_long_here(job, report, away)
            else:
                self.course.fail(job, refusal)

    def _too_long_here(self, job: Job, report: Refused, away: Away) -> None:
        job.prompt_tokens = report.details.get("prompt_tokens", 0)
        job.context = report.details.get("context", 0)
        if job.broke_away is None and away.takes("context", job.question):
            self.giving.send_away(job, away, "context", self.giving.sessions.conversation(job).messages)
        else:
            self._too_long(job, away)

    def _too_long(self, job: Job, away: Away) -> None:
        """Neither can answer it. Waiting helps where the server is to blame, and not the question."""
        besides, retry_after_ms = away.excuse(job.question, job.broke_away)
        self.course.fail(job, endings.too_long(job, besides, retry_after_ms))

    # the node's own tools, and a larger server ------------------------------------------------------------

    def tools_ran(self, event: ToolsRan) -> None:
        """The tools of one round are done: the model goes on, unless the question is over or began anew."""
        job = self.roster.live(event.number)
        if job is not None and self.giving.calling.ran(job, event):
            self.giving.give(job)

    def away_said(self, event: UpstreamEvent) -> None:
        """The larger server said something."""
        away = self.giving.away
        if away is None:
            return
        for report in away.told(event):
            if isinstance(report, Broke):
                self._away_broke(report, away)
            else:
                self.engine_said(report)

    def _away_broke(self, report: Broke, away: Away) -> None:
        """The larger server cannot: the board answers, where it can."""
        job = self.roster.live(report.number)
        if job is None or job.away is None:
            return
        why, job.away, job.broke_away = job.away, None, report
        self.course.anew(job)
        if job.deadline is not None and job.deadline <= self.course.clock():
            self.course.fail(job, Refusal("expired", "the deadline passed before the larger server answered"))
        elif why == "context":
            self._too_long(job, away)
        else:
            self.giving.give(job)

    def _who(self, job: Job) -> Who:
        who, away = self.course.who, self.giving.away
        if job.away is None or away is None:
            return who
        return Who(who.node, away.policy.model, who.level, away.policy.host)


def _is_too_long(job: Job, report: Refused) -> bool:
    """Whether its prompt is, so that a larger server may help; an answer that found no room had begun."""
    return report.code == "too_long" and job.state is State.WAITING and job.question.tools is None
