"""The cores that the engine's threads may use: asked for at the start, and looked at while it runs.

A cpuset may be changed under a running service (`systemctl set-property edged AllowedCPUs=`, `docker update`, a
Kubernetes node that gives its cores away), and cores may be switched off; the kernel then moves the threads to what
is left, and up to Linux 6.1 forgets where they wanted to be. llama.cpp's threads wait for each other in loops: two
that share a core took some hundred times as long as one alone. Model thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edged.core.topology import KEPT_AWAY, format_cores

Say = Callable[[str, str, dict[str, object]], None]
"""Takes level, event and fields of a line in the log."""


class Affinity(Protocol):
    """Where the threads of this process run."""

    def cores(self) -> tuple[int, ...]:
        """Cores that the calling thread may use now, ascending."""

    def take(self, cores: tuple[int, ...]) -> None:
        """Ask for these, for all threads; those that may not be used stay out, and where none may all stays."""


class Kernel:
    """The real one: sched_setaffinity(2), proc(5)."""

    def cores(self) -> tuple[int, ...]:
        """Without those that are switched off or outside of the cpuset."""
        return tuple(sorted(os.sched_getaffinity(0)))

    def take(self, cores: tuple[int, ...]) -> None:
        """The threads that are there; later ones have the mask of the thread that makes them."""
        try:
            os.sched_setaffinity(0, cores)
        except OSError:  # EINVAL: none of them may be used
            return
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(task.name), cores)


class Cores:
    """Those of this process.

    Args:
        wanted: by the daemon; none leaves all as it is, and as many as there ever were.
        say: writes to the log.
        affinity: what holds the threads.
    """

    def __init__(self, wanted: tuple[int, ...], say: Say, affinity: Affinity | None = None) -> None:
        self._wanted = wanted
        self._say = say
        self._affinity = Kernel() if affinity is None else affinity
        self._told = wanted

    def left(self, threads: int) -> int:
        """Take the wanted cores; as many of so many threads as have a core of their own. A change is one line."""
        if not self._wanted:
            return threads
        if self._affinity.cores() != self._wanted:
            self._affinity.take(self._wanted)
        there = self._affinity.cores()
        count = max(1, min(threads, len(there)))
        if there != self._told:
            self._told = there
            fields = {"cores": format_cores(there), "wanted": format_cores(self._wanted), "threads": count}
            if there == self._wanted:
                self._say("info", "cores_are_back", fields)
            else:
                self._say("warning", "cores_taken_away", {**fields, "mend": KEPT_AWAY})
        return count
