"""What MicroPython's `time` has beside CPython's, put into that by `install`; and a wall clock that nobody may use.

Ticks are milliseconds that begin anew at 2**30, which happens here in the first seconds. The time of day of a board
without a battery jumps when the network sets it, and its floats have 32 bits.
"""

from __future__ import annotations

import time
from typing import Any

PERIOD = 1 << 30
BEFORE_THE_END_MS = 300


def install() -> None:
    """Make CPython's `time` MicroPython's, for this process."""
    begun = time.monotonic()
    micro: Any = time
    micro.ticks_ms = lambda: (PERIOD - BEFORE_THE_END_MS + int(1000 * (time.monotonic() - begun))) % PERIOD
    micro.ticks_diff = lambda end, start: (end - start + PERIOD // 2) % PERIOD - PERIOD // 2
    micro.sleep_ms = lambda ms: time.sleep(ms / 1000)
    micro.time = _no_wall_clock


def _no_wall_clock() -> float:
    raise AssertionError("a board's time of day jumps")
