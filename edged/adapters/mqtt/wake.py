"""Ends the MQTT thread's wait for its socket: a second one, that any thread can make readable.

Any thread rings; the MQTT thread waits, and takes the ringing away.
"""

from __future__ import annotations

import socket


class Wake:
    """Something for select(2) to wait for."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The end that becomes readable."""
        return self._reader.fileno()

    def ring(self) -> None:
        """Wake the MQTT thread, now or when it next waits. Any thread."""
        try:
            self._writer.send(b"\0")
        except OSError:
            pass  # thousands of bytes already tell it to wake, or there is nobody left to be woken

    def hush(self) -> None:
        """All that was rung for until now is looked at next."""
        try:
            self._reader.recv(65_536)
        except BlockingIOError:
            pass  # nothing left to read: another round took it

    def close(self) -> None:
        """Nobody waits any more."""
        self._reader.close()
        self._writer.close()
