"""A scheduler over a scripted model, and everything that it says: for tests of the engine without llama.cpp.

The clock moves a millisecond for each row of a pass, so that rates and deadlines are the same in each run.
"""

from __future__ import annotations

from typing import Any

import pytest
from scripted import PLAIN, Clock, ScriptedModel, preparation, submit

from edged.core.question import Message
from edged.engine.messages import Ended, Piece, Report, Started, Submit
from edged.engine.scheduler import Scheduler
from edged.engine.sequence import Sequence

PREFILL, DECODE = 4, 2


class Rig:
    """A scheduler, its model, a clock that moves a millisecond a row, and everything it has said.

    Args:
        model: scripted.
        template: the model's chat template.

    Attributes:
        flat: a pass takes a millisecond whatever is in it, so that drafts pay.
    """

    def __init__(self, model: ScriptedModel, template: str = PLAIN, **changes: Any) -> None:
        self.model = model
        self.clock = Clock()
        self.preparation = preparation(model, template, **changes)
        self.reports: list[Report] = []
        self.flat = False
        self.scheduler = Scheduler(
            model.vocabulary,
            model.passes,
            model.make_chooser,
            slots=model.passes.streams,
            decode_threads=DECODE,
            prefill_threads=PREFILL,
            emit=self.reports.extend,
            clock=self.clock,
        )
        model.passes.during = self._pass

    def _pass(self) -> None:
        self.clock.advance(0.001 * (1 if self.flat else self.model.passes.rows_of[-1]))

    def submit(self, order: Submit) -> Sequence:
        """Measure a question and put it in line."""
        return self.put_in_line(self.measure(order))

    def measure(self, order: Submit) -> Sequence:
        """Measure a question."""
        return self.preparation.prepare(order, self.clock())

    def put_in_line(self, sequence: Sequence) -> Sequence:
        """Submit a measured question."""
        self.scheduler.announce(sequence)
        self.scheduler.submit(sequence)
        return sequence

    def ask(self, number: int, text: str = "hi", **changes: Any) -> Sequence:
        """Submit a question of one message."""
        return self.submit(submit(number, Message("user", text), **changes))

    def run(self, limit: int = 5000) -> None:
        """Step until there is nothing to do."""
        for _ in range(limit):
            if not self.scheduler.step():
                return
        pytest.fail("the scheduler does not come to an end")

    def ended(self, number: int) -> Ended:
        """How a question ended."""
        [ended] = [report for report in self.reports if isinstance(report, Ended) and report.number == number]
        return ended

    def pieces(self, number: int, kind: str = "text") -> str:
        """Everything of a kind that was sent of an answer."""
        return "".join(
            report.text
            for report in self.reports
            if isinstance(report, Piece) and report.number == number and report.kind == kind
        )

    def started(self) -> list[int]:
        """Numbers of the questions that got a slot, in order."""
        return [report.number for report in self.reports if isinstance(report, Started)]

    def check_books(self) -> None:
        """Each stream holds what the books say, token by token."""
        assert [slot.held for slot in self.scheduler.slots._slots] == self.model.passes.kv  # noqa: SLF001

    def check_idle(self) -> None:
        """Nothing runs, nothing is leaked, the books agree with the cache."""
        assert self.scheduler.running == 0
        assert self.scheduler.waiting == 0
        assert self.model.open_choosers == 0
        assert self.scheduler.slots.held_tokens == sum(map(len, self.model.passes.kv))
