"""Giving: a job goes to whatever can answer it. Belongs to the dispatcher thread.

That is an answer given before, a run that another question began, a larger server, or the engine; and the engine
may begin it ahead, while the journal still commits it. What comes of it stands in `hearing`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edged.core.job import Job, State
from edged.core.question import Message
from edged.core.records import StoredSession
from edged.core.upstream import Why
from edged.errors import Refusal
from edged.node import endings, submission
from edged.node.away import Away
from edged.node.blame import Blame
from edged.node.calling import Calling
from edged.node.course import Course
from edged.node.head_start import HeadStarts
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.node.sharing import Orders, Sharing


@dataclass(slots=True)
class Giving:
    """Who answers.

    Attributes:
        course: where jobs are moved on and their devices told.
        engine: takes orders.
        sharing: what is computed once for several questions.
        roster: the jobs.
        sessions: the conversations that go on.
        calling: what jobs call of the node's own tools.
        blame: which of them break the engine.
        away: the larger server; None without one.
        head_starts: what the engine begins while the journal commits it.
    """

    course: Course
    engine: Orders
    sharing: Sharing
    roster: Roster
    sessions: Sessions
    calling: Calling
    blame: Blame
    away: Away | None = None
    head_starts: HeadStarts = field(init=False)
    _next: deque[Job] = field(default_factory=deque)
    _handing: bool = False

    def __post_init__(self) -> None:
        self.course.over = self._over
        self.head_starts = HeadStarts(self.engine)

    def give(self, job: Job) -> None:
        """Have a job that stands in the journal answered, if it is its turn and there is somebody to answer."""
        if job.submitted or not self.sessions.has_turn(job):
            return
        tried = job.broke_away is not None
        why = None if tried or self.away is None else self.away.why(job.question, self.course.level)
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
            self.send_away(job, self.away, why, conversation.messages)
            return
        job.submitted = True
        if key is not None:
            self.sharing.begin(job, key, job.number)
        self.blame.given(job.number)
        self.engine.send(submission.order(job, conversation, offered, shared=key is not None))

    def send_away(self, job: Job, away: Away, why: Why, messages: tuple[Message, ...]) -> None:
        """Have the larger server answer it."""
        job.submitted, job.away = True, why
        away.send(job.number, job.question, messages, job.deadline)
        self.course.accepted(job, position=0, eta_s=away.service_s, upstream=away.policy.host)

    def anew(self, job: Job) -> None:
        """What answered it ended too early for it: it is answered anew, unless its device has taken it back."""
        self.course.anew(job)
        if job.cancel_asked:
            self.course.finish(job, endings.cancelled(job))
        else:
            self.give(job)

    # ahead of the journal -------------------------------------------------------------------------------

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
            self.leave_session(job)
            return
        try:
            conversation = self.sessions.conversation(job)
            offered = self.calling.offered(job)
        except Refusal:
            self.leave_session(job)  # said once it stands in the journal
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
            self.leave_session(job)

    def leave_session(self, job: Job) -> None:
        """It has nothing to do with its session, for now."""
        self.sessions.leave(job)
        self.sessions.forget(job)

    # whose turn it is then ------------------------------------------------------------------------------

    def _over(self, job: Job) -> None:
        """Its last message is on its way: whoever waited for it has its turn."""
        self.calling.give_up(job)
        if job.crashes:
            job.submitted = False
            for number in sorted(self.roster.numbered):
                other = self.roster.numbered[number]
                if other.crashes and other.state is State.WAITING:
                    self.give(other)
        after = self.sessions.leave(job)
        if after is not None:
            self._next.append(after)
        if self._handing:
            return  # one that ends as soon as it is given: no call within a call for each of hundreds
        self._handing = True
        while self._next:
            if (one := self._next.popleft()).state is State.WAITING:
                self.give(one)
        self._handing = False
