"""The daemon's handle on the engine process: start it, send orders, hear reports, see it end.

Each start is a numbered run, so that what a dead process still had in the pipe cannot be taken for the words
of its successor. Reports arrive through `emit` from a reader thread; this file decides nothing.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from edged.engine.channel import Channel
from edged.engine.environment import environment
from edged.engine.messages import Configure, Order, Report, Shutdown
from edged.errors import EngineError

COMMAND = (sys.executable, "-m", "edged.engine")
"""Starts the engine with llama.cpp; the number of its socket is appended."""


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """A report of engine run number `run`."""

    run: int
    report: Report


@dataclass(frozen=True, slots=True)
class EngineGone:
    """Engine run number `run` ended. `code` as in subprocess: negative is the signal that ended it.

    `why` says more, where it could not even be started.
    """

    run: int
    code: int
    why: str = ""


class EngineClient:
    """At most one engine process at a time.

    Args:
        emit: takes `EngineSaid` and, last of each run, one `EngineGone`; called from a reader thread.
        command: what to start.
    """

    def __init__(
        self, emit: Callable[[EngineSaid | EngineGone], None], command: Sequence[str] = COMMAND
    ) -> None:
        self._emit = emit
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None
        self.run = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running engine."""
        return self._process.pid if self._process is not None else None

    def start(self, setup: Configure) -> None:
        """Start a process and tell it what to load; one that cannot be started is gone at once."""
        self.run += 1
        try:
            ours = self._begin()
        except OSError as error:
            # No memory, no file descriptor left: that passes, and the daemon outlives it.
            self._process = None
            self._emit(EngineGone(self.run, os.EX_OSERR, f"it cannot be started: {error.strerror or error}"))
            return
        channel: Channel[Any, Any] = Channel(ours, cast("Any", Report))
        self._orders = orders = queue.SimpleQueue[Order | None]()
        self._reader = threading.Thread(
            target=self._read,
            args=(self.run, self._process, channel, orders),
            name="engine",
            daemon=True,
        )
        self._reader.start()
        threading.Thread(target=_write, args=(channel, orders), name="engine-orders", daemon=True).start()
        self.send(setup)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # A session of its own: a terminal's ctrl-C reaches the daemon, which ends us both in order.
                self._process = subprocess.Popen(
                    [*self._command, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env=environment(os.environ),
                )
        except OSError:
            ours.close()
            raise
        return ours

    def send(self, order: Order) -> None:
        """Send an order without waiting; one to a dead process is lost, and `EngineGone` tells of that.

        A hung process reads nothing and its socket fills up: the caller, who must notice that, may not hang
        with it.
        """
        self._orders.put(order)

    def kill(self) -> None:
        """End the process at once; `EngineGone` follows."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)

    def stop(self, timeout_s: float) -> None:
        """Ask the process to end, and end it when it does not."""
        if self._process is None:
            return
        self.send(Shutdown())
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._reader is not None:
            self._reader.join(timeout_s)  # one that waits for a disk that hangs dies when that is over

    def _read(
        self,
        run: int,
        process: subprocess.Popen[bytes],
        channel: Channel[Any, Any],
        orders: queue.SimpleQueue[Order | None],
    ) -> None:
        try:
            for report in channel.receive():
                self._emit(EngineSaid(run, report))
        except EngineError:
            process.send_signal(signal.SIGKILL)  # it speaks nonsense: its memory is not to be trusted
        orders.put(None)
        channel.close()
        self._emit(EngineGone(run, process.wait()))


def _write(channel: Channel[Any, Any], orders: queue.SimpleQueue[Order | None]) -> None:
    while (order := orders.get()) is not None:
        try:
            channel.send(order)
        except OSError:
            return  # the reader thread sees the end of the process and reports it
