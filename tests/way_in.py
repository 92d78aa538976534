"""The way in before the desk of `desk_rig`, and a journal that answers when a test says so."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from desk_rig import TOPICS, Rig

from edged.core.admission import Bound, Load
from edged.core.job import Job
from edged.core.link import Arrived, Delivery
from edged.core.parsing import Bounds
from edged.core.question import Properties
from edged.core.records import Instant, JobRow
from edged.node.controls import Controls
from edged.node.intake import Intake

DEADLINE_S = 5.0


@dataclass
class Disk:
    """A journal that writes down what it is asked, and answers when a test says so."""

    asked: list[object] = field(default_factory=list)

    def accept(self, ticket: object, _row: JobRow, *, begun: bool = False) -> None:
        """Store a question."""
        del begun
        self.asked.append(ticket)

    def recall(self, ticket: object, _client: str, _job_id: str, _digest: bytes) -> None:
        """Look for an answer."""
        self.asked.append(ticket)

    def status(self, ticket: object, _client: str, _job_id: str) -> None:
        """Look a question up."""
        self.asked.append(ticket)

    def forget(self, ticket: object, _client: str, _name: str) -> None:
        """Forget a session."""
        self.asked.append(ticket)


class WayIn:
    """The way in, before a desk; `full`: one that takes no question on."""

    def __init__(self, *, full: bool = False) -> None:
        self.rig, self.disk, self.full = Rig(), Disk(), full
        self.jobs: dict[str, Job] = {}
        self.intake = Intake(
            self.rig.desk,
            Controls(self.rig.desk, self.disk),
            self.disk,
            Bounds(),
            Bound(64, 1 << 20, 64),
            lambda jobs: Load(64 if self.full else 0, 0, jobs, 1.0, 1, "ready"),
            lambda: Instant("boot", self.rig.clock()),
            DEADLINE_S,
            slots=1,
        )

    def copies(self, *qos: int, name: str = "q", prompt: str = "?", **fields: str | None) -> None:
        """The same question comes so often."""
        for mid, one in enumerate(qos, start=1):
            delivery = Delivery(mid, one, 1)
            payload = msgspec.json.encode({"id": name, "prompt": prompt, **fields})
            self.intake.arrived(Arrived(TOPICS.ask("c"), payload, Properties(), False, delivery))

    def tried(self, later_s: float = 0.0) -> list[str]:
        """The questions that the journal was asked to store since it was looked at last, and a while later."""
        self.rig.clock.now += later_s
        self.intake.tick(self.rig.clock())
        tried = {job.question.id: job for job in self.disk.asked if isinstance(job, Job)}
        self.disk.asked.clear()
        self.jobs |= tried
        return list(tried)

    def forget(self, session: str) -> None:
        """A session is to be forgotten."""
        payload = msgspec.json.encode({"op": "forget", "id": "f", "session": session})
        self.intake.arrived(Arrived(TOPICS.control("c"), payload, Properties(), False, Delivery(1, 0, 1)))
