"""What a fault test ran: its size factor, and the note of its figures of which `report.py` makes the table.

Nothing is measured here; each test notes its own figures once everything has been checked.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

RECORD = Path(__file__).parents[2] / ".cache" / "faults.jsonl"
"""One line a test that passed; the last one of a name counts."""


class Figures(msgspec.Struct, frozen=True):
    """One test's line.

    Attributes:
        fault: what was done to the system.
        test: name of the test.
        trials: how many times, in `unit`s.
        lost: trials after which something acknowledged was missing; a test that passes says 0.
        also: what else is worth knowing.
        factor: how many times the CI size this was.
        seconds: how long it took.
    """

    fault: str
    test: str
    trials: int
    unit: str
    lost: int
    also: str
    factor: int
    seconds: float


class Trial:
    """One run of a fault test.

    Attributes:
        factor: how many times the CI size to run: EDGED_SOAK (10 without it) under `--soak`, otherwise 1.
    """

    def __init__(self, test: str, *, soak: bool) -> None:
        self.factor = soak_factor(soak=soak)
        self._test = test
        self._began_s = time.monotonic()

    def note(self, fault: str, trials: int, unit: str, *, lost: int = 0, also: str = "") -> None:
        """Write down what ran."""
        seconds = round(time.monotonic() - self._began_s, 1)
        figures = Figures(fault, self._test, trials, unit, lost, also, self.factor, seconds)
        RECORD.parent.mkdir(exist_ok=True)
        with RECORD.open("ab") as file:
            file.write(msgspec.json.encode(figures) + b"\n")


def soak_factor(*, soak: bool) -> int:
    """How many times the CI size."""
    return int(os.environ.get("EDGED_SOAK", "10")) if soak else 1


def recorded(path: Path = RECORD) -> list[Figures]:
    """The last line of each test, in the order in which they ran."""
    last: dict[tuple[str, str], Figures] = {}
    for line in path.read_bytes().splitlines():
        figures = msgspec.json.decode(line, type=Figures)
        key = figures.fault, figures.test
        last.pop(key, None)
        last[key] = figures
    return list(last.values())
