"""What was sent with QoS 1 and not acknowledged, and how much of that a broker takes. Belongs to the MQTT thread.

A broker may cut the connection of who sends more at once than its Receive Maximum (MQTT 5, 3.2.2.3.3 and 4.9).
paho does not look at it, and sends all that it has again on a new connection: so it is never given more, and told
the limit of each connection (`Client.fit`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from paho.mqtt.properties import Properties as PahoProperties

from edged.mqtt5 import MOST


class Window:
    """Messages under way, by packet identifier; kept over reconnections, for paho sends them again by itself.

    Args:
        gathers: once full, it opens when half is acknowledged, so that what waits leaves together.
        clock: monotonic seconds.

    Attributes:
        limit: messages that may be under way at once.
    """

    def __init__(self, *, gathers: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens: dict[int, object] = {}
        self._since: dict[int, float] = {}
        self.limit = MOST
        self._gathers = gathers
        self._clock = clock
        self._full = False

    def connected(self, properties: PahoProperties | None, most: int = MOST) -> None:
        """A new connection, with what the broker says of itself, and the most that is to be under way on it."""
        self.limit = min(most, getattr(properties, "ReceiveMaximum", most))
        self._since = dict.fromkeys(self._since, self._clock())  # paho sends them again
        self._count()

    @property
    def full(self) -> bool:
        """Whether no message may be sent before something is acknowledged."""
        return self._full

    @property
    def gathering(self) -> bool:
        """Whether all that can wait should, to leave with the messages that have to."""
        return self._full and self._gathers

    @property
    def oldest_s(self) -> float:
        """How long the oldest of them has been under way on this connection; 0 where none is."""
        return self._clock() - next(iter(self._since.values())) if self._since else 0.0

    @property
    def owing(self) -> bool:
        """Whether somebody waits for an acknowledgement."""
        return any(token is not None for token in self._tokens.values())

    def sent(self, mid: int, token: object) -> None:
        """A message is under way; `token` None where nobody wants to know."""
        self._tokens[mid] = token
        self._since[mid] = self._clock()
        self._count()

    def acknowledged(self, mid: int) -> object:
        """The broker has it, or refuses it; returns its token."""
        token = self._tokens.pop(mid, None)
        self._since.pop(mid, None)
        self._count()
        return token

    def _count(self) -> None:
        most = self.limit // 2 + 1 if self.gathering else self.limit
        self._full = len(self._tokens) >= most
