"""The controller that holds a temperature: how much of its power the engine may spend, from 0 to 1.

Proportional and integral, with the rise as a look ahead: a board's heatsink answers after a minute, its chip at
once. The integral stands still where the output is at a bound (conditional integration), so a cold morning does
not wind it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.core.pace import PACE_MIN

GAIN_PER_C = 0.06
"""Full power to none over 17 C: a fan-less board gains about that in the first minutes of full load."""
INTEGRAL_S = 90.0
"""About the time constant of a small heatsink; a shorter one swings."""
INTEGRAL_START = 0.5
"""Below the bound, so that the first approach is slowed down before the target and not after it."""
LEAD_S = 6.0
"""The temperature is taken where the present rise will have it after so long."""
STEP_MAX_S = 10.0
"""A longer gap between readings counts as this: the engine's host slept, or its clock did."""
EFFORT_MIN = PACE_MIN


@dataclass(slots=True)
class Control:
    """One controller. `effort` is its output, 1 while nothing is known."""

    effort: float = 1.0
    _integral: float = INTEGRAL_START
    _at: float | None = None

    def step(self, room_c: float, c_per_s: float, now: float, most: float) -> float:
        """The effort from now on.

        Args:
            room_c: degrees below the target; negative above it.
            c_per_s: present rise.
            now: monotonic seconds.
            most: bound from above, by level or supply; `EFFORT_MIN` to 1.
        """
        passed_s = 0.0 if self._at is None else min(STEP_MAX_S, now - self._at)
        self._at = now
        error_c = room_c - LEAD_S * c_per_s
        wanted = self._integral + GAIN_PER_C * error_c
        saturated = (wanted >= most and error_c > 0) or (wanted <= EFFORT_MIN and error_c < 0)
        if not saturated:
            self._integral += GAIN_PER_C * error_c * passed_s / INTEGRAL_S
        self._integral = min(most, max(EFFORT_MIN, self._integral))
        self.effort = min(most, max(EFFORT_MIN, self._integral + GAIN_PER_C * error_c))
        return self.effort
