"""From a PUBLISH to a job in the journal, or to a refusal: the way in. Belongs to the dispatcher thread.

A question is acknowledged when it stands in the journal, or when the broker has its refusal; a message that
nobody can be answered for is counted, and acknowledged so that it does not come again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
import structlog

from edged.core import admission
from edged.core.admission import Bound, Load
from edged.core.job import Job, State
from edged.core.link import INSIDE, Arrived, Delivery
from edged.core.parsing import Address, Bounds, Envelope, Misread, parse
from edged.core.question import Question
from edged.core.ration import Ration
from edged.core.records import (
    Accepted,
    Conflict,
    Duplicate,
    Entered,
    Failed,
    Instant,
    JobRow,
    NotKnown,
    deadline_in,
)
from edged.core.topics import is_name, is_passing
from edged.errors import Refusal, place
from edged.node import endings
from edged.node.controls import Controls, Inquiry
from edged.node.desk import Desk
from edged.node.refusing import Recalls, Refusing, Unfit, id_taken
from edged.node.seldom import say_seldom
from edged.node.unstored import Unstored

log = structlog.get_logger()
NO_NAME = "the client's name is not 1 to 64 characters A-Z a-z 0-9 _ . -"


class Accepts(Recalls, Protocol):
    """The journal, as far as the way in needs it."""

    def accept(self, ticket: object, row: JobRow, *, begun: bool = False) -> None:
        """Store a question; `Accepted`, `Duplicate`, `Conflict` or `Failed` follows, `Entered` may come first."""


@dataclass(slots=True)
class Intake:
    """The way in.

    Attributes:
        load: the node's load as admission sees it, for a client that has this many jobs.
        now: the present moment, for deadlines that survive a restart.
        deadline_default_s: for questions that name none.
        answer_tokens: likewise; None for no bound.
        slots: questions that run at once.
        dealt: told the pool by which a question came.
        ordered: takes an operator's order, with its operation.
        closed: True when the node is stopping: what comes stays with the broker.
        ration: bounds the log's lines about messages that cannot be answered.
        refusing: tells devices what is not taken on.
        unstored: what the disk did not take so far.
    """

    desk: Desk
    controls: Controls
    journal: Accepts
    bounds: Bounds
    bound: Bound
    load: Callable[[int], Load]
    now: Callable[[], Instant]
    deadline_default_s: float
    slots: int
    answer_tokens: int | None = None
    dealt: Callable[[str], None] = lambda _pool: None
    ordered: Callable[[str, Arrived], None] = lambda _op, _event: None
    closed: bool = False
    ration: Ration = field(default_factory=Ration)
    refusing: Refusing = field(init=False)
    unstored: Unstored = field(init=False)
    _parked: dict[tuple[str, str], Arrived] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refusing = Refusing(self.desk, self.journal)
        self.unstored = Unstored(self.desk.clock, self._store)

    @property
    def filling(self) -> float:
        """Share of the queue's bound that is taken, by count or by bytes, whichever is more."""
        roster, bound = self.desk.roster, self.bound
        return max(len(roster) / bound.jobs, roster.size_bytes / bound.size_bytes)

    def arrived(self, event: Arrived) -> None:
        """Take a message from the broker."""
        desk = self.desk
        if self.closed:
            return
        route = desk.replies.topics.route(event.topic)
        named = event.delivery is INSIDE or (route is not None and is_name(route[1]))
        if event.retained or route is None or not named:
            # Retained questions would be asked again at every start; a client without a legal name cannot be
            # answered on a topic of its own.
            if event.retained:
                desk.replies.counts.retained_ignored += 1
                reason = "it has the retain flag; publish it without"
            else:
                desk.replies.counts.dropped += 1
                reason = "no topic of this node" if route is None else NO_NAME
            topic = event.topic[:200]
            say_seldom("message_dropped", self.ration, topic, desk.clock(), reason=reason, topic=topic)
            desk.replies.line.acknowledge(event.delivery)
            return
        verb, client, pool = route
        if verb == "control":
            self.controls.arrived(client, event)
            return
        if verb == "admin":
            self.ordered(client, event)
            return
        if pool is not None:
            self.dealt(pool)
        self._ask(client, event, pooled=pool is not None)

    # questions ------------------------------------------------------------------------------------------

    def _ask(self, client: str, event: Arrived, *, pooled: bool = False) -> None:
        desk = self.desk
        envelope = Envelope(client, f"q{secrets.token_hex(8)}", event.properties)
        try:
            question = parse(event.payload, envelope, desk.replies.topics, self.bounds)
        except Misread as misread:
            if misread.__cause__ is not None:
                reason, now = place(misread.__cause__), desk.clock()
                say_seldom(
                    "question_not_read", self.ration, client, now, "error", client=client, reason=reason
                )
            self.refusing.refuse(misread.refusal, misread.address, client, event.delivery)
            return
        digest = question.digest()
        job = desk.roster.named.get((client, question.id))
        if job is not None and job.state is State.FINISHING and digest == job.digest:
            self._park(job, event)
            return
        if job is not None:
            self._again(job, question, digest, event.delivery)
            return
        size = len(event.payload)
        load = self.load(desk.roster.of_client.get(client, 0))
        if pooled:  # dealt to this node, before it left the pool: nobody else has it
            load = replace(load, draining=False)
        refusal = admission.refuse(load, self.bound, size, question.priority)
        if refusal is not None and self._answered_away(question, refusal):
            well = replace(load, engine="ready", shed=None)
            refusal = admission.refuse(well, self.bound, size, question.priority)
        if refusal is not None and (question.made_id or is_passing(client, question.id)):
            self.refusing.refuse(refusal, _address(question), client, event.delivery)
            return
        if refusal is not None:
            self.refusing.unless_answered(Unfit(client, _address(question), event.delivery, digest, refusal))
            return
        question = _bounded(question, self.answer_tokens)
        deadline_s = self.deadline_default_s if question.deadline_ms is None else question.deadline_ms / 1000
        now = desk.clock()
        # A question that meets a free slot runs at once: its run is counted in the same commit.
        begun = desk.engine.ready and len(desk.roster) < self.slots
        begun = begun and not desk.sessions.busy(client, question.session)
        job = Job(question, digest, now, now + deadline_s, size, begun=begun, deliveries=[event.delivery])
        desk.roster.add(job)
        log.debug("question_arrived", job_id=question.id, client=client, messages=len(question.messages))
        if not self.unstored.holds_back(job):
            self._store(job)

    def _answered_away(self, question: Question, refusal: Refusal) -> bool:
        """Whether what keeps this board from answering does not keep a larger server from it."""
        away = self.desk.giving.away
        why = None if away is None else away.why(question, self.desk.course.level)
        return (why == "asked" and refusal.code in {"hot", "loading", "internal"}) or (
            why == "hot" and refusal.code == "hot"
        )

    def _store(self, job: Job) -> None:
        question = job.question
        left_s = None if job.deadline is None else job.deadline - self.desk.clock()
        self.journal.accept(
            job,
            JobRow(
                client=question.client,
                id=question.id,
                digest=job.digest,
                body=msgspec.msgpack.encode(question),
                received_unix_s=time.time(),
                deadline=None if left_s is None else deadline_in(left_s, self.now()),
                session=question.session,
            ),
            begun=job.begun,
        )

    def _again(self, job: Job, question: Question, digest: bytes, delivery: Delivery) -> None:
        """A question under an id that is being answered: join it, or say that the id is taken."""
        desk = self.desk
        if digest != job.digest:
            taken = Refusal("bad_request", f"id {question.id} names another question of yours; use a new id")
            self.refusing.refuse(taken, _address(question), question.client, delivery)
            return
        desk.replies.counts.duplicates += 1
        job.question = msgspec.structs.replace(
            job.question, reply_to=question.reply_to, correlation=question.correlation
        )
        if job.state is State.STORING:
            if delivery.qos:  # of the others any number may come, and one refusal tells the device of all
                job.deliveries.append(delivery)
            return
        desk.replies.line.acknowledge(delivery)
        away = desk.giving.away
        upstream = None if job.away is None or away is None else away.policy.host
        if job.prompt_tokens or upstream is not None:
            desk.course.accepted_again(job, upstream)

    def _park(self, job: Job, event: Arrived) -> None:
        """A copy of a question that is over: in a moment the journal can answer it, the latest for all of them.

        A disk that takes nothing makes that moment long, and with QoS 0 any number may come.
        """
        earlier = self._parked.get(job.key)
        if earlier is not None:
            self.desk.replies.counts.duplicates += 1
            self.desk.replies.line.acknowledge(earlier.delivery)
        self._parked[job.key] = event

    def unpark(self) -> None:
        """A job is over: look again at the copies of questions that came while it was being finished."""
        parked, self._parked = self._parked, {}
        for event in parked.values():
            self.arrived(event)

    # the journal's answers --------------------------------------------------------------------------------

    def entered(self, event: Entered) -> None:
        """It is a new one, and a slot was free: what is left to wait for is the disk."""
        self.desk.giving.start_ahead(_job(event.ticket), event.session)

    def accepted(self, event: Accepted) -> None:
        """It is on disk: the broker may forget it."""
        job = _job(event.ticket)
        log.debug("question_stored", job_id=job.question.id)
        self._acknowledge(job)
        self.unstored.settled(job)
        self.desk.stored(job, event.number, event.session)

    def duplicate(self, event: Duplicate) -> None:
        """It was answered before: the stored answer goes out again."""
        if isinstance(event.ticket, Unfit):
            self.refusing.looked(event.ticket, event)
            return
        job = _job(event.ticket)
        self._acknowledge(job)
        self.unstored.settled(job)
        self.desk.drop(job)
        self.refusing.give_again(_address(job.question), event.outbox)

    def conflict(self, event: Conflict) -> None:
        """Another question, finished by now, had this id."""
        if isinstance(event.ticket, Unfit):
            self.refusing.looked(event.ticket, event)
        else:
            job = _job(event.ticket)
            self.unstored.settled(job)
            self._turn_away(job, id_taken(job.question.id))

    def not_known(self, event: NotKnown) -> None:
        """A question that is refused was not answered before."""
        if isinstance(event.ticket, Unfit):
            self.refusing.looked(event.ticket, event)

    def failed(self, event: Failed) -> None:
        """The disk does not take it: the broker keeps it, and we try again until its deadline.

        One that was answered before needs no room.
        """
        if isinstance(event.ticket, Inquiry):
            self.controls.not_found(event.ticket)
            return
        if isinstance(event.ticket, Unfit):
            self.refusing.looked(event.ticket, event)
            return
        job = _job(event.ticket)
        if event.answer:
            self.unstored.drop(job)
            self.desk.drop(job)
            for delivery in job.deliveries:
                self.refusing.give_unwritten(_address(job.question), event.answer, delivery)
            return
        self.desk.giving.not_stored(job)
        self.unstored.failed(job, event.reason)

    def tick(self, now: float) -> None:
        """Offer the journal again what it did not take."""
        for job in self.unstored.over(now):
            if job.cancel_asked:
                self._take_back(job)
            else:
                refusal = Refusal(
                    "expired", "the deadline passed while this node could not write its journal"
                )
                self._turn_away(job, refusal)
        self.unstored.try_one(now)

    def _turn_away(self, job: Job, refusal: Refusal) -> None:
        question = job.question
        self.desk.drop(job)
        for delivery in job.deliveries:
            self.refusing.refuse(refusal, _address(question), question.client, delivery)

    def _take_back(self, job: Job) -> None:
        """Its device took it back before the disk took it: nothing of it needs to be stored."""
        question = job.question
        self.desk.drop(job)
        cancelled = endings.cancelled(job)
        log.info("job_cancelled", job_id=question.id, client=question.client)
        for delivery in job.deliveries:
            self.refusing.tell(cancelled, _address(question), delivery)

    def _acknowledge(self, job: Job) -> None:
        for delivery in job.deliveries:
            self.desk.replies.line.acknowledge(delivery)
        job.deliveries.clear()


def _job(ticket: object) -> Job:
    if not isinstance(ticket, Job):
        raise TypeError("the journal answers with the ticket it was given")
    return ticket


def _bounded(question: Question, answer_tokens: int | None) -> Question:
    """The question with the operator's bound, where it brings none."""
    if answer_tokens is None or question.max_tokens is not None:
        return question
    return msgspec.structs.replace(question, max_tokens=answer_tokens)


def _address(question: Question) -> Address:
    return Address(question.id, question.reply_to, question.correlation)
