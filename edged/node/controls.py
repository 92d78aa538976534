"""What a device may do to its own questions and sessions: cancel, resume, end the reasoning, ask, forget.

Belongs to the dispatcher thread. A question that is over is looked up in the journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from edged.core import control, reply
from edged.core.job import Job, State
from edged.core.link import JSON, Arrived, Outgoing
from edged.core.ration import Ration
from edged.core.records import SessionForgotten, StatusFound
from edged.errors import Refusal
from edged.node.desk import Desk
from edged.node.seldom import say_seldom

RETRY_MS = 10_000
"""When to order again what the disk did not take."""
FORGETS_MAX = 8
"""Sessions that are being forgotten at once. The journal looks through all of a client's questions for each (3,000:
10 ms of an x86 core), and every question of every device waits behind it."""


class LooksUp(Protocol):
    """The journal, as far as controls need it."""

    def status(self, ticket: object, client: str, job_id: str) -> None:
        """Look a question up; `StatusFound` or `Failed` follows."""

    def forget(self, ticket: object, client: str, name: str) -> None:
        """Forget a session; `SessionForgotten` or `Failed` follows."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Where the word on a question's state goes, or a session's that `forgets`: the journal's ticket."""

    id: str
    topic: str
    correlation: bytes | None
    forgets: bool = False


@dataclass(slots=True)
class Controls:
    """Carries out control messages."""

    desk: Desk
    journal: LooksUp
    ration: Ration = field(default_factory=Ration)
    _forgets: int = 0

    def arrived(self, client: str, event: Arrived) -> None:
        """Carry out what a device wants of its own question."""
        desk = self.desk
        try:
            order = control.parse(event.payload)
        except Refusal as refusal:
            # There is no question to answer under: it is told in the log and counted.
            desk.replies.counts.dropped += 1
            say_seldom(
                "control_refused", self.ration, client, desk.clock(), client=client, reason=refusal.message
            )
            desk.replies.line.acknowledge(event.delivery)
            return
        if order.op == "forget":
            self._forget(client, order.id, order.session or "", event)
            desk.replies.line.acknowledge(event.delivery)
            return
        job = desk.roster.named.get((client, order.id))
        if job is not None:
            match order.op:
                case "cancel":
                    desk.cancel(job)
                case "resume":
                    desk.replies.replay(job, order.from_seq)
                case "end_reasoning":
                    desk.sharing.end_reasoning(job)
                case "status":
                    self._status(client, order.id, job, event)
        elif order.op in {"status", "resume", "cancel"}:
            # It may have ended: the journal knows for as long as it keeps the answer.
            self.journal.status(self._inquiry(client, order.id, None, event), client, order.id)
        desk.replies.line.acknowledge(event.delivery)

    def _status(self, client: str, job_id: str, job: Job, event: Arrived) -> None:
        self._tell_status(
            self._inquiry(client, job_id, job, event), _STATE[job.state], job.attempts, job.seq - 1
        )

    def _forget(self, client: str, order_id: str, session: str, event: Arrived) -> None:
        inquiry = replace(self._inquiry(client, order_id, None, event), forgets=True)
        asked = (job.question for job in self.desk.roster.named.values())
        if any((question.client, question.session) == (client, session) for question in asked):
            self._tell_status(inquiry, "running", None, -1)  # its end would write the session anew
        elif self._forgets >= FORGETS_MAX:
            self._not_forgotten(
                inquiry, "this node is forgetting others, so nothing was forgotten; ask again later"
            )
        else:
            self._forgets += 1
            self.journal.forget(inquiry, client, session)

    def found(self, event: StatusFound | SessionForgotten) -> None:
        """Tell a device what the journal knows of a question that is over, or that a session is forgotten."""
        if isinstance(event, SessionForgotten) and event.known:
            self.desk.forgetting.forget_prompts()
        if not isinstance(event.ticket, Inquiry):
            return
        if isinstance(event, SessionForgotten):
            self._forgets -= 1
            self._tell_status(event.ticket, "forgotten" if event.known else "unknown", None, -1)
        else:
            known = event.state is not None
            self._tell_status(event.ticket, "finished" if known else "unknown", event.attempts or None, -1)

    def _inquiry(self, client: str, job_id: str, job: Job | None, event: Arrived) -> Inquiry:
        topics = self.desk.replies.topics
        wanted = event.properties.response_topic
        default = job.question.reply_to if job else topics.answer(client, job_id)
        topic = wanted if wanted is not None and topics.may_reply_to(client, wanted) else default
        return Inquiry(job_id, topic, event.properties.correlation)

    def _tell_status(self, inquiry: Inquiry, state: control.StateWord, attempt: int | None, seq: int) -> None:
        node = self.desk.replies.topics.node
        self._tell(inquiry, control.Status(id=inquiry.id, seq=seq, node=node, state=state, attempt=attempt))

    def _tell(self, inquiry: Inquiry, message: reply.Reply) -> None:
        self.desk.replies.line.publish(
            Outgoing(
                inquiry.topic,
                reply.encode(message),
                qos=1,
                correlation=inquiry.correlation,
                content_type=JSON,
            )
        )

    def _not_forgotten(self, inquiry: Inquiry, why: str) -> None:
        refusal = Refusal("busy", why, retry_after_ms=RETRY_MS)
        self._tell(inquiry, reply.failed(inquiry.id, 0, refusal))

    def not_found(self, inquiry: Inquiry) -> None:
        """The journal cannot be read, or written, just now."""
        if inquiry.forgets:
            self._forgets -= 1
            self._not_forgotten(inquiry, "the disk takes nothing, so nothing was forgotten")
        else:
            self._tell_status(inquiry, "unknown", None, -1)


_STATE: dict[State, control.StateWord] = {
    State.STORING: "waiting",
    State.WAITING: "waiting",
    State.RUNNING: "running",
    State.FINISHING: "finished",
    State.GONE: "finished",
}
