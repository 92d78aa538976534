"""Tells systemd how the daemon is: started, alive, what it is doing, about to end (sd_notify(3)).

The whole protocol is one datagram of `NAME=value` lines to the socket that `$NOTIFY_SOCKET` names: a dozen
lines, so there is no dependency for it. Nothing is decided here, above all not whether the daemon is well
enough for `watchdog()`. Any thread may call; no call blocks and none raises: what a lost message means is
systemd's to decide. Outside systemd every call does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """The daemon's line to systemd.

    Args:
        environment: where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are looked up; None for the
            process's own.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        names = os.environ if environment is None else environment
        self._address = _address(names.get("NOTIFY_SOCKET", ""))
        self._watchdog_interval_s = _watchdog_interval_s(names)

    @property
    def watchdog_interval_s(self) -> float | None:
        """Seconds between two calls of `watchdog()`: half of `WatchdogSec=` (sd_watchdog_enabled(3)).

        None when no watchdog waits for this process.
        """
        return self._watchdog_interval_s

    def ready(self) -> bool:
        """Start-up is complete (`Type=notify`). This and the calls below return whether the message left."""
        return self._send("READY=1")

    def status(self, text: str) -> bool:
        """One line for people: `systemctl status` shows it."""
        return self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> bool:
        """Still making progress. After `WatchdogSec=` without it systemd restarts the daemon."""
        return self._send("WATCHDOG=1")

    def reloading(self) -> bool:
        """The settings are being read again; `ready()` ends it (sd_notify(3): in one datagram, since v253)."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> bool:
        """The daemon has begun to end."""
        return self._send("STOPPING=1")

    def extend_start(self, seconds: float) -> bool:
        """Ask that the start (or the stop, once that has begun) may take that much longer from now on."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def _send(self, message: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True


def _address(name: str) -> bytes | None:
    """The socket's address: a path, or with `@` for the leading NUL of Linux's abstract names (unix(7))."""
    if name.startswith("/"):
        return os.fsencode(name)
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return None


def _watchdog_interval_s(names: Mapping[str, str]) -> float | None:
    try:
        limit_us = int(names.get("WATCHDOG_USEC", ""))
        pid = int(names.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    if limit_us <= 0 or pid != os.getpid():
        return None
    return limit_us / 2 / 1_000_000
