"""Keeps the node known to Home Assistant, or makes it forgotten there. Belongs to the dispatcher thread.

The discovery message is retained; it is sent again when Home Assistant says that it has started, for a broker
without persistence may have lost it. Where it stands is remembered on disk: a node that is told to be silent from
now on, or to use another prefix, takes away what it said in an earlier life.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edged.core import homeassistant
from edged.core.link import JSON, Arrived, Delivered, Outgoing
from edged.core.topics import Topics
from edged.node.note import Note
from edged.node.outbox import Line

BORN = b"online"
"""Home Assistant's birth message; its last will is `offline`."""
AGAIN_S = 1.0
"""For so long what was said is there for whoever starts: it is kilobytes, and one that said `online` in a loop had
the memory filled with what the broker had not taken yet."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Token of the message that takes an old one away."""

    topic: str


@dataclass(slots=True)
class Discovery:
    """What Home Assistant knows of this node.

    Attributes:
        topic: where the discovery message stands; None where the node shall not be known.
        memory: where the message stands that was told last.
        birth_topic: where Home Assistant says that it has started.
        admin: whether there are buttons.
        about: who this node is, as far as it is known without the engine.
        clock: monotonic seconds.
    """

    topics: Topics
    line: Line
    memory: Note
    topic: str | None = None
    birth_topic: str = ""
    admin: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _said_at: float = -math.inf

    def connected(self) -> None:
        """A new connection: say it, and take away what is no longer so."""
        before = self.memory.read()
        if before and before != self.topic:
            self.line.publish(Outgoing(before, b"", qos=1, retain=True, token=Forgotten(before)))
        elif self.topic is not None and before != self.topic:
            self.memory.write(self.topic)
        self._say()

    def hears(self, event: Arrived) -> bool:
        """Take a message that is Home Assistant's; False for one that is not."""
        if self.topic is None or event.topic != self.birth_topic:
            return False
        if event.payload == BORN and self.clock() - self._said_at >= AGAIN_S:
            self._say()
        self.line.acknowledge(event.delivery)
        return True

    def delivered_one(self, event: Delivered) -> None:
        """The broker has taken an old message away: from now on the new one is to be remembered."""
        if isinstance(event.token, Forgotten) and event.refused is None:
            self.memory.write(self.topic or "")

    def _say(self) -> None:
        if self.topic is not None:
            self._said_at = self.clock()
            told = homeassistant.discovery(self.topics, self.about, admin=self.admin)
            payload = msgspec.json.encode(told)
            self.line.publish(Outgoing(self.topic, payload, qos=1, retain=True, content_type=JSON))
