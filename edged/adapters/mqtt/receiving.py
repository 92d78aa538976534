"""Messages on their way in: what paho has read becomes the node's, floods are dropped, the rest is acknowledged.

Belongs to the MQTT thread. A packet identifier dies with its connection (MQTT 5, 4.4): the connection's number
stands beside it, so that an acknowledgement never meets another message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
import structlog

from edged.core.link import Arrived, Delivery, LinkEvent
from edged.core.question import Properties

from .client import Bare
from .flood import Flood
from .translation import properties_of

log = structlog.get_logger()


class Receiving:
    """What comes.

    Args:
        emit: the node's inbox.
        behind: how many events wait there.
    """

    def __init__(self, emit: Callable[[LinkEvent], None], behind: Callable[[], int]) -> None:
        self._emit = emit
        self._flood = Flood(behind)
        self._connection = 0

    @property
    def flooded_s(self) -> float:
        """How long ago a flood was first seen on this connection; 0 where none was."""
        return self._flood.since_s

    def connected(self) -> None:
        """A new connection: what came by another one can no longer be acknowledged."""
        self._connection += 1
        self._flood.connected()

    def acknowledge(self, client: paho.Client, delivery: Delivery) -> None:
        """Tell the broker that we have a message; nothing happens if its connection is gone."""
        if delivery.connection == self._connection:
            client.ack(delivery.mid, delivery.qos)
            log.debug("message_acknowledged", mid=delivery.mid)

    def on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401 - paho's signature
        """PUBLISH."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # a broker should not let it through (MQTT 5, 1.5.4); it will be counted and dropped
        log.debug("message_arrived", topic=topic, size_bytes=len(message.payload), mid=message.mid)
        self._arrived(
            Arrived(
                topic=topic,
                payload=bytes(message.payload),
                properties=properties_of(message.properties),
                retained=message.retain,
                delivery=Delivery(message.mid, message.qos, self._connection),
            )
        )

    def on_bare(self, message: Bare, fault: str) -> None:
        """PUBLISH with properties that cannot be read, and why."""
        self._arrived(
            Arrived(
                topic=message.topic.decode(errors="replace"),
                payload=message.payload,
                properties=Properties(fault=fault),
                retained=message.retained,
                delivery=Delivery(message.mid, message.qos, self._connection),
            )
        )

    def _arrived(self, event: Arrived) -> None:
        if not self._flood.drops(event):
            self._emit(event)
