"""How much may be written to a card that wears out: an allowance that fills up while the node runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86_400.0


@dataclass(slots=True)
class Allowance:
    """Bytes that may be written.

    Over any time of running it gives out at most `daily_bytes` for each day begun and as much once more; time
    without power gives nothing.

    Attributes:
        daily_bytes: what a day of running brings, and the most that can be saved up.
        left_bytes: what may be written now.
        at: monotonic seconds of the last look.
    """

    daily_bytes: int
    left_bytes: float
    at: float

    def take(self, size: int, now: float) -> bool:
        """Use `size` bytes of it, if it has them."""
        gained = self.daily_bytes * (now - self.at) / DAY_S
        self.left_bytes = min(float(self.daily_bytes), self.left_bytes + gained)
        self.at = now
        if size > self.left_bytes:
            return False
        self.left_bytes -= size
        return True
