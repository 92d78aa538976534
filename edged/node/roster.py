"""Who is here: the node's jobs by name and by number, and what they count for. Belongs to the dispatcher thread."""

from __future__ import annotations

from dataclasses import dataclass, field

from edged.core.job import Job, State


@dataclass(slots=True)
class Roster:
    """All jobs that are not over.

    Attributes:
        named: by (client, id).
        numbered: by the journal's number, once it is known.
        size_bytes: payloads of all of them.
        of_client: how many each client has.
    """

    named: dict[tuple[str, str], Job] = field(default_factory=dict)
    numbered: dict[int, Job] = field(default_factory=dict)
    size_bytes: int = 0
    of_client: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.named)

    @property
    def finishing(self) -> bool:
        """Whether a last message is still on its way into the journal."""
        return any(job.state is State.FINISHING for job in self.numbered.values())

    def add(self, job: Job) -> None:
        """Count a job from now on."""
        client = job.question.client
        self.named[job.key] = job
        self.size_bytes += job.size_bytes
        self.of_client[client] = self.of_client.get(client, 0) + 1

    def number(self, job: Job, number: int) -> None:
        """The journal has named it."""
        job.number = number
        self.numbered[number] = job

    def remove(self, job: Job) -> None:
        """It is over, or was never taken."""
        client = job.question.client
        job.state = State.GONE
        if self.named.get(job.key) is job:
            del self.named[job.key]
        self.numbered.pop(job.number, None)
        self.size_bytes -= job.size_bytes
        left = self.of_client.get(client, 1) - 1
        if left > 0:
            self.of_client[client] = left
        else:
            self.of_client.pop(client, None)

    def live(self, number: int) -> Job | None:
        """The job of this number, unless its last message is written already."""
        job = self.numbered.get(number)
        return None if job is None or job.state is State.FINISHING else job
