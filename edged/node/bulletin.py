"""What a node says of itself: status, info, health, events. Belongs to the dispatcher thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from edged.core.link import JSON, Delivered, Outgoing
from edged.core.topics import Topics
from edged.node.homeassistant import Discovery
from edged.node.outbox import Line

EXPIRY_INTERVALS = 3
"""Health that is older than this many intervals is no health: the broker drops it (contract)."""
OFFLINE = object()
"""Token of the last status message."""


@dataclass(slots=True)
class Bulletin:
    """Publishes, and remembers what must be said again to a new connection."""

    topics: Topics
    line: Line
    interval_s: float
    discovery: Discovery
    info: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    online: bool = False
    offline_told: bool = False

    def connected(self) -> None:
        """A new connection: the retained messages may be gone from the broker, so they are said again."""
        if self.info:
            self._retain(self.topics.info, self.info)
        if self.online:
            self.line.publish(Outgoing(self.topics.status, b"online", qos=1, retain=True))
        self.discovery.connected()

    def tell_info(self, info: dict[str, Any]) -> None:
        """Publish who this node is, if that has changed."""
        if info != self.info:
            self.info = info
            self._retain(self.topics.info, info)

    def go_online(self) -> None:
        """The node answers from now on."""
        if not self.online:
            self.online = True
            self.line.publish(Outgoing(self.topics.status, b"online", qos=1, retain=True))

    def go_offline(self) -> None:
        """The last word before the connection is closed; `offline_told` tells when the broker has it."""
        self.online = False
        self.line.publish(Outgoing(self.topics.status, b"offline", qos=1, retain=True, token=OFFLINE))

    def delivered_one(self, event: Delivered) -> None:
        """The broker has a message that was published with a token."""
        self.offline_told = self.offline_told or event.token is OFFLINE
        self.discovery.delivered_one(event)

    def tell_health(self, health: dict[str, Any]) -> None:
        """Publish how this node is."""
        self.health = health
        self.line.publish(
            Outgoing(
                self.topics.health,
                msgspec.json.encode(health),
                qos=0,
                retain=True,
                content_type=JSON,
                expiry_s=max(1, round(EXPIRY_INTERVALS * self.interval_s)),
            )
        )

    def tell_event(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """Publish something that happened."""
        payload = msgspec.json.encode({"event": event, "node": self.topics.node, **fields})
        self.line.publish(Outgoing(self.topics.event, payload, qos=1, content_type=JSON))

    def _retain(self, topic: str, value: dict[str, Any]) -> None:
        self.line.publish(Outgoing(topic, msgspec.json.encode(value), qos=1, retain=True, content_type=JSON))
