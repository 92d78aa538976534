"""Identical questions that are computed once: who shares which run of the engine. Belongs to the dispatcher thread.

Each question keeps its own id, replies, deadline and end; only the computing is shared. A run goes on while one
of its questions waits for it, also when the one that began it has been taken back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from edged.core.answer_text import Kind, Part
from edged.core.job import Job
from edged.engine.messages import Piece, Prepared


@dataclass(slots=True, eq=False)
class Run:
    """One run of the engine.

    Attributes:
        number: its name there: the number of the question that began it, or that of its head start.
        key: what is computed; None where nobody may join.
        first: the question that began it.
        deadline: when the engine ends it by itself; None for never.
        jobs: the questions that wait for it; the first began it, unless that one has gone.
        prepared: what was measured, once it was.
        due: when the answer was expected then.
        started: it has a slot.
        pieces: the answer so far, pieces of one kind joined.
        written, thought: tokens so far, of the answer and of its thinking.
        closed: it is being cancelled: nobody may join any more.
        altered: its device has ended the thinking: the answer is not what another one would get.
    """

    number: int
    key: bytes | None
    first: Job
    deadline: float | None
    jobs: list[Job] = field(default_factory=list)
    prepared: Prepared | None = None
    due: float = 0.0
    started: bool = False
    pieces: list[Part] = field(default_factory=list)
    written: int = 0
    thought: int = 0
    closed: bool = False
    altered: bool = False

    def add(self, piece: Piece) -> None:
        """The answer goes on."""
        self.written, self.thought = piece.written, piece.thought
        if self.pieces and self.pieces[-1][0] == piece.kind:
            self.pieces[-1] = (piece.kind, self.pieces[-1][1] + piece.text)
        else:
            self.pieces.append((piece.kind, piece.text))

    def outlook(self, report: Prepared, now: float) -> Prepared:
        """What was measured, for one who joins now: part of the wait is over."""
        ahead = 0 if self.started else report.ahead
        return msgspec.structs.replace(report, ahead=ahead, eta_s=max(0.0, self.due - now))

    def is_shorter_for(self, job: Job) -> bool:
        """Whether this question waits longer than the one that began it, whose deadline the engine judged by."""
        judged = self.first.deadline
        return judged is not None and (job.deadline is None or job.deadline > judged)

    def so_far(self, kind: Kind) -> str:
        """What there is of the answer, or of its thinking."""
        return "".join(text for one, text in self.pieces if one == kind)


@dataclass(slots=True)
class Joint:
    """All runs whose questions may be shared."""

    _numbered: dict[int, Run] = field(default_factory=dict)
    _keyed: dict[bytes, Run] = field(default_factory=dict)

    def of(self, number: int) -> Run | None:
        """The run of this number."""
        return self._numbered.get(number)

    def open(self, key: bytes) -> Run | None:
        """A run that computes this and may be joined."""
        run = self._keyed.get(key)
        return None if run is None or run.closed else run

    def begin(self, job: Job, key: bytes | None, number: int) -> Run:
        """This question is given to the engine, under this number."""
        run = Run(number, key, job, job.deadline, [job])
        self._numbered[number] = run
        if key is not None:
            self._keyed[key] = run
        return run

    def run_of(self, job: Job) -> Run | None:
        """The run that this question waits for."""
        if job.run is None:
            return None
        run = self._numbered.get(job.run)
        return run if run is not None and job in run.jobs else None

    def end(self, run: Run) -> None:
        """It is over."""
        self._numbered.pop(run.number, None)
        if run.key is not None and self._keyed.get(run.key) is run:
            del self._keyed[run.key]

    def clear(self) -> None:
        """The engine is gone, and all its runs with it."""
        self._numbered.clear()
        self._keyed.clear()

    def late(self, now: float) -> list[tuple[Run, Job]]:
        """Questions whose own deadline passed before the one of the run that they share."""
        return [
            (run, job)
            for run in self._numbered.values()
            for job in run.jobs
            if job.deadline is not None
            and job.deadline <= now
            and (run.deadline is None or job.deadline < run.deadline)
        ]
