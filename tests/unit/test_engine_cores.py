"""Cores that an engine loses, by a cpuset or because they are switched off: it goes on with fewer threads."""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from configured import configured

from edged.engine.client import EngineClient, EngineGone, EngineSaid
from edged.engine.cores import Cores
from edged.engine.messages import Log, Ready, Report

NOWHERE = 4000
"""A core that no machine of ours has: the kernel refuses it as one outside of the cpuset."""


class Lines:
    """A log."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, object]]] = []

    def say(self, level: str, event: str, fields: dict[str, object]) -> None:
        """Write a line."""
        self.told.append((level, event, fields))


@pytest.fixture
def apart() -> Iterator[ThreadPoolExecutor]:
    """A thread whose affinity is nobody else's."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_cores_are_taken_away_and_come_back(apart: ThreadPoolExecutor) -> None:
    """No more threads than cores, each change is one line, and what it takes to mend it stands in it."""
    wanted = tuple(sorted(os.sched_getaffinity(0)))[:2]
    assert len(wanted) == 2, "losing one takes two cores"
    lines = Lines()

    def lose_one() -> list[int]:
        cores = Cores(wanted, lines.say)
        cores.pin()
        counts = [cores.left(2), cores.left(1)]
        os.sched_setaffinity(0, wanted[:1])
        counts += [cores.left(2), cores.left(2)]
        os.sched_setaffinity(0, wanted)
        return [*counts, cores.left(2), cores.left(2)]

    assert apart.submit(lose_one).result() == [2, 1, 1, 1, 2, 2]
    assert [(level, event) for level, event, _ in lines.told] == [
        ("warning", "cores_taken_away"),
        ("info", "cores_are_back"),
    ]
    assert lines.told[0][2]["cores"] == str(wanted[0])
    assert "AllowedCPUs" in str(lines.told[0][2]["mend"])


def test_nothing_wanted_is_nothing_watched() -> None:
    """Without cores of its own an engine has as many threads as it was told."""
    lines = Lines()
    cores = Cores((), lines.say)
    cores.pin()
    assert (cores.left(64), lines.told) == (64, [])


def test_an_engine_none_of_whose_cores_are_left() -> None:
    """It starts on what there is, and says so: it died at each start, until the node refused all questions."""
    told: queue.SimpleQueue[EngineSaid | EngineGone] = queue.SimpleQueue()
    scripted = Path(__file__).parents[1] / "scripted_engine.py"
    client = EngineClient(told.put, (sys.executable, str(scripted)))
    client.start(configured(cores=(NOWHERE,), decode_threads=2, prefill_threads=2))
    seen: list[Report] = []
    try:
        while not seen or not isinstance(seen[-1], Ready):
            event = told.get(timeout=60)
            assert isinstance(event, EngineSaid), event
            seen.append(event.report)
    finally:
        client.stop(10.0)
    [line] = [one for one in seen if isinstance(one, Log) and one.event == "cores_taken_away"]
    assert line.fields["wanted"] == str(NOWHERE)
    assert isinstance(seen[-1], Ready)
    assert seen[-1].cores == tuple(sorted(os.sched_getaffinity(0)))
