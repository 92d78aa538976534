"""Whether other programs want the cores that this process computes on, and how many threads are the fastest then.

llama.cpp's threads meet after each operation, some hundred times a pass, and wait for each other in loops. Where
another program takes one of their cores, all wait for the thread that does not run: two threads beside one busy
program wrote 1.4 to 25 tokens a second on two cores, one thread 75, and two with nobody beside 147 (SmolLM2, by
hand; `tests/bench/peers.py --neighbours 1` compares what comes of it). So a thread is given up, and tried again
later. Model thread.

The kernel tells how long each thread was ready to run and did not (proc_pid_schedstat, Documentation/scheduler/
sched-stats). A program that sleeps in between, such as a broker, costs little of that and takes no thread away.
Whether those who took one have gone is seen from how busy the cores are (/proc/stat), else by a trial: one in vain
costs a pass, and a pass that reads a prompt may take seconds. It is seen at rest, too: the next question may be
short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from edged.core.proc_stat import busy_ticks
from edged.engine.cores import Say

CROWDED = 0.25
"""Share of its time that a thread waits for a core. Beside one busy program it is a half; without, 0.02 to 0.04."""
LOOK_S = 0.4
"""Least time between two looks; a kernel's time slice takes some ms."""
WANTED_S = 0.12
"""So long a thread must have wanted to run to tell anything, in however many short answers."""
RESTS = 0.02
"""Share of the time that a thread wants to run which computes nothing: it takes in messages, or writes to disk."""
OTHERS = 0.5
"""Cores that others keep busy: from there on a thread is not tried again."""
RETRY_S, RETRY_MAX_S = 2.0, 60.0
"""A thread that was given up is tried again after so long; if in vain, after twice as long each time."""

TELL_S = 600.0
"""Least time between two lines in the log."""

Times = dict[int, tuple[float, float]]
"""Of each thread by its id: seconds that it ran, and that it was ready to and did not."""


def read_times(tasks: Path = Path("/proc/self/task")) -> Times:
    """Those of this process now; empty where the kernel does not tell."""
    found = {}
    for task in tasks.iterdir():
        with suppress(OSError, ValueError):  # it has just ended; a kernel without
            ran, waited, _ = (task / "schedstat").read_text("ascii").split()
            found[int(task.name)] = (int(ran) / 1e9, int(waited) / 1e9)
    return found


def read_busy(cores: Collection[int], stat: Path = Path("/proc/stat")) -> float:
    """Seconds since the boot that these cores were busy, together, with whatever; 0.0 where it is not told."""
    with suppress(OSError, ValueError):
        return (busy_ticks(stat.read_text("ascii"), cores) or 0) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Crowd:
    """Those who want our cores.

    Args:
        say: writes to the log.
        read: times of our threads.
        busy: seconds that our cores were busy so far.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        say: Say,
        read: Callable[[], Times] = read_times,
        busy: Callable[[], float] = lambda: read_busy(os.sched_getaffinity(0)),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._read = read
        self._busy = busy
        self._clock = clock
        self._times = read()
        self._wanted: Times = {}
        self._busy_s = busy()
        self._others = 0.0
        self._looked_at = self._changed_at = clock()
        self._told_at = -TELL_S
        self._retry_s = RETRY_S
        self._spared = 0

    def spare(self, threads: int, *, computed: bool) -> int:
        """How many of so many threads had better not compute now; never all. Looks at most each `LOOK_S`.

        Args:
            threads: that would compute.
            computed: whether there was a pass since the last call. Beside busy programs pulses wait as well, and
                every few seconds of rest a thread was given up, which the next prompt was then read without.
        """
        self._spared = min(self._spared, threads - 1)
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._judge(self._waiting(now, computed=computed), threads, now)
        return self._spared

    def _judge(self, share: float, threads: int, now: float) -> None:
        passed_s = now - self._changed_at
        if share >= CROWDED:
            if self._spared == threads - 1:
                return
            if passed_s < self._retry_s:  # it was tried again, or one was not enough
                self._retry_s = min(RETRY_MAX_S, 2 * self._retry_s)
            else:
                self._retry_s = RETRY_S
            self._spared += 1
            self._changed_at = now
            if now - self._told_at >= TELL_S:
                self._told_at = now
                self._say("info", "cores_shared", {"threads": threads - self._spared, "of": threads})
        elif self._spared and passed_s >= self._retry_s and self._others < OTHERS:
            self._spared -= 1
            self._changed_at = now

    def _waiting(self, now: float, *, computed: bool) -> float:
        """Share of its time that the worst of our threads waited; 0.0 as long as none wanted enough of it."""
        elapsed_s, before, busy_s = now - self._looked_at, self._times, self._busy_s
        self._looked_at, self._times, self._busy_s = now, self._read(), self._busy()
        ours_s = sum(ran - before.get(task, (ran, 0.0))[0] for task, (ran, _) in self._times.items())
        self._others = (self._busy_s - busy_s - ours_s) / elapsed_s
        if not computed:
            return 0.0
        for task, (ran, waited) in self._times.items():
            ran_before, waited_before = before.get(task, (ran, waited))
            if ran - ran_before + waited - waited_before > RESTS * elapsed_s:
                ran_s, waited_s = self._wanted.get(task, (0.0, 0.0))
                self._wanted[task] = (ran_s + ran - ran_before, waited_s + waited - waited_before)
        shares = [
            waited_s / (ran_s + waited_s)
            for ran_s, waited_s in self._wanted.values()
            if ran_s + waited_s >= WANTED_S
        ]
        if not shares:
            return 0.0
        self._wanted.clear()
        return max(shares)
