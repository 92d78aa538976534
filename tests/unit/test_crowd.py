"""Threads are given up where other programs take their cores, and tried again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from edged.engine.crowd import CROWDED, RETRY_MAX_S, TELL_S, Crowd, Times, read_busy, read_times

STEP_S = 0.5


class Kernel:
    """Two threads that compute all the time on cores of which others may want some, and the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits = 0.0
        self.rests = False
        self.computed = True
        self.computes = 1.0  # share of the time
        self._times: Times = {1: (0.0, 0.0), 2: (0.0, 0.0), 3: (0.0, 0.0)}
        self.others = 0.0
        self._busy_s = 0.0
        self.told: list[dict[str, object]] = []
        self.crowd = Crowd(self.say, lambda: dict(self._times), lambda: self._busy_s, lambda: self.now)

    def say(self, level: str, event: str, fields: dict[str, object]) -> None:
        """A line of the log."""
        assert (level, event) == ("info", "cores_shared")
        self.told.append({**fields, "at": self.now})

    def look(self, threads: int, waits: float) -> int:
        """Half a second later, in which the second thread waited for that share of it."""
        self.now += STEP_S
        self._busy_s += self.others * STEP_S
        for task, share in ((1, 0.0), (2, waits)):
            ran, waited = self._times[task]
            if not self.rests:
                wanted_s = STEP_S * self.computes
                self._times[task] = (ran + wanted_s * (1 - share), waited + wanted_s * share)
                self._busy_s += wanted_s * (1 - share)
        return threads - self.crowd.spare(threads, computed=self.computed and not self.rests)


def test_a_busy_neighbour_comes_and_goes() -> None:
    """One thread less within a second, now and then tried again, ever less often; all of them once it is gone."""
    kernel = Kernel()
    assert [kernel.look(2, 0.01) for _ in range(10)] == [2] * 10
    assert kernel.look(2, 0.5) == 1
    counts: list[int] = []
    for _ in range(600):  # five minutes: two threads are in each other's way, one has a core of its own
        counts.append(kernel.look(2, 0.5 if (counts or [1])[-1] == 2 else 0.02))
    assert counts[:60].count(2) <= 6
    assert counts[-240:].count(2) <= 4, "two minutes, tried at most each minute for half a second"
    back = [kernel.look(2, 0.02) for _ in range(int(RETRY_MAX_S / STEP_S) + 1)]
    assert back[-1] == 2
    assert [kernel.look(2, 0.02) for _ in range(20)] == [2] * 20
    assert len(kernel.told) == 1
    assert (kernel.told[0]["threads"], kernel.told[0]["of"]) == (1, 2)


def test_a_neighbour_that_is_seen_is_not_tried() -> None:
    """As long as the cores are busy with others no thread is tried again: each trial would cost a slow pass."""
    kernel = Kernel()
    kernel.look(2, 0.01)
    assert kernel.look(2, 0.5) == 1
    kernel.others = 0.97
    assert [kernel.look(2, 0.02) for _ in range(400)] == [1] * 400
    kernel.others = 0.1
    assert 2 in [kernel.look(2, 0.02) for _ in range(5)]


def test_answers_of_a_few_tokens() -> None:
    """They tell as long ones do, only later; and the thread is back before the next one is asked."""
    kernel = Kernel()
    kernel.computes = 0.08
    assert [kernel.look(2, 0.02) for _ in range(50)] == [2] * 50
    kernel.others = 0.9
    assert 1 in [kernel.look(2, 0.5) for _ in range(8)]
    kernel.rests = True
    assert [kernel.look(2, 0.0) for _ in range(50)] == [1] * 50
    kernel.others = 0.0
    assert 2 in [kernel.look(2, 0.0) for _ in range(5)]


def test_what_a_thread_waits_at_rest() -> None:
    """A pulse that comes late beside busy programs tells nothing of passes, however many come.

    8 ms of each half a second, and 4 that it waited, were measured beside two that kept both cores busy.
    """
    kernel = Kernel()
    kernel.computed = False
    kernel.computes = 0.024
    kernel.others = 1.9
    assert [kernel.look(2, 0.9) for _ in range(2_000)] == [2] * 2_000
    kernel.computed = True
    assert [kernel.look(2, 0.01) for _ in range(2_000)] == [2] * 2_000, "nor of what was waited before a pass"


def test_a_thread_that_seldom_runs() -> None:
    """One that takes in messages while others compute tells nothing of passes either."""
    kernel = Kernel()
    kernel.computes = 0.01
    kernel.others = 0.9
    assert [kernel.look(2, 0.9) for _ in range(2_000)] == [2] * 2_000


def test_one_thread_goes_on_whatever_happens() -> None:
    """There is nothing to give up, and at rest nothing is judged."""
    kernel = Kernel()
    assert [kernel.look(1, 0.9) for _ in range(20)] == [1] * 20
    kernel.rests = True
    assert [kernel.look(4, 0.9) for _ in range(20)] == [4] * 20


def test_programs_that_sleep_in_between_take_none() -> None:
    """A broker, a daemon that sends a piece of text after each pass."""
    kernel = Kernel()
    assert [kernel.look(4, 0.15) for _ in range(50)] == [4] * 50


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 1), st.booleans()), max_size=60))
def test_any_neighbours(steps: list[tuple[int, float, bool]]) -> None:
    """Never fewer than one thread, never more than asked for, never two fewer at one look, and few lines."""
    kernel = Kernel()
    before = 0
    for threads, waits, rests in steps:
        kernel.rests = rests
        left = kernel.look(threads, waits)
        assert 1 <= left <= threads
        assert threads - left <= before + 1
        before = threads - left
    assert len(kernel.told) <= 1 + STEP_S * len(steps) / TELL_S


def test_the_kernel_tells_of_threads_that_share_a_core() -> None:
    """Two processes on one core: each waits about half of its time. They write a line at once; print does not."""
    code = (
        "import os, sys, threading, time\n"
        "core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, (core,))\n"
        "both, begin = os.pipe()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        os.read(both, 1)\n"
        "        end = time.monotonic() + 1.0\n"
        "        while time.monotonic() < end: pass\n"
        "        os.write(1, open('/proc/self/task/%d/schedstat' % os.getpid(), 'rb').read())\n"
        "        os._exit(0)\n"
        "os.write(begin, b'gg'); os.wait(); os.wait()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert len(told.splitlines()) == 2
    for line in told.splitlines():
        ran, waited, _ = (int(word) for word in line.split())
        assert waited / (ran + waited) > CROWDED


def test_times_of_this_process() -> None:
    """All threads are told of, and one that computes runs."""
    done = threading.Event()
    found: list[int] = []

    def compute() -> None:
        found.append(threading.get_native_id())
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        done.wait(60)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        end = time.monotonic() + 60
        while not (found and sum(read_times().get(found[0], (0.0, 0.0))) > 0.01):
            assert time.monotonic() < end
        assert os.getpid() in read_times()
        assert 0 < read_busy(os.sched_getaffinity(0)) <= read_busy(range(os.cpu_count() or 1))
    finally:
        done.set()
        thread.join()
