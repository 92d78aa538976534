"""Calls of the node's own tools in the middle of a question: between two rounds of the model, see `core.rounds`.

Belongs to the dispatcher thread. What a question may call is said here, its calls are handed to the tools' process,
and their results become the model's next prompt; that it goes on then is the desk's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from edged.core import rounds
from edged.core.job import Job
from edged.core.tools import Call, Tool
from edged.engine.messages import Ended
from edged.node import submission
from edged.tools.client import ToolsRan


class Tools(Protocol):
    """The node's own tools, as far as running jobs need them; the results come back as `ToolsRan`."""

    @property
    def tools(self) -> dict[str, Tool]:
        """What they are, by name."""

    def run(self, number: int, run: int, calls: tuple[Call, ...], node: str, vitals: dict[str, Any]) -> None:
        """Run some calls."""

    def give_up(self, run: int) -> None:
        """Nobody waits for these calls any more."""


@dataclass(slots=True)
class Calling:
    """What jobs call.

    Attributes:
        node: this node's name, for tools.
        toolbox: the node's own tools.
        rounds_max: rounds of calls that a question may make.
        vitals: the board's, as health tells them, for tools.
    """

    node: str
    toolbox: Tools
    rounds_max: int = 4
    vitals: dict[str, Any] = field(default_factory=dict)
    _runs: int = 0

    def offered(self, job: Job) -> dict[str, Any]:
        """What the model may call in this job's next round, as fields of `Submit`.

        Raises:
            Refusal: `unsupported`; a tool of the node is not there, or not any more.
        """
        return submission.offered(job, self.toolbox.tools, self.rounds_max)

    def begin(self, job: Job, report: Ended) -> bool:
        """Have the tools run that a round ended with; False where it called none of the node's."""
        if not report.calls or report.calls[0].name not in submission.local_names(job):
            return False
        self._runs += 1
        job.submitted = False
        job.progress = rounds.called(job.progress, report.text, report.calls, self._runs)
        self.toolbox.run(job.number, self._runs, report.calls, self.node, self.vitals)
        return True

    def ran(self, job: Job, event: ToolsRan) -> bool:
        """The tools of one round are done; False where the question is over, or began anew meanwhile."""
        if not job.progress.calls or job.progress.run != event.run:
            return False
        job.progress = rounds.answered(job.progress, event.results)
        return True

    def give_up(self, job: Job) -> None:
        """It waits for its calls no longer, where it did."""
        if job.progress.calls:
            self.toolbox.give_up(job.progress.run)
