"""How fast a noisy temperature rises: the straight line of least squares through the last seconds.

Boards tell temperatures in steps of up to 1 C, so two readings say nothing; a line through a window does. A line
that its own scatter explains counts as level.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 20.0
SPAN_MIN_S = 6.0
POINTS_MIN = 4
SURE = 2.0
"""A rise must be so many times its standard error to count."""
STEP_C = 0.3
"""Scatter that is assumed in any case: a step of 1 C, as some boards tell temperatures, scatters by 1/sqrt(12)."""


class Slope:
    """A window over one temperature."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now: float, temp_c: float) -> None:
        """Take a reading, later than the one before."""
        self._points.append((now, temp_c))
        # As many as a line needs stay, however far apart they were read: `heat.interval_s` may be 10.
        while len(self._points) > POINTS_MIN and now - self._points[0][0] > self._window_s:
            self._points.popleft()

    @property
    def c_per_s(self) -> float:
        """Degrees a second, negative while it cools; 0.0 when it is too early or too noisy to say."""
        count = len(self._points)
        if count < POINTS_MIN or self._points[-1][0] - self._points[0][0] < SPAN_MIN_S:
            return 0.0
        mean_t = sum(t for t, _ in self._points) / count
        mean_c = sum(c for _, c in self._points) / count
        spread = sum((t - mean_t) ** 2 for t, _ in self._points)
        slope = sum((t - mean_t) * (c - mean_c) for t, c in self._points) / spread
        left = sum((c - mean_c - slope * (t - mean_t)) ** 2 for t, c in self._points)
        scatter = max(STEP_C, (left / (count - 2)) ** 0.5)
        return slope if abs(slope) >= SURE * scatter / spread**0.5 else 0.0


def time_to_trip_s(excess_c: float, c_per_s: float) -> float | None:
    """Seconds until the trip is reached at this rise; 0.0 beyond it, None while it does not rise."""
    if excess_c >= 0:
        return 0.0
    return -excess_c / c_per_s if c_per_s > 0 else None
