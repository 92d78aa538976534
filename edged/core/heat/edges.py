"""What begins and ends over many readings, counted over one boot: throttling, and a supply that is too low.

A weak supply dips with every question, and a kernel that holds a trip lets go and takes hold again by the second:
each beginning counts, but what comes back before it was quiet for a while is told as one. The counts outlive a
restart of the daemon as one line of text, which means nothing in another boot.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edged.core.vitals import Vitals

DIGITS_MAX = 9


@dataclass(slots=True)
class Spell:
    """One thing that comes and goes.

    Attributes:
        count: beginnings so far.
        told: whether it was said to hold, last.
        holds: whether it did at the last reading.
    """

    count: int = 0
    told: bool = False
    holds: bool = field(default=False, compare=False)
    _held_at: float | None = field(default=None, compare=False)

    def step(self, holds: bool | None, now: float, calm_s: float) -> bool | None:  # noqa: FBT001 - a reading
        """Take a reading, None for one that says nothing; True where it begins, False where it ends, else None.

        What it does not tell is as it was: a file that cannot be read for a moment ends nothing.
        """
        if holds is None:
            holds = self.holds
        self.count += holds and not self.holds
        self.holds = holds
        if holds or self._held_at is None:
            self._held_at = now
        if holds == self.told or (self.told and now - self._held_at < calm_s):
            return None
        self.told = holds
        return holds


@dataclass(slots=True)
class Edges:
    """What was seen so far.

    Attributes:
        boot_id: names this run of the kernel; None where it tells none: then nothing is carried over.
        throttling: of the kernel, by its own cooling or an owner's cap.
        supply: where it is too low.
    """

    boot_id: str | None = None
    throttling: Spell = field(default_factory=Spell)
    supply: Spell = field(default_factory=Spell)

    def step(self, vitals: Vitals, now: float, calm_s: float) -> tuple[bool | None, bool | None]:
        """Take a reading; for throttling and the supply: True where it begins, False where it ends, else None.

        Args:
            vitals: the reading.
            now: monotonic seconds.
            calm_s: how long one must have been over before it has ended.
        """
        return (
            self.throttling.step(vitals.throttled, now, calm_s),
            self.supply.step(vitals.under_voltage, now, calm_s),
        )

    def line(self) -> str:
        """For whoever counts on after us; empty where nothing was counted, or no boot can be named."""
        both = self.throttling, self.supply
        if self.boot_id is None or not any(one.count for one in both):
            return ""
        return " ".join([self.boot_id, *(str(one.count) for one in both), *(f"{one.told:d}" for one in both)])

    @classmethod
    def after(cls, line: str, boot_id: str | None) -> Edges:
        """Count on where that line stopped; from the beginning if it is of another boot, damaged or empty."""
        name, *words = line.split() or [""]
        numbers = [int(word) for word in words if len(word) <= DIGITS_MAX and word.isdecimal()]
        match numbers:
            case [throttles, lows, throttled, low] if name == boot_id and len(words) == len(numbers):
                held = (throttled == 1, low == 1)
                return cls(boot_id, Spell(throttles, held[0], held[0]), Spell(lows, held[1], held[1]))
        return cls(boot_id)
