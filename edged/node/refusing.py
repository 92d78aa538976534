"""Refusing: what this node does not take on, told to its device. Belongs to the dispatcher thread.

A refusal stands nowhere: its question is acknowledged when the broker has it. A question that the node has no room
for may be a retry of one that it has answered: the journal is asked first, for giving that answer again costs
nothing that is scarce.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from edged.core import reply
from edged.core.job import Job, State
from edged.core.link import JSON, Delivery, Outgoing
from edged.core.parsing import Address
from edged.core.ration import Ration
from edged.core.records import Conflict, Duplicate, Failed, NotKnown, Publish
from edged.core.records import Outbox as Entries
from edged.errors import Refusal
from edged.node.desk import Desk
from edged.node.outbox import is_unbounded
from edged.node.seldom import say_seldom

LOOKS_MAX = 64
"""Questions with QoS 0 that the journal is asked for at once: nothing else bounds how many of these come, and
more are refused unseen."""


class Recalls(Protocol):
    """The journal, as far as it is asked for answers given before."""

    def recall(self, ticket: object, client: str, job_id: str, digest: bytes) -> None:
        """Owe an answer again: `Duplicate`, `Conflict`, `NotKnown` or `Failed` follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Unfit:
    """A question that is refused unless it was answered before: the journal's ticket.

    Attributes:
        client, address: whose it is, and where its device listens.
        delivery: as it came.
        digest: tells it from another question under its id.
        refusal: what its device hears where there is no answer.
    """

    client: str
    address: Address
    delivery: Delivery
    digest: bytes
    refusal: Refusal


@dataclass(slots=True)
class Refusing:
    """Who is turned away.

    Attributes:
        desk: its outbox takes what devices are told.
        journal: knows the answers given before.
        ration: of the log's lines about refusals.
    """

    desk: Desk
    journal: Recalls
    ration: Ration = field(default_factory=Ration)
    _looks: int = 0

    def refuse(self, refusal: Refusal, address: Address, client: str, delivery: Delivery) -> None:
        """Tell its device; the question is acknowledged when the broker has that."""
        if not self.tell(reply.failed(address.id, 0, refusal), address, delivery):
            return
        self.desk.replies.counts.refuse(refusal.code)
        say_seldom(
            "question_refused",
            self.ration,
            client,
            self.desk.clock(),
            job_id=address.id,
            client=client,
            code=refusal.code,
            reason=refusal.message,
        )

    def tell(self, last: reply.Terminal, address: Address, delivery: Delivery) -> bool:
        """End a question that stands nowhere; False where its device is not told, as such come too fast."""
        message = Outgoing(
            topic=address.reply_to,
            payload=reply.encode(last),
            qos=1,
            correlation=address.correlation,
            content_type=JSON,
        )
        sent = self.desk.outbox.refuse(message, delivery)
        self.desk.replies.counts.dropped += not sent
        return sent

    def unless_answered(self, unfit: Unfit) -> None:
        """Refuse a question, unless the journal has an answer to it: `looked` is to follow."""
        if is_unbounded(unfit.delivery):
            if self._looks >= LOOKS_MAX:
                self.refuse(unfit.refusal, unfit.address, unfit.client, unfit.delivery)
                return
            self._looks += 1
        self.journal.recall(unfit, unfit.client, unfit.address.id, unfit.digest)

    def looked(self, unfit: Unfit, found: Duplicate | Conflict | NotKnown | Failed) -> None:
        """The journal has said what it knows of this one; `Failed` where the disk cannot be written just now."""
        delivery = unfit.delivery
        self._looks -= is_unbounded(delivery)
        job = self.desk.roster.named.get((unfit.client, unfit.address.id))
        match found:
            case Duplicate(state="finished"):
                self.desk.replies.line.acknowledge(delivery)
                self.give_again(unfit.address, found.outbox)
            case Failed(answer=(_, *_)):
                self.give_unwritten(unfit.address, found.answer, delivery)
            case Conflict():
                self.refuse(id_taken(unfit.address.id), unfit.address, unfit.client, delivery)
            case _ if job is None:
                self.refuse(unfit.refusal, unfit.address, unfit.client, delivery)
            case _ if job.digest != unfit.digest:
                self.refuse(id_taken(unfit.address.id), unfit.address, unfit.client, delivery)
            case _:
                self._joins(job, delivery)

    def _joins(self, job: Job, delivery: Delivery) -> None:
        """A copy of it was taken on meanwhile: what that says of where its device listens is newer."""
        self.desk.replies.counts.duplicates += 1
        if job.state is State.STORING and delivery.qos:
            job.deliveries.append(delivery)
        else:
            self.desk.replies.line.acknowledge(delivery)

    def give_again(self, address: Address, entries: Entries) -> None:
        """Send the answer that the journal has."""
        self.desk.replies.counts.duplicates += 1
        self.desk.outbox.owe(tuple((number, _sent_to(address, publish)) for number, publish in entries))

    def give_unwritten(self, address: Address, answer: tuple[Publish, ...], delivery: Delivery) -> None:
        """The same while the journal cannot note that it is owed: the question is acknowledged after it."""
        sent = self.desk.outbox.give([_sent_to(address, publish) for publish in answer], delivery)
        self.desk.replies.counts.duplicates += sent
        self.desk.replies.counts.dropped += not sent


def _sent_to(address: Address, publish: Publish) -> Publish:
    """A message to where its device listens by now; the plain text has a topic of its own."""
    if publish.properties.get("content_type") != JSON:
        return publish
    properties = {"content_type": JSON, "correlation": address.correlation}
    return msgspec.structs.replace(publish, topic=address.reply_to, properties=properties)


def id_taken(job_id: str) -> Refusal:
    """The refusal of a question under an id that another one had, which is over."""
    return Refusal("bad_request", f"id {job_id} named another question of yours; use a new id")
