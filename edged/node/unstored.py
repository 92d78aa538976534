"""Questions that the journal did not take, tried again until their deadline. Belongs to the dispatcher thread.

One is tried in turn, for the journal takes all that it is given at once or nothing: so none that is larger than the
room that is left keeps a smaller one out. Those of one session keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from edged.core.job import Job

RETRY_S = 1.0

log = structlog.get_logger()


@dataclass(slots=True)
class Unstored:
    """Those questions, in order of arrival.

    Attributes:
        clock: monotonic seconds.
        store: gives one to the journal.
    """

    clock: Callable[[], float]
    store: Callable[[Job], None]
    _jobs: dict[Job, bool] = field(default_factory=dict)  # True while the journal has it
    _turn: int = 0
    _retry_at: float = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    def holds_back(self, job: Job) -> bool:
        """Keep a new one that goes on with the conversation of one that waits here; False for any other."""
        if not any(map(job.follows, self._jobs)):
            return False
        self._jobs[job] = False
        return True

    def failed(self, job: Job, reason: str) -> None:
        """The journal did not take it; the log has that once, though it may be tried for hours."""
        if job not in self._jobs:
            log.error("journal_failed", job_id=job.question.id, reason=reason)
        self._jobs[job] = False
        self._retry_at = self.clock() + RETRY_S

    def settled(self, job: Job) -> None:
        """The journal took it, or knew it: where it had refused before, there may be room for all now."""
        if self._jobs.pop(job, None) is not None:
            for other in self._waiting():
                self._try(other)

    def drop(self, job: Job) -> None:
        """It was answered without being stored."""
        self._jobs.pop(job, None)

    def over(self, now: float) -> list[Job]:
        """Those that wait no longer, as they were taken back or are late; nothing before it is time to look."""
        if now < self._retry_at:
            return []
        late = [job for job in self._waiting() if job.deadline is not None and job.deadline <= now]
        gone = [job for job in self._waiting() if job.cancel_asked or job in late]
        for job in gone:
            del self._jobs[job]
        return gone

    def try_one(self, now: float) -> None:
        """Give the journal the next one, if it is time."""
        if now < self._retry_at:
            return
        self._retry_at = now + RETRY_S
        jobs = list(self._jobs)
        ready = [job for job in self._waiting() if not any(map(job.follows, jobs[: jobs.index(job)]))]
        if ready:
            self._turn += 1
            self._try(ready[self._turn % len(ready)])

    def _waiting(self) -> list[Job]:
        return [job for job, trying in self._jobs.items() if not trying]

    def _try(self, job: Job) -> None:
        self._jobs[job] = True
        self.store(job)
