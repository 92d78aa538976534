"""Reads the board's vitals at an interval, in a thread of its own.

A sensor on a slow bus must not hold up a question. While one hangs, that is told in place of a reading,
and heat takes the board for blind. What was read goes into the node's inbox; nothing is decided.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edged.core.link import ThreadDied
from edged.core.vitals import Vitals

LATE_S = 10.0
"""A reading that takes longer hangs: a conversion takes less than a second, a bus that fails a few at most."""


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
        late_s: how long a reading may take.
    """

    def __init__(
        self,
        read: Callable[[], Vitals],
        interval_s: float,
        emit: Callable[[VitalsRead | ThreadDied], None],
        late_s: float = LATE_S,
    ) -> None:
        self._read = read
        self._interval_s = interval_s
        self._emit = emit
        self._late_s = late_s
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
                vitals = self._reading()
                if vitals is None:
                    return
                self._emit(VitalsRead(vitals))
                self._stopping.wait(self._interval_s)
        finally:
            if not self._stopping.is_set():
                self._emit(ThreadDied("vitals", "it raised; see the traceback above"))

    def _reading(self) -> Vitals | None:
        """One reading, in a thread that may hang; None where it raised, or there is no more need of it."""
        read: list[Vitals] = []
        reader = threading.Thread(target=lambda: read.append(self._read()), name="sensors", daemon=True)
        try:
            reader.start()
        except RuntimeError:  # a tool may have taken all threads that the service may have; that passes
            return Vitals(late=True)
        reader.join(self._late_s)
        while reader.is_alive() and not self._stopping.is_set():
            self._emit(VitalsRead(Vitals(late=True)))
            reader.join(self._interval_s)
        return read[0] if read else None
