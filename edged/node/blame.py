"""Blame: which question breaks the engine, and its end as `poison`. Belongs to the dispatcher thread.

The engine does not say what it died of. Suspect is what had a slot, and the one question that was being measured:
they are measured one after the other, in the order in which they were given. Suspects run again one at a time, for
else one that crashes the engine would make poison of all that ran beside it each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edged.core import answer_cache
from edged.core.job import Job, State
from edged.errors import Refusal
from edged.node.course import Course
from edged.node.roster import Roster


@dataclass(slots=True)
class Blame:
    """Who is suspect.

    Attributes:
        course: where what is to blame ends.
        roster: the jobs.
        attempts_max: times that the engine broke under a job, after which the job is `poison`.
    """

    course: Course
    roster: Roster
    attempts_max: int
    _unmeasured: dict[int, None] = field(default_factory=dict)

    def given(self, number: int) -> None:
        """The engine has this run, and will measure its prompt."""
        self._unmeasured[number] = None

    def measured(self, number: int) -> None:
        """It has measured it, or refused it."""
        self._unmeasured.pop(number, None)

    def engine_gone(self) -> int | None:
        """It measures no more; returns the run that it may have ended over, None where all were measured."""
        measuring = next(iter(self._unmeasured), None)
        self._unmeasured.clear()
        return measuring

    def is_proven(self, job: Job) -> bool:
        """Whether the engine broke under it as often as it may."""
        return job.crashes >= self.attempts_max

    def has_to_wait(self, job: Job) -> bool:
        """Whether it is suspect and the engine has another suspect, or will have it again once its tools ran."""
        return job.crashes > 0 and any(
            other.crashes and (other.submitted or other.state is State.RUNNING)
            for other in self.roster.numbered.values()
            if other is not job and other.away is None
        )

    def crashes_it(self, job: Job) -> None:
        """End a question that is proven to."""
        self.poison(job, f"crashed the engine {job.crashes} times")

    def poison(self, job: Job, what: str) -> None:
        """End a question for `what` it did, and those that would do the same."""
        self._fail(job, what)
        key = answer_cache.key(job.question)
        for other in () if key is None else list(self.roster.numbered.values()):
            # The same question under another id: it would crash the engine as often again.
            waits = other.crashes and other.state is State.WAITING
            if waits and answer_cache.key(other.question) == key:
                self._fail(other, what)

    def _fail(self, job: Job, what: str) -> None:
        message = f"this question {what}; change it before you ask again"
        self.course.fail(job, Refusal("poison", message, details={"attempts": job.attempts}))
