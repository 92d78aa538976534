"""Reads the board's vitals at an interval, in a thread of its own.

A sensor on a slow bus must not hold up a question. What was read goes into the node's inbox; nothing is decided.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edged.core.link import ThreadDied
from edged.core.vitals import Vitals


@dataclass(frozen=True, slots=True)
class VitalsRead:
    """A reading of the board."""

    vitals: Vitals


class VitalsThread:
    """The thread.

    Args:
        read: one reading; must not raise for a sensor.
        interval_s: seconds between two readings.
        emit: the node's inbox.
    """

    def __init__(
        self, read: Callable[[], Vitals], interval_s: float, emit: Callable[[VitalsRead | ThreadDied], None]
    ) -> None:
        self._read = read
        self._interval_s = interval_s
        self._emit = emit
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitals", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def set_interval(self, interval_s: float) -> None:
        """Read this often from the next reading on."""
        self._interval_s = interval_s

    def stop(self, timeout_s: float) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._emit(VitalsRead(self._read()))
                self._stopping.wait(self._interval_s)
        finally:
            if not self._stopping.is_set():
                self._emit(ThreadDied("vitals", "it raised; see the traceback above"))
