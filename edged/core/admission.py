"""Whether a new question may come in. Pure: a table from the node's load to a refusal or none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edged.core.news import Phase
from edged.core.question import Priority
from edged.core.vitals import Level
from edged.errors import Refusal

RETRY_MIN_MS = 250
MODEL_RETRY_MS = 30_000
"""After how long to ask a node again whose model file must be mended by a person first."""

DRAIN_RETRY_MS = 30_000
"""A node drains before it is updated: about as long as it then takes to be back with its model."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The queue's bounds, from settings `[limits]`."""

    jobs: int
    size_bytes: int
    client_jobs: int


@dataclass(frozen=True, slots=True)
class Shed:
    """What heat keeps out.

    Attributes:
        level: how hot the board is.
        admits: priorities that come in all the same.
        retry_after_ms: when it may have cooled down.
        reason: of the level, in words.
    """

    level: Level
    admits: tuple[Priority, ...]
    retry_after_ms: int
    reason: str = ""

    def refusal(self, priority: Priority) -> Refusal | None:
        """The refusal of a question of this priority, or None."""
        if priority in self.admits:
            return None
        others = f" or mark it {' or '.join(self.admits)}" if self.admits else ""
        return Refusal(
            "hot",
            f"this board is too hot for {priority} questions; ask again later, ask another node{others}",
            retry_after_ms=self.retry_after_ms,
            details={"level": self.level, "admits": list(self.admits), "reason": self.reason},
        )


@dataclass(frozen=True, slots=True)
class Load:
    """How full the node is when a question comes.

    Attributes:
        jobs, size_bytes: taken on and not finished, all clients.
        client_jobs: the same for the asking client.
        service_s: seconds that a question occupies a slot, lately.
        slots: questions that run at once.
        engine: `ready` and `starting` take questions; `failed` waits for a better model file; `broken` keeps
            crashing.
        reason: why the engine is not ready.
        shed: what heat keeps out; None while it keeps out nothing.
        draining: the node takes nothing new on, but for what a pool had dealt to it before it left.
    """

    jobs: int
    size_bytes: int
    client_jobs: int
    service_s: float
    slots: int
    engine: Phase
    reason: str = ""
    draining: bool = False
    shed: Shed | None = None


def refuse(load: Load, bound: Bound, question_bytes: int, priority: Priority = "normal") -> Refusal | None:
    """The refusal of a question of this size and priority, or None when it may come in."""
    unfit = _unfit(load, priority)
    if unfit is not None:
        return unfit
    if load.client_jobs >= bound.client_jobs:
        return Refusal(
            "busy",
            f"{load.client_jobs} of your questions are waiting, which is a client's share; wait for an answer",
            retry_after_ms=retry_after_ms(load, of=load.client_jobs),
            details={"waiting": load.client_jobs, "limit": bound.client_jobs},
        )
    if load.jobs >= bound.jobs:
        return Refusal(
            "busy",
            f"the queue is full with {load.jobs} questions; ask again later",
            retry_after_ms=retry_after_ms(load, of=load.jobs),
            details={"waiting": load.jobs, "limit": bound.jobs},
        )
    if load.size_bytes + question_bytes > bound.size_bytes:
        return Refusal(
            "busy",
            f"the queue has {load.size_bytes} bytes of questions and may have {bound.size_bytes}: "
            f"there is no room for {question_bytes} more; ask again later",
            retry_after_ms=retry_after_ms(load, of=load.jobs),
            details={"bytes": load.size_bytes + question_bytes, "limit": bound.size_bytes},
        )
    return None


def _unfit(load: Load, priority: Priority) -> Refusal | None:
    """The refusal of a node that takes no such question, however few it has."""
    if load.draining:
        return Refusal(
            "draining",
            "this node takes no new questions just now; ask another one, or this one later",
            retry_after_ms=DRAIN_RETRY_MS,
        )
    if load.engine == "failed":
        return Refusal(
            "loading", f"this node has no usable model: {load.reason}", retry_after_ms=MODEL_RETRY_MS
        )
    if load.engine == "broken":
        return Refusal(
            "internal", f"the engine does not stay up: {load.reason}", retry_after_ms=MODEL_RETRY_MS
        )
    return None if load.shed is None else load.shed.refusal(priority)


def retry_after_ms(load: Load, *, of: int) -> int:
    """When a place may be free: one slot turn at the measured pace, and a tenth of the line on top.

    The tenth keeps those who are turned away from coming back all at once for the one place.
    """
    turn_s = load.service_s / max(1, load.slots)
    return max(RETRY_MIN_MS, math.ceil(1000 * turn_s * (1 + of / 10)))
