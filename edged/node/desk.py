"""The desk: gives each job to whatever can answer it, and hears what came of it.

That is the engine, a run that another question began, an answer given before, the node's own tools in between, or a
larger server. Belongs to the dispatcher thread; what a job's device is told at each step stands in `course`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from edged.core import reply, rounds
from edged.core.job import Happening, Job, State
from edged.core.question import Message, Question
from edged.core.records import Finished, JobRow, Recovered, StoredSession, remaining_s
from edged.core.upstream import Broke, Why
from edged.core.upstream import Event as UpstreamEvent
from edged.engine.messages import (
    Cancel,
    Ended,
    Piece,
    Prepared,
    Refused,
    Started,
)
from edged.errors import Refusal
from edged.node import endings, submission
from edged.node.away import Away
from edged.node.blame import Blame
from edged.node.calling import Calling
from edged.node.course import Course
from edged.node.endings import Who
from edged.node.forgetting import Forgetting
from edged.node.head_start import HeadStarts, Said
from edged.node.outbox import Outbox
from edged.node.replies import Replies
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.node.sharing import Orders, Sharing
from edged.tools.client import ToolsRan

BEGUN_MAX = 10
"""Runs of a question that none of its daemons saw end, after which it is `poison`: a question that takes the
board down leaves no other trace, and an orderly restart in mid-answer is no fault of the question."""
SOON_S = 0.1
"""A deadline that is nearer than this has passed."""
TOO_LATE = frozenset({"expired", "busy"})
"""What the engine refuses for its deadline: one that has passed, or that cannot be kept."""

UNREADABLE = Refusal(
    "interrupted",
    "this node was restarted and cannot read this question any more, which another version of it wrote down; ask "
    "again under a new id",
)

log = structlog.get_logger()


@dataclass(slots=True)
class Desk:
    """All jobs of this node.

    Attributes:
        course: where jobs are moved on and their devices told.
        engine, outbox: the outside.
        sharing: what is computed once for several questions.
        calling: what they call of the node's own tools.
        forgetting: whether the engine is to forget the prompts that it keeps.
        blame: which of them break the engine.
        roster: the jobs.
        sessions: the conversations that go on.
        away: the larger server; None without one.
        service_s: seconds that a job occupied a slot, lately.
    """

    course: Course
    engine: Orders
    outbox: Outbox
    sharing: Sharing
    calling: Calling
    forgetting: Forgetting
    blame: Blame
    roster: Roster
    sessions: Sessions = field(default_factory=Sessions)
    away: Away | None = None
    service_s: float = 1.0
    head_starts: HeadStarts = field(init=False)

    def __post_init__(self) -> None:
        self.course.over = self._over
        self.head_starts = HeadStarts(self.engine)

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
            self.not_stored(job)
        ahead = self.head_starts.take(job)
        if ahead is None:
            self.sessions.enter(job, session)
        if job.cancel_asked:
            self.course.finish(job, endings.cancelled(job))
        elif ahead is not None:
            job.submitted = True
            self.sharing.begin(job, ahead.key, ahead.number)
            for report in ahead.said:
                self.engine_said(report)
        elif self.blame.is_proven(job):
            self.blame.crashes_it(job)
        else:
            self._submit(job)

    def start_ahead(self, job: Job, session: StoredSession | None) -> None:
        """Have the engine begin a new question while the journal commits it, beside its session."""
        if not (self.engine.ready and self.head_starts.free) or job.crashes:
            return
        if self.away is not None and self.away.why(job.question, self.course.level) is not None:
            return
        key = self.sharing.key(job) if job.question.model is None else None
        if key is not None and self.sharing.knows(key):
            return
        if self._may_follow(job):
            return
        self.sessions.enter(job, session)
        if not self.sessions.has_turn(job):
            self._leave_session(job)
            return
        try:
            conversation = self.sessions.conversation(job)
            offered = self.calling.offered(job)
        except Refusal:
            self._leave_session(job)  # said once it stands in the journal
            return
        order = submission.order(job, conversation, offered, shared=key is not None)
        self.blame.given(self.head_starts.begin(job, order, key).number)

    def _may_follow(self, job: Job) -> bool:
        """Whether another question of its session may come before it in the commit that is under way."""
        whose = job.question.client, job.question.session
        return whose[1] is not None and any(
            (other.question.client, other.question.session) == whose
            for other in self.roster.named.values()
            if other is not job and other.state is State.STORING
        )

    def not_stored(self, job: Job) -> None:
        """The journal has not taken it, or its device has taken it back: nobody hears of what ran ahead."""
        if self.head_starts.withdraw(job):
            self._leave_session(job)

    def _leave_session(self, job: Job) -> None:
        self.sessions.leave(job)
        self.sessions.forget(job)

    def drop(self, job: Job) -> None:
        """The journal did not take it; nobody was promised anything."""
        self.not_stored(job)
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
            question = _question(old.row.body)
            left_s = remaining_s(old.row, boot_id, boot_now_s)
            now = self.clock()
            job = Job(
                question=question or self._unreadable(old.row),
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
            if is_passing(*job.key):
                self.cancel(job)
            elif question is None:
                self.course.fail(job, UNREADABLE)
            elif old.attempts >= BEGUN_MAX and not recovered.stopped:
                self.blame.poison(job, f"was begun {old.attempts} times and never ended")
            else:
                self._submit(job)

    def _unreadable(self, row: JobRow) -> Question:
        """What is known of a question whose text is not: enough to tell its device."""
        log.error("question_unreadable", client=row.client, job_id=row.id)
        return Question(
            row.client,
            row.id,
            made_id=False,
            plain=False,
            messages=(),
            reply_to=self.replies.topics.answer(row.client, row.id),
        )

    def _submit(self, job: Job) -> None:
        if job.submitted or not self.sessions.has_turn(job):
            return
        why = None if job.tried_away or self.away is None else self.away.why(job.question, self.course.level)
        if why is None and (not self.engine.ready or self.blame.has_to_wait(job)):
            return
        # What a larger server answers, or was asked to, is no answer of the board's own model.
        key = self.sharing.key(job) if why is None and job.question.model is None else None
        if key is not None and self.sharing.give(job, key):
            return
        try:
            conversation = self.sessions.conversation(job)
            offered = self.calling.offered(job)
        except Refusal as refusal:
            self.course.fail(job, refusal)
            return
        if why is not None and self.away is not None:
            self._send_away(job, self.away, why, conversation.messages)
            return
        job.submitted = True
        if key is not None:
            self.sharing.begin(job, key, job.number)
        self.blame.given(job.number)
        self.engine.send(submission.order(job, conversation, offered, shared=key is not None))

    def _send_away(self, job: Job, away: Away, why: Why, messages: tuple[Message, ...]) -> None:
        job.submitted, job.away = True, why
        away.send(job.number, job.question, messages, job.deadline)
        self.course.accepted(job, position=0, eta_s=away.service_s, upstream=away.policy.host)

    def away_said(self, event: UpstreamEvent) -> None:
        """The larger server said something."""
        if self.away is None:
            return
        for report in self.away.told(event):
            if isinstance(report, Broke):
                self._away_broke(report, self.away)
            else:
                self.engine_said(report)

    def _away_broke(self, report: Broke, away: Away) -> None:
        """The larger server cannot: the board answers, where it can."""
        job = self.roster.live(report.number)
        if job is None or job.away is None:
            return
        why, job.away, job.tried_away = job.away, None, True
        self.course.anew(job)
        if job.deadline is not None and job.deadline <= self.clock():
            self.course.fail(job, Refusal("expired", "the deadline passed before the larger server answered"))
        elif why == "context":
            besides = f"the larger server {away.policy.host} did not answer: {report.reason}"
            self.course.fail(job, endings.too_long(job, besides, away.retry_after_ms(job.question)))
        else:
            self._submit(job)

    # the engine's side ----------------------------------------------------------------------------------

    def engine_said(self, report: Said) -> None:
        """The engine, or a larger server in its place, said something of a run."""
        if isinstance(report, Prepared | Refused):
            self.blame.measured(report.number)
        if self.head_starts.holds(report):
            return
        match report:
            case Prepared():
                self.prepared(report)
            case Started():
                self.started(report)
            case Piece():
                self.piece(report)
            case Ended():
                self.ended(report)
            case Refused():
                self.refused(report)

    def engine_ready(self, model: str) -> None:
        """Give it everything that waits, in the order of acceptance."""
        self.course.model = model
        self.sharing.answers.clear()
        self.forgetting.engine_ready()
        for number in sorted(self.roster.numbered):
            job = self.roster.numbered[number]
            if job.state is State.WAITING:
                self._submit(job)

    def engine_gone(self, *, crashed: bool = True) -> None:
        """What ran, runs again as the next attempt; what crashed the engine too often is poison.

        Args:
            crashed: False where it was told to end, which no question is to blame for.
        """
        self.forgetting.engine_gone()
        measuring = self.blame.engine_gone()
        measured_now = [] if measuring is None else self._jobs(measuring)
        ahead = self.head_starts.lost()
        if ahead is not None:
            ahead.job.attempts += ahead.begun
            ahead.job.crashes += crashed and (ahead.begun or ahead.number == measuring)
            self._leave_session(ahead.job)
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

    def prepared(self, report: Prepared) -> None:
        """It was measured: tell its device where it stands."""
        self.sharing.note(report)
        for job in self._jobs(report.number):
            self.course.prepared(job, report)

    def _jobs(self, number: int) -> list[Job]:
        """The questions that a report of the engine is about."""
        run = self.sharing.joint.of(number)
        if run is not None:
            return list(run.jobs)
        job = self.roster.live(number)
        return [] if job is None else [job]

    def started(self, report: Started) -> None:
        """It has a slot: the run counts, on disk too."""
        self.sharing.note(report)
        for job in self._jobs(report.number):
            self.course.started(job)

    def piece(self, report: Piece) -> None:
        """The next delta of an answer."""
        self.sharing.note(report)
        for job in self._jobs(report.number):
            self.course.piece(job, report.kind, report.text)

    def ended(self, report: Ended) -> None:
        """The answer is complete, or as complete as it will be."""
        run = self.sharing.joint.of(report.number)
        jobs = self._jobs(report.number)
        self.sharing.ended(report)
        if not jobs:
            return
        timings = report.timings
        busy_s = (timings.prefill_ms + timings.decode_ms) / 1000
        if jobs[0].away is None:
            self.service_s += 0.1 * (busy_s - self.service_s)
        self.replies.counts.tokens += report.usage.completion_tokens
        now = self.clock()
        for job in jobs:
            if report.outcome == "deadline" and job.deadline is not None and job.deadline > now + SOON_S:
                self._begin_anew(job)  # the engine had not heard yet that this one waits longer
            else:
                self._ended(job, report, first=run is None or run.first is job)

    def _begin_anew(self, job: Job) -> None:
        """The run that it shared ended too early for it."""
        self.course.anew(job)
        if job.cancel_asked:
            self.course.finish(job, endings.cancelled(job))
        else:
            self._submit(job)

    def _ended(self, job: Job, report: Ended, *, first: bool) -> None:
        whole = rounds.added(job.progress, report.text, report.reasoning, report.usage, report.timings)
        job.progress = rounds.kept(job.progress, whole)
        if report.outcome == "cancelled":
            self.course.finish(job, endings.cancelled(job))
            return
        if self.calling.begin(job, report):
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
            self.replies.send(job, told, qos=1)
        who = self._who(job)
        done = endings.done(
            job, who, report.outcome, parsed=parsed, calls=calls, trimmed=trimmed, cached=not first
        )
        turn = None
        if report.said is not None and (
            report.said.text or calls
        ):  # a turn without an answer leaves no trace
            answer = Message("assistant", report.said.text or None, tool_calls=calls)
            turn = self.sessions.answered(job, answer, report.said.tokens, trimmed)
        self.course.answer(job, done, turn)

    def _who(self, job: Job) -> Who:
        who = self.course.who
        if job.away is not None and self.away is not None:
            return Who(who.node, self.away.policy.model, who.level, self.away.policy.host)
        return who

    def tools_ran(self, event: ToolsRan) -> None:
        """The tools of one round are done: the model goes on, unless the question is over or began anew."""
        job = self.roster.live(event.number)
        if job is not None and self.calling.ran(job, event):
            self._submit(job)

    def refused(self, report: Refused) -> None:
        """The engine cannot run it and says why."""
        jobs = self._jobs(report.number)
        run = self.sharing.joint.of(report.number)
        if run is not None:
            self.sharing.joint.end(run)
        refusal = Refusal(
            report.code, report.message, retry_after_ms=report.retry_after_ms, details=report.details
        )
        now = self.clock()
        away = None if self.away is None or "context" not in self.away.policy.when else self.away
        for job in jobs:
            longer = job.deadline is None or job.deadline > now + SOON_S
            if run is not None and report.code in TOO_LATE and longer and run.is_shorter_for(job):
                self._begin_anew(job)
            elif report.code == "expired" and job.progress.rounds and job.question.schema is None:
                # With what the rounds before came to.
                self.course.answer(job, endings.done(job, self._who(job), "deadline"))
            elif away is not None and self._is_too_long(job, report):
                self._too_long_here(job, report, away)
            else:
                self.course.fail(job, refusal)

    @staticmethod
    def _is_too_long(job: Job, report: Refused) -> bool:
        """Whether its prompt is, so that a larger server may help; an answer that found no room had begun."""
        return report.code == "too_long" and job.state is State.WAITING and job.question.tools is None

    def _too_long_here(self, job: Job, report: Refused, away: Away) -> None:
        job.prompt_tokens = report.details.get("prompt_tokens", 0)
        job.context = report.details.get("context", 0)
        if not job.tried_away and away.takes("context", job.question):
            self._send_away(job, away, "context", self.sessions.conversation(job).messages)
        else:
            besides = f"the larger server {away.policy.host} is not well"
            self.course.fail(job, endings.too_long(job, besides, away.retry_after_ms(job.question)))

    # ends -----------------------------------------------------------------------------------------------

    def cancel(self, job: Job) -> None:
        """Its device takes it back."""
        job.cancel_asked = True
        if job.state in {State.STORING, State.FINISHING}:
            return
        if job.away is not None and self.away is not None:
            text = self.away.cancel(job.number)
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
                self.refused(Refused(job.number, "expired", "the deadline passed while tools ran", {}))

    def kept(self, event: Finished) -> None:
        """Its last message stands in the journal and may go out; the job is over."""
        self.outbox.owe(event.outbox)
        job = self.roster.numbered.get(event.number)
        if job is not None and job.state is State.FINISHING:
            job.move(Happening.KEPT)
            log.debug("answer_stored", job_id=job.question.id)
            self.roster.remove(job)
            self.sessions.forget(job)

    def _over(self, job: Job) -> None:
        """Its last message is on its way: whoever waited for it has its turn."""
        self.calling.give_up(job)
        if job.crashes:
            job.submitted = False
            for number in sorted(self.roster.numbered):
                other = self.roster.numbered[number]
                if other.crashes and other.state is State.WAITING:
                    self._submit(other)
        after = self.sessions.leave(job)
        if after is not None and after.state is State.WAITING:
            self._submit(after)


def _question(body: bytes) -> Question | None:
    """A question as the journal has it; None where another version, or a worn card, wrote what we cannot read."""
    try:
        return msgspec.msgpack.decode(body, type=Question)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
