"""A head start: the engine computes a question while the journal writes it down. Belongs to the dispatcher thread.

A commit waits for the disk, and the cores would rest meanwhile (`tests/bench/slow_disk.py`). What the engine says
of such a run is held back until the question stands in the journal: no device hears of a question that could still
be lost. Where the disk does not take it, the run is taken back unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from edged.core.job import Job
from edged.engine.messages import Cancel, Ended, Piece, Prepared, Refused, Started, Submit
from edged.node.sharing import Orders

Said = Prepared | Started | Piece | Ended | Refused
"""What the engine says of one run."""
FIRST_NUMBER = -(2**62)
"""Of the first head start. They stay below 0, where no question is, and grow: the engine goes by the number
among questions that are served alike, see `core.fairness`."""


@dataclass(slots=True, eq=False)
class HeadStart:
    """One run whose question does not stand in the journal yet.

    Attributes:
        job: the question.
        key: what is computed, where others may share it.
        number: the run's in the engine, from `FIRST_NUMBER` on: the question's own comes with the journal's commit.
        said: what the engine said of it so far.
    """

    job: Job
    key: bytes | None
    number: int
    said: list[Said] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether it has a slot."""
        return any(isinstance(report, Started) for report in self.said)


@dataclass(slots=True)
class HeadStarts:
    """At most one run at a time: of several questions that come at once the first keeps the cores busy.

    Attributes:
        engine: takes orders.
    """

    engine: Orders
    _now: HeadStart | None = None
    _next: int = FIRST_NUMBER

    @property
    def free(self) -> bool:
        """Whether a question may have one."""
        return self._now is None

    def begin(self, job: Job, order: Submit, key: bytes | None) -> HeadStart:
        """Give the engine this order, under a number of its own."""
        self._now = HeadStart(job, key, self._next)
        self._next += 1
        self.engine.send(msgspec.structs.replace(order, number=self._now.number))
        return self._now

    def holds(self, report: Said) -> bool:
        """Whether this report is of the run whose question is not stored yet; it is kept then."""
        if self._now is None or report.number != self._now.number:
            return False
        self._now.said.append(report)
        return True

    def take(self, job: Job) -> HeadStart | None:
        """The run of this question, which stands in the journal now; None where it has none."""
        if self._now is None or self._now.job is not job:
            return None
        taken, self._now = self._now, None
        return taken

    def withdraw(self, job: Job) -> bool:
        """Nobody is to hear of this question's run; False where it has none."""
        taken = self.take(job)
        if taken is not None:
            self.engine.send(Cancel(taken.number))
        return taken is not None

    def lost(self) -> HeadStart | None:
        """The engine is gone; returns the run that went with it."""
        gone, self._now = self._now, None
        return gone
