"""The engine's duty cycle: how long to rest after a pass so that passes fill a given share of the time. Pure.

Rest is counted from the end of the pass that earned it, so a pace that changes during a rest holds at once.
"""

from __future__ import annotations

from dataclasses import dataclass

PACE_MIN = 0.05
"""The slowest pace: a pass of 4 s, a whole batch of prompt on a hot Raspberry Pi 4, then rests for 76 s."""


@dataclass(slots=True)
class Pace:
    """Work and rest of one thread.

    Attributes:
        share: part of the time that passes may fill, `PACE_MIN` to 1; 1 never rests.
    """

    share: float = 1.0
    _worked_s: float = 0.0
    _ended: float = 0.0

    def worked(self, begun: float, ended: float) -> None:
        """Count a pass, by its ends in monotonic seconds."""
        self._worked_s = ended - begun
        self._ended = ended

    def rest_s(self, now: float) -> float:
        """Seconds until the next pass is due; 0.0 when it is."""
        share = max(PACE_MIN, self.share)
        return max(0.0, self._ended + self._worked_s * (1.0 / share - 1.0) - now)
