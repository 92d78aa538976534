"""Feeds systemd's watchdog from real progress of the node's parts. Belongs to the dispatcher thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

START_MORE_S = 60.0
"""More time that systemd is asked for, again and again, while the model loads; the engine has its own limit."""


class Watchdog(Protocol):
    """systemd, as far as the node needs it."""

    def ready(self) -> bool:
        """The node answers."""

    def watchdog(self) -> bool:
        """The node is well."""

    def extend_start(self, seconds: float) -> bool:
        """The node is still starting, and well."""

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""

    def reloading(self) -> bool:
        """The node reads its settings again; `ready` ends that."""

    def stopping(self) -> bool:
        """The node is on its way out."""


@dataclass(slots=True)
class Feeding:
    """When the watchdog was fed last.

    Attributes:
        watchdog: systemd.
        every_s: seconds between two feedings, half of its patience.
    """

    watchdog: Watchdog
    every_s: float
    _fed_at: float = 0.0

    def tick(self, now: float, *, well: bool, online: bool) -> None:
        """Feed it, where that is due and all is well; what is not well is looked at again with the next tick.

        Half of the patience is gone by then: one unlucky look every `every_s` would have the process killed.
        """
        if not well or now - self._fed_at < self.every_s:
            return
        self._fed_at = now
        self.watchdog.watchdog()
        if not online:
            self.watchdog.extend_start(START_MORE_S)
