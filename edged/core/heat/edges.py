"""What begins and ends between two readings, counted over one boot: throttling, and a supply that is too low.

The counts outlive a restart of the daemon as one line of text, which means nothing in another boot.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.core.vitals import Vitals

DIGITS_MAX = 9


@dataclass(slots=True)
class Edges:
    """Beginnings so far, and what holds now.

    Attributes:
        boot_id: names this run of the kernel; None where it tells none: then nothing is carried over.
        throttles, under_voltages: beginnings of each.
        throttled, low: whether each held at the last reading.
    """

    boot_id: str | None = None
    throttles: int = 0
    under_voltages: int = 0
    throttled: bool = False
    low: bool = False

    def step(self, vitals: Vitals) -> tuple[bool | None, bool | None]:
        """Take a reading; for throttling and the supply: True where it begins, False where it ends, else None.

        What it does not tell is as it was: a file that cannot be read for a moment ends nothing.
        """
        throttled = self.throttled if vitals.throttled is None else vitals.throttled
        low = self.low if vitals.under_voltage is None else vitals.under_voltage
        edges = (
            None if throttled == self.throttled else throttled,
            None if low == self.low else low,
        )
        self.throttles += edges[0] is True
        self.under_voltages += edges[1] is True
        self.throttled, self.low = throttled, low
        return edges

    def line(self) -> str:
        """For whoever counts on after us; empty where nothing was counted, or no boot can be named."""
        counted = self.throttles or self.under_voltages
        if self.boot_id is None or not counted:
            return ""
        return f"{self.boot_id} {self.throttles} {self.under_voltages} {self.throttled:d} {self.low:d}"

    @classmethod
    def after(cls, line: str, boot_id: str | None) -> Edges:
        """Count on where that line stopped; from the beginning if it is of another boot, damaged or empty."""
        name, *words = line.split() or [""]
        numbers = [int(word) for word in words if len(word) <= DIGITS_MAX and word.isdecimal()]
        match numbers:
            case [throttles, lows, throttled, low] if name == boot_id and len(words) == len(numbers):
                return cls(boot_id, throttles, lows, throttled == 1, low == 1)
        return cls(boot_id)
