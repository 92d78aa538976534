"""The desk with an engine, a journal and a broker that only write down what they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from scripted import Clock

from edged.core import reply
from edged.core.answer_cache import AnswerCache
from edged.core.job import Job, State
from edged.core.link import Delivery, Outgoing
from edged.core.question import Message, Question
from edged.core.records import JobRow, Publish, Recovered, RecoveredJob, SessionTurn
from edged.core.reply import Timings, Usage
from edged.core.topics import Topics
from edged.engine.messages import Ended, Order, Prepared, Started, Submit
from edged.node.course import Course
from edged.node.desk import Desk
from edged.node.outbox import Outbox
from edged.node.replies import Replies
from edged.node.sharing import Sharing

TOPICS = Topics("edged", "n1")


@dataclass
class Line:
    """A broker's line."""

    connected: bool = True
    published: list[Outgoing] = field(default_factory=list)

    def publish(self, message: Outgoing) -> None:
        """Take a message."""
        self.published.append(message)

    def acknowledge(self, delivery: Delivery) -> None:
        """Nothing waits for it."""


@dataclass
class Journal:
    """A journal."""

    finished: dict[int, dict[str, Any]] = field(default_factory=dict)

    def attempt(self, number: int) -> None:
        """Count a run."""

    def clear(self, outbox_id: int) -> None:
        """Forget a message."""

    def finish(self, number: int, publishes: tuple[Publish, ...], turn: SessionTurn | None = None) -> None:
        """Keep the last message of a question."""
        del turn
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


class Rig:
    """A desk and what it touches."""

    def __init__(self) -> None:
        self.clock, self.engine, self.journal, line = Clock(), Engine(), Journal(), Line()
        course = Course(Replies(TOPICS, line, self.clock), self.journal, self.clock)
        sharing = Sharing(course, self.engine, self.clock, AnswerCache(16, 65_536, 3600.0))
        self.desk = Desk(course, self.engine, Outbox(line, self.journal), sharing, attempts_max=3)

    def ask(self, number: int, **changes: Any) -> Job:
        """A question that stands in the journal."""
        fields: dict[str, Any] = {"client": "c", "id": f"q{number}", "made_id": False, "plain": False}
        fields["messages"] = (Message("user", str(number)),)
        fields["reply_to"] = TOPICS.answer("c", f"q{number}")
        asked = Question(**(fields | changes))
        job = Job(asked, asked.digest(), self.clock(), self.clock() + 60, 100)
        self.desk.roster.add(job)
        self.desk.stored(job, number)
        return job

    def measured(self, *numbers: int) -> None:
        """The engine has measured these questions."""
        for number in numbers:
            self.desk.prepared(Prepared(number, 9, 2048, 0, 1.0))

    def crash(self) -> None:
        """The engine is lost, and there again."""
        self.engine.ready = False
        self.desk.engine_gone()
        self.engine.ready = True
        self.desk.engine_ready("m")


def ended(number: int, text: str) -> Ended:
    """The engine's last word on a question."""
    return Ended(number, "stop", text, "", Usage(9, 0, 3), Timings())


def test_who_is_blamed_for_a_crash() -> None:
    """Those that ran, and the one that was being measured: the first of those that were not."""
    rig = Rig()
    jobs = {number: rig.ask(number) for number in range(1, 6)}
    rig.measured(1, 2)
    rig.desk.started(Started(1))
    rig.crash()
    assert {number: job.crashes for number, job in jobs.items()} == {1: 1, 2: 0, 3: 1, 4: 0, 5: 0}
    assert rig.engine.submitted[5:] == [1, 2, 4, 5], "those who are suspected go one at a time"


def test_poison_before_it_ran() -> None:
    """A question that crashes the engine each time that it is measured is not tried for ever."""
    rig = Rig()
    bad, good = rig.ask(1), rig.ask(2)
    for _ in range(3):
        rig.crash()
    assert (bad.state, rig.journal.finished[1]["code"]) == (State.FINISHING, "poison")
    assert (good.state, good.crashes) == (State.WAITING, 0)


@pytest.mark.parametrize(
    ("attempts", "stopped", "code"), [(9, False, None), (10, False, "poison"), (10, True, None)]
)
def test_begun_too_often(attempts: int, stopped: bool, code: str | None) -> None:  # noqa: FBT001 - a table
    """What takes the whole board down each time is poison; a life that ended in order was not ended by it."""
    rig = Rig()
    asked = rig.ask(99).question
    row = JobRow(
        "d", "q1", b"d" * 32, msgspec.msgpack.encode(msgspec.structs.replace(asked, client="d")), 0.0
    )
    rig.desk.recover(Recovered(jobs=(RecoveredJob(1, attempts, row),), stopped=stopped), "boot", 0.0)
    assert rig.journal.finished.get(1, {}).get("code") == code
    assert (1 in rig.engine.submitted) == (code is None)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"client": 7})])
def test_a_question_that_cannot_be_read(body: bytes) -> None:
    """Another version of this node wrote it down: it ends, and the node starts."""
    rig = Rig()
    row = JobRow("c", "q1", b"d" * 32, body, 0.0)
    rig.desk.recover(Recovered(jobs=(RecoveredJob(1, 0, row),)), "boot", 0.0)
    assert rig.journal.finished[1]["code"] == "interrupted"
    assert rig.engine.submitted == []


def test_an_answer_that_is_no_json_is_an_error_each_time() -> None:
    """A schema's number beyond all floats: also for the next who asks the same."""
    rig = Rig()
    for number in (1, 2):
        rig.ask(number, messages=(Message("user", "x"),), temperature=0.0, schema='{"type": "number"}')
        assert rig.engine.submitted == [number]
        rig.measured(number)
        rig.desk.started(Started(number))
        rig.desk.ended(ended(number, "1e999"))
        assert rig.journal.finished[number]["code"] == "bad_request"
    assert reply.parsed("1e99") == 1e99
