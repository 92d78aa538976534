"""A flood: messages of QoS 0 that come faster than the node takes them. Belongs to the MQTT thread.

What has QoS 1 stops at the Receive Maximum; nothing stops a device that publishes in a loop with QoS 0. It would
fill the inbox without end, and every other device would wait behind it. Reading on and dropping is better than
not reading: Mosquitto drops whatever it cannot hand over, our acknowledgements among it, and others' questions of
QoS 1. These it still holds for us, and sends again on a new connection only (MQTT 5, 4.4).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from edged.core.link import Arrived

BEHIND_MAX = 1000
"""Events that may wait for the dispatcher: it takes thousands a second, and no burst of QoS 1 is so large."""
TELL_S = 60.0
MANY, MANY_S = 1000, 5.0
"""So many messages of QoS 0 within so many seconds may have been too many for the broker: Mosquitto 2.0 drops what
it has for a client beyond `max_queued_messages`, 1000 unless told otherwise, and tells neither side."""

log = structlog.get_logger()


class Flood:
    """What is dropped.

    Args:
        behind: how many events wait for the dispatcher.
        clock: monotonic seconds.
    """

    def __init__(self, behind: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._behind = behind
        self._clock = clock
        self._dropped = 0
        self._tell_at = 0.0
        self._count = 0
        self._counted_from = 0.0
        self._seen_at: float | None = None

    def connected(self) -> None:
        """A new connection, on which the broker sends again what it had dropped of QoS 1."""
        self._count, self._seen_at = 0, None

    @property
    def since_s(self) -> float:
        """How long ago a flood was first seen on this connection; 0 where none was."""
        return 0.0 if self._seen_at is None else self._clock() - self._seen_at

    def drops(self, event: Arrived) -> bool:
        """Whether this message is one too many; the log has one line a minute, with one of those that send them."""
        if event.delivery.qos:
            return False
        now = self._clock()
        self._see(now)
        if self._behind() < BEHIND_MAX:
            return False
        self._dropped += 1
        if now >= self._tell_at:
            reason = "they come with QoS 0, faster than this node takes them; use QoS 1 there"
            log.warning("messages_dropped", count=self._dropped, topic=event.topic[:200], reason=reason)
            self._dropped, self._tell_at = 0, now + TELL_S
        return True

    def _see(self, now: float) -> None:
        if not self._count or now - self._counted_from > MANY_S:
            self._count, self._counted_from = 0, now
        self._count += 1
        if self._count >= MANY and self._seen_at is None:
            self._seen_at = now
