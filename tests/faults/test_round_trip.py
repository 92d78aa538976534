"""Odd questions through several lives of a journal: what a new life reads is what was asked, answered and said.

The way in, the desk and the journal on disk are the node's own, without its broker and its engine: fast, and small
enough for hypothesis to take a failure apart. What a running daemon makes of them: `test_odd_questions`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import desk_rig
import msgspec
from desk_rig import Rig
from faults.record import Trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import Desk as JournalDesk
from journals import desk
from odd_questions import CLIENT, ODD_TEXTS, Sent, as_read, questions

from edged.adapters.journal import read_instant
from edged.core import answer_cache
from edged.core.admission import Bound, Load
from edged.core.job import Job
from edged.core.link import INSIDE, Arrived
from edged.core.parsing import Bounds
from edged.core.question import Message
from edged.core.records import PUBLISHES_MAX, Accepted, Duplicate, Entered, Finished, Publish
from edged.core.reply import Timings, Usage
from edged.core.tools import Tool
from edged.core.topics import Topics
from edged.engine.messages import Ended, Prepared, Said, Started, Submit
from edged.node.controls import Controls
from edged.node.intake import Intake
from edged.node.recovery import recover

FAULT = "odd questions"
LIVES = 150
TOPICS = Topics("edged", "n1")
TOKENS = (0, 1, 2**32)
"""How the engine says that its answer was made."""
ANSWERS = ('{"a": [1e308, "\\u0000"]}', *ODD_TEXTS)


class Toolbox(desk_rig.Toolbox):
    """One tool that a question may name and that nothing calls."""

    def __init__(self) -> None:
        self.tools = {"calculate": Tool("calculate")}


class Life:
    """One life of a node in this process: way in, desk and journal; the engine writes down what it gets."""

    def __init__(self, stored: JournalDesk) -> None:
        self.stored = stored
        self.rig = Rig(stored.journal)
        self.desk = self.rig.desk
        self.desk.calling.toolbox = Toolbox()
        journal = stored.journal
        self._intake = Intake(
            self.desk,
            Controls(self.desk, journal),
            journal,
            Bounds(),
            Bound(500, 2**30, 500),
            lambda jobs: Load(0, 0, jobs, 1.0, 1, "ready"),
            read_instant,
            600.0,
            slots=1,
        )
        now = read_instant()
        recover(self.desk, stored.recovered, now.boot_id, now.monotonic_s)
        self.orders: dict[int, Submit] = {}
        self.outbox: dict[int, Publish] = {}
        self._take_orders()

    def ask(self, asked: Sent) -> int | None:
        """Take a question in; returns its number in the journal, None where it was refused before it came there."""
        refused = self.desk.replies.counts.refused
        arrived = Arrived(TOPICS.ask(CLIENT), asked.payload, as_read(asked.properties), False, INSIDE)
        self._intake.arrived(arrived)
        if self.desk.replies.counts.refused > refused:
            return None
        event = self.stored.events.get(timeout=20)
        if isinstance(event, Entered):
            self._intake.entered(event)
            event = self.stored.events.get(timeout=20)
        match event:
            case Accepted():
                self._intake.accepted(event)
            case Duplicate():
                self._intake.duplicate(event)
            case _:
                raise AssertionError(event)
        self._take_orders()
        return event.number

    def kind_of(self, number: int) -> str:
        """How a question ended."""
        return str(json.loads(self.outbox[number * PUBLISHES_MAX].payload)["type"])

    def answer_all(self, text: str) -> None:
        """The engine answers all that it was given, and what it is given thereupon."""
        answered: set[int] = set()
        while left := self.orders.keys() - answered:
            number = min(left)
            answered.add(number)
            self.desk.hearing.engine_said(Prepared(number, 9, 2048, 0, 1.0))
            self.desk.hearing.engine_said(Started(number))
            said = Said(text, TOKENS)
            self.desk.hearing.engine_said(
                Ended(number, "stop", text, text, Usage(9, 0, 3), Timings(), said=said)
            )
            self._take_orders()
        while len(self.desk.roster):
            event = self.stored.events.get(timeout=20)
            if isinstance(event, Finished):
                self.desk.kept(event)
                self.outbox |= dict(event.outbox)

    def _take_orders(self) -> None:
        for order in self.rig.engine.orders:
            if isinstance(order, Submit):
                self.orders[order.number] = order
        self.rig.engine.orders.clear()


def test_round_trip(tmp_path: Path, trial: Trial) -> None:
    """A new life finds in the journal what was asked, answered and said, with the same digests and keys."""
    count = itertools.count()
    ran: Counter[str] = Counter()

    @settings(max_examples=LIVES * trial.factor, suppress_health_check=list(HealthCheck))
    @given(st.lists(questions(), min_size=2, max_size=8), st.sampled_from(ANSWERS), st.booleans())
    def live(asked: list[Sent], text: str, talk: bool) -> None:  # noqa: FBT001 - hypothesis fills it in
        path = tmp_path / str(next(count)) / "journal.db"
        session = {"session": "s"} if talk else {}
        named = [one.of(CLIENT, f"{n}:".encode(), id=str(n), **session) for n, one in enumerate(asked)]
        with desk(path) as stored:
            first = Life(stored)
            numbers = [first.ask(one) for one in named]
            jobs = dict(first.desk.roster.numbered)
        with desk(path) as stored:
            second = Life(stored)
            _check_same(jobs, second.desk.roster.numbered)
            assert list(map(_lasting, second.orders.values())) == list(map(_lasting, first.orders.values()))
            second.answer_all(text)
        with desk(path) as stored:
            third = Life(stored)
            assert stored.recovered.jobs == ()
            assert dict(stored.recovered.outbox) == second.outbox
            assert {outbox_id // PUBLISHES_MAX for outbox_id in second.outbox} == jobs.keys()
            for one, number in zip(named, numbers, strict=True):
                assert third.ask(one) == number, "a second copy is known as one"
            ran["sessions"] += _check_sessions(jobs, second, third, text)
        ran["refused"] += numbers.count(None)
        ran["stored"] += len(jobs)

    live()
    assert ran["stored"] > ran["refused"]
    assert ran["sessions"]
    also = f"{ran['refused']} more refused, {ran['sessions']} conversations read again"
    trial.note(FAULT, ran["stored"], "questions in three lives of a journal", also=also)


def _check_same(before: dict[int, Job], after: dict[int, Job]) -> None:
    assert before.keys() == after.keys()
    for number, job in before.items():
        found = after[number]
        assert (found.question, found.digest) == (job.question, job.digest)
        assert found.question.digest() == found.digest
        assert answer_cache.key(found.question) == answer_cache.key(job.question)


def _lasting(order: Submit) -> Submit:
    """An order without the moment of its deadline and its run's name, after the way to the engine's process."""
    packed = msgspec.msgpack.encode(msgspec.structs.replace(order, deadline=None, number=0))
    return msgspec.msgpack.decode(packed, type=Submit)


def _check_sessions(jobs: dict[int, Job], before: Life, after: Life, text: str) -> int:
    """Ask once more in each conversation: the engine is given all that was said in it; returns their number."""
    ended = {number: before.kind_of(number) for number in jobs}
    names = {job.question.session: number for number, job in jobs.items() if ended[number] == "done"}
    names.pop(None, None)
    for name, number in names.items():
        asked = {"id": f"again-{number}", "prompt": "and?", "session": name, "overflow": "trim_history"}
        again = after.ask(Sent(asked))
        assert again is not None
        if not after.desk.roster.numbered[again].dropped:
            said = before.orders[
                number
            ].messages  # of a life that found it in the journal: under its own number
            told = (*said, Message("assistant", text), Message("user", "and?"))
            *_, order = after.orders.values()  # its run's number is not the journal's
            assert order.messages == told
            assert order.sampled[len(said)] == TOKENS
    return len(names)
