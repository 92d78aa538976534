"""Whether a new question may come in. Pure: a table from the node's load to a refusal or none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edged.errors import Refusal

RETRY_MIN_MS = 250
MODEL_RETRY_MS = 30_000
"""After how long to ask a node again whose model file must be mended by a person first."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The queue's bounds, from settings `[limits]`."""

    jobs: int
    size_bytes: int
    client_jobs: int


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
    """

    jobs: int
    size_bytes: int
    client_jobs: int
    service_s: float
    slots: int
    engine: Literal["starting", "ready", "failed", "broken"]
    reason: str = ""
    draining: bool = False


def refuse(load: Load, bound: Bound, question_bytes: int) -> Refusal | None:
    """The refusal of a question of this size, or None when it may come in."""
    if load.draining:
        return Refusal("draining", "this node takes no new questions just now; ask another one")
    if load.engine == "failed":
        return Refusal(
            "loading", f"this node has no usable model: {load.reason}", retry_after_ms=MODEL_RETRY_MS
        )
    if load.engine == "broken":
        return Refusal(
            "internal", f"the engine does not stay up: {load.reason}", retry_after_ms=MODEL_RETRY_MS
        )
    if load.client_jobs >= bound.client_jobs:
        return Refusal(
            "busy",
            f"{load.client_jobs} of your questions are waiting, which is a client's share; wait for an answer",
            retry_after_ms=retry_after_ms(load, of=load.client_jobs),
            details={"waiting": load.client_jobs, "limit": bound.client_jobs},
        )
    if load.jobs >= bound.jobs or load.size_bytes + question_bytes > bound.size_bytes:
        return Refusal(
            "busy",
            f"the queue is full with {load.jobs} questions; ask again later",
            retry_after_ms=retry_after_ms(load, of=load.jobs),
            details={"waiting": load.jobs, "limit": bound.jobs},
        )
    return None


def retry_after_ms(load: Load, *, of: int) -> int:
    """When a place may be free: one slot turn at the measured pace, and a tenth of the line on top.

    The tenth keeps those who are turned away from coming back all at once for the one place.
    """
    turn_s = load.service_s / max(1, load.slots)
    return max(RETRY_MIN_MS, math.ceil(1000 * turn_s * (1 + of / 10)))
