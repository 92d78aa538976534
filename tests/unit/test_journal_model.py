"""The journal against a model made of two dicts, over random lives: hypothesis chooses, files are real."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from journals import Clock, Desk, answer, desk, row

from edged.core.records import (
    PUBLISHES_MAX,
    Accepted,
    Conflict,
    Duplicate,
    JobRow,
    Publish,
    deadline_in,
    remaining_s,
)

CLIENTS = st.sampled_from(["c1", "c2"])
IDS = st.sampled_from(["a", "b", "c", "d"])
TEXTS = st.sampled_from(["hot?", "cold?"])
ANSWERS = st.sampled_from([(), answer("yes"), (Publish("t", b"x" * 5000, {"expiry_s": 9}),)])


class Job:
    """What the model knows of one question."""

    def __init__(self, number: int, question: JobRow, left_s: float | None) -> None:
        self.number = number
        self.question = question
        self.left_s = left_s
        self.attempts = 0
        self.answer: tuple[Publish, ...] | None = None


class Lives(RuleBasedStateMachine):
    """Any order of commands, restarts, reboots and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[tuple[str, str], Job] = {}
        self.outbox: dict[int, Publish] = {}
        self.clearing: set[int] = set()  # cleared, and perhaps not yet on disk
        self.clock = Clock()
        self.boots = itertools.count(2)
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "0" / "journal.db"
        self.stack = ExitStack()
        self.desk: Desk

    @initialize()
    def start(self) -> None:
        """Begin with an empty journal."""
        self._open()

    @rule(client=CLIENTS, job_id=IDS, text=TEXTS, deadline_s=st.sampled_from([None, 60.0]))
    def accept(self, client: str, job_id: str, text: str, deadline_s: float | None) -> None:
        """New, repeated or conflicting."""
        deadline = None if deadline_s is None else deadline_in(deadline_s, self.clock.now)
        question = row(job_id, client, text, deadline)
        event = self.desk.accept(question)
        self.clearing.clear()  # rode along
        known = self.jobs.get((client, job_id))
        if known is None:
            assert isinstance(event, Accepted)
            assert event.number > max((job.number for job in self.jobs.values()), default=0)
            self.jobs[client, job_id] = Job(event.number, question, deadline_s)
        elif known.question.digest != question.digest:
            assert event == Conflict("ticket")
        elif known.answer is None:
            assert event == Duplicate("ticket", known.number, "unfinished")
        else:
            outbox = self._owe(known)
            assert event == Duplicate("ticket", known.number, "finished", outbox)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def attempt(self, data: st.DataObject) -> None:
        """Count a run of any question."""
        job = self._some(data)
        if job.answer is None:
            job.attempts += 1
        assert self.desk.attempt(job.number) == (job.attempts if job.answer is None else 0)
        self.clearing.clear()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), publishes=ANSWERS)
    def finish(self, data: st.DataObject, publishes: tuple[Publish, ...]) -> None:
        """Finish any question, perhaps again."""
        job = self._some(data)
        finished = self.desk.finish(job.number, publishes)
        self.clearing.clear()
        if job.answer is None:
            job.answer = publishes
            assert finished.outbox == self._owe(job)
        else:
            assert finished.outbox == ()

    @precondition(lambda self: self.outbox)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        """The broker acknowledges one message."""
        outbox_id = data.draw(st.sampled_from(sorted(self.outbox)))
        self.desk.journal.clear(outbox_id)
        del self.outbox[outbox_id]
        self.clearing.add(outbox_id)

    @rule(client=CLIENTS, job_id=IDS)
    def status(self, client: str, job_id: str) -> None:
        """Ask for any question."""
        found, known = self.desk.status(job_id, client), self.jobs.get((client, job_id))
        self.clearing.clear()
        if known is None:
            assert (found.state, found.number, found.attempts) == (None, None, 0)
        else:
            state = "unfinished" if known.answer is None else "finished"
            assert (found.state, found.number, found.attempts) == (state, known.number, known.attempts)

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; deadlines run."""
        self.clock.advance(seconds)
        for job in self.jobs.values():
            if job.left_s is not None:
                job.left_s -= seconds

    @rule(reboot=st.booleans())
    def restart(self, reboot: bool) -> None:  # noqa: FBT001 - hypothesis fills it in by name
        """Close and open again, perhaps after a reboot: nothing is lost, what was cleared stays cleared."""
        self.stack.close()
        self.clearing.clear()
        if reboot:
            self.clock.reboot(f"boot-{next(self.boots)}")
        self._open()

    @rule()
    def crash(self) -> None:
        """Go on from a copy of the files as they are: a clear may be lost, nothing else."""
        target = self.folder / str(next(self.boots)) / self.path.name
        target.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{target}{suffix}")
        self.stack.close()
        self.path = target
        self._open()

    @invariant()
    def counts(self) -> None:
        """The counters follow, but for clears under way."""
        if hasattr(self, "desk"):
            depth = self.desk.journal.depth()
            assert depth.unfinished == sum(job.answer is None for job in self.jobs.values())
            assert len(self.outbox) <= depth.outbox <= len(self.outbox) + len(self.clearing)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.stack.close()
        shutil.rmtree(self.folder)

    def _open(self) -> None:
        self.desk = self.stack.enter_context(desk(self.path, self.clock))
        recovered = self.desk.recovered
        unfinished = sorted((job for job in self.jobs.values() if job.answer is None), key=lambda j: j.number)
        assert [job.number for job in recovered.jobs] == [job.number for job in unfinished]
        for found, job in zip(recovered.jobs, unfinished, strict=True):
            assert found.attempts == job.attempts
            assert (found.row.client, found.row.id) == (job.question.client, job.question.id)
            assert (found.row.digest, found.row.body) == (job.question.digest, job.question.body)
            left_s = remaining_s(found.row, self.clock.now.boot_id, self.clock.now.monotonic_s)
            assert left_s == (float("inf") if job.left_s is None else job.left_s)
        back = dict(recovered.outbox)
        assert [outbox_id for outbox_id, _ in recovered.outbox] == sorted(back)
        assert self.outbox.keys() <= back.keys() <= self.outbox.keys() | self.clearing
        for outbox_id in back.keys() & self.clearing:  # the clear was lost: it will be sent once more
            self.outbox[outbox_id] = back[outbox_id]
        assert back == self.outbox
        self.clearing.clear()

    def _owe(self, job: Job) -> tuple[tuple[int, Publish], ...]:
        owed = tuple((job.number * PUBLISHES_MAX + i, p) for i, p in enumerate(job.answer or ()))
        self.outbox.update(owed)
        return owed

    def _some(self, data: st.DataObject) -> Job:
        return self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
