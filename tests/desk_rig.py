"""The desk with an engine, a journal and a broker that only write down what they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from scripted import Clock

from edged.adapters.journal import Journal as OnDisk
from edged.core.answer_cache import AnswerCache
from edged.core.job import Job
from edged.core.link import Delivery, Outgoing
from edged.core.question import Message, Question
from edged.core.records import Publish, SessionTurn
from edged.core.reply import FinishReason, Timings, Usage
from edged.core.tools import Call, Tool
from edged.core.topics import Topics
from edged.core.upstream import Ask
from edged.engine.messages import Ended, Order, Prepared, Submit
from edged.node.blame import Blame
from edged.node.calling import Calling
from edged.node.course import Course
from edged.node.desk import Desk
from edged.node.forgetting import Forgetting
from edged.node.giving import Giving
from edged.node.outbox import Outbox
from edged.node.replies import Replies
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.node.sharing import Sharing

TOPICS = Topics("edged", "n1")


@dataclass
class Line:
    """A broker's line."""

    connected: bool = True
    published: list[Outgoing] = field(default_factory=list)
    acknowledged: list[Delivery] = field(default_factory=list)

    def publish(self, message: Outgoing) -> None:
        """Take a message."""
        self.published.append(message)

    def acknowledge(self, delivery: Delivery) -> None:
        """Take note of it."""
        self.acknowledged.append(delivery)


@dataclass
class Journal:
    """A journal."""

    finished: dict[int, dict[str, Any]] = field(default_factory=dict)

    def attempt(self, number: int) -> None:
        """Count a run."""

    def clear(self, outbox_id: int) -> None:
        """Forget a message."""

    def finish(
        self,
        number: int,
        publishes: tuple[Publish, ...],
        turn: SessionTurn | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Keep the last message of a question."""
        del turn, again
        self.finished[number] = msgspec.json.decode(publishes[0].payload)


@dataclass
class Engine:
    """An engine."""

    ready: bool = True
    orders: list[Order] = field(default_factory=list)

    def send(self, order: Order) -> None:
        """Take an order."""
        self.orders.append(order)

    @property
    def submitted(self) -> list[int]:
        """Numbers of the questions that it was given since it was looked at last."""
        numbers = [order.number for order in self.orders if isinstance(order, Submit)]
        self.orders.clear()
        return numbers


class Toolbox:
    """One tool of the node's own, called t, which runs until a test says otherwise."""

    def __init__(self) -> None:
        self.tools = {"t": Tool("t")}

    def run(self, number: int, run: int, calls: tuple[Call, ...], node: str, vitals: dict[str, Any]) -> None:
        """Run some calls."""

    def give_up(self, run: int) -> None:
        """Nobody waits for these any more."""


class Server:
    """A larger server that nothing comes back from."""

    def ask(self, ask: Ask) -> None:
        """Take a question."""

    def cancel(self, number: int) -> None:
        """Give it up."""


class Rig:
    """A desk and what it touches; `real` is a journal on disk in place of ours."""

    def __init__(self, real: OnDisk | None = None) -> None:
        self.clock, self.engine, self.journal, self.line = Clock(), Engine(), Journal(), Line()
        journal = real or self.journal
        course = Course(Replies(TOPICS, self.line, self.clock), journal, self.clock)
        sharing = Sharing(course, self.engine, self.clock, AnswerCache(16, 65_536, 3600.0))
        self.note = ""
        roster = Roster()
        calling, blame = Calling(TOPICS.node, Toolbox()), Blame(course, roster, attempts_max=3)
        giving = Giving(course, self.engine, sharing, roster, Sessions(), calling, blame)
        self.desk = Desk(giving, Outbox(self.line, journal), Forgetting(self.engine, note=self.noted))

    def noted(self, text: str) -> None:
        """What is to be remembered over the end of the daemon."""
        self.note = text

    def ask(self, number: int, **changes: Any) -> Job:
        """A question that stands in the journal."""
        job = self._job(f"q{number}", changes)
        self.desk.stored(job, number)
        return job

    def arrive(self, name: str, **changes: Any) -> Job:
        """A new question that the journal is just committing; a slot was free for it."""
        job = self.come(name, **changes)
        job.begun = True
        self.desk.giving.start_ahead(job, None)
        return job

    def come(self, name: str, **changes: Any) -> Job:
        """A new question on its way into the journal."""
        return self._job(name, changes)

    def _job(self, name: str, changes: dict[str, Any]) -> Job:
        fields: dict[str, Any] = {"client": "c", "id": name, "made_id": False, "plain": False}
        fields["messages"] = (Message("user", name),)
        fields["reply_to"] = TOPICS.answer("c", name)
        asked = Question(**(fields | changes))
        job = Job(asked, asked.digest(), self.clock(), self.clock() + 60, 100)
        self.desk.roster.add(job)
        return job

    def measured(self, *numbers: int) -> None:
        """The engine has measured these questions."""
        for number in numbers:
            self.desk.hearing.engine_said(Prepared(number, 9, 2048, 0, 1.0))

    def crash(self) -> None:
        """The engine is lost, and there again."""
        self.engine.ready = False
        self.desk.engine_gone()
        self.engine.ready = True
        self.desk.engine_ready("m")


def ended(number: int, text: str, outcome: FinishReason | Literal["cancelled"] = "stop") -> Ended:
    """The engine's last word on a question."""
    return Ended(number, outcome, text, "", Usage(9, 0, 3), Timings())
