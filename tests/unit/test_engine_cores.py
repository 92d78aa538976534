"""Cores that an engine loses, by a cpuset or because they are switched off: it goes on with fewer threads."""

from __future__ import annotations

import os
import queue
import sys
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


class Board:
    """Threads on eight cores, within a cpuset.

    Args:
        forgets: it sets threads free whenever the cpuset changes, as Linux does up to 6.1.
    """

    def __init__(self, *, forgets: bool) -> None:
        self._forgets = forgets
        self.cpuset = self.asked = tuple(range(8))

    def allow(self, *cores: int) -> None:
        """Change the cpuset."""
        self.cpuset = cores
        if self._forgets or not set(self.asked) & set(cores):
            self.asked = cores

    def cores(self) -> tuple[int, ...]:
        """Where the threads may run."""
        return tuple(core for core in self.asked if core in self.cpuset)

    def take(self, cores: tuple[int, ...]) -> None:
        """Ask for others."""
        if set(cores) & set(self.cpuset):
            self.asked = cores


@pytest.mark.parametrize("forgets", [False, True])
def test_cores_are_taken_away_and_come_back(forgets: bool) -> None:  # noqa: FBT001 - a table
    """No more threads than cores, and the wanted ones as soon as they may be used; each change is one line."""
    board, lines = Board(forgets=forgets), Lines()
    cores = Cores((4, 5, 6, 7), lines.say, board)
    seen = []
    for allowed in (range(8), (2, 3, 4, 5), (0, 1), (0, 1, 2), range(8), range(4, 8)):
        board.allow(*allowed)
        seen.append((cores.left(4), cores.left(2), board.cores()))
    assert seen == [
        (4, 2, (4, 5, 6, 7)),
        (2, 2, (4, 5)),
        (2, 2, (0, 1)),
        (3, 2, (0, 1, 2)) if forgets else (2, 2, (0, 1)),
        (4, 2, (4, 5, 6, 7)),
        (4, 2, (4, 5, 6, 7)),
    ]
    events = [(level, event) for level, event, _ in lines.told]
    assert events == [("warning", "cores_taken_away")] * (2 + forgets) + [("info", "cores_are_back")]
    assert (lines.told[0][2]["cores"], lines.told[0][2]["wanted"]) == ("4-5", "4-7")
    assert "AllowedCPUs" in str(lines.told[0][2]["mend"])


def test_nothing_wanted_is_nothing_watched() -> None:
    """Without cores of its own an engine has as many threads as it was told."""
    lines = Lines()
    cores = Cores((), lines.say)
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
