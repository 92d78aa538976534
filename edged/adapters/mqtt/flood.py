"""A flood: messages of QoS 0 that come faster than the node takes them. Belongs to the MQTT thread.

What has QoS 1 stops at the Receive Maximum; nothing stops a device that publishes in a loop with QoS 0. It would
fill the inbox without end, and every other device would wait behind it. Reading on and dropping is better than
not reading: Mosquitto drops whatever it cannot hand over, our acknowledgements among it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from edged.core.link import Arrived

BEHIND_MAX = 1000
"""Events that may wait for the dispatcher: it takes thousands a second, and no burst of QoS 1 is so large."""
TELL_S = 60.0

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

    def drops(self, event: Arrived) -> bool:
        """Whether this message is one too many; the log has one line a minute, with one of those that send them."""
        if event.delivery.qos or self._behind() < BEHIND_MAX:
            return False
        self._dropped += 1
        now = self._clock()
        if now >= self._tell_at:
            reason = "they come with QoS 0, faster than this node takes them; use QoS 1 there"
            log.warning("messages_dropped", count=self._dropped, topic=event.topic[:200], reason=reason)
            self._dropped, self._tell_at = 0, now + TELL_S
        return True
