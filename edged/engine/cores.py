"""The cores that the engine's threads may use: asked for at the start, and looked at while it runs.

A cpuset may be narrowed under a running service (`systemctl set-property edged AllowedCPUs=`, `docker update`, a
Kubernetes node that gives its cores away), and cores may be switched off; the kernel then moves the threads to what
is left. llama.cpp's threads wait for each other in loops: two that share a core took some hundred times as long as
one alone. Model thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from edged.core.topology import KEPT_AWAY, format_cores

Say = Callable[[str, str, dict[str, object]], None]
"""Takes level, event and fields of a line in the log."""


class Cores:
    """Those of this process.

    Args:
        wanted: by the daemon; none leaves all as it is, and as many as there ever were.
        say: writes to the log.
    """

    def __init__(self, wanted: tuple[int, ...], say: Say) -> None:
        self._wanted = wanted
        self._say = say
        self._told = wanted

    def pin(self) -> None:
        """Take the wanted cores, or where none of them may be used what this process has."""
        if self._wanted:
            with suppress(OSError):
                os.sched_setaffinity(0, self._wanted)

    def left(self, threads: int) -> int:
        """As many of so many threads as have a core of their own now; a change is told in the log."""
        if not self._wanted:
            return threads
        there = tuple(sorted(os.sched_getaffinity(0)))
        count = max(1, min(threads, len(there)))
        if there != self._told:
            self._told = there
            fields = {"cores": format_cores(there), "wanted": format_cores(self._wanted), "threads": count}
            if there == self._wanted:
                self._say("info", "cores_are_back", fields)
            else:
                self._say("warning", "cores_taken_away", {**fields, "mend": KEPT_AWAY})
        return count
