"""paho's client, which keeps the connection when it cannot read the properties of a message.

paho ends the connection there, and the broker delivers the message again to the next one: a single message, with
U+FEFF in a user property for one (legal by MQTT 5, 1.5.4, refused by paho 2), would keep the node from all that
stands behind it. Belongs to the MQTT thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

CONTINUES = 0x80
"""Of a variable byte integer: another byte follows (MQTT 5, 1.5.5)."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A PUBLISH without its properties (MQTT 5, 3.3)."""

    topic: bytes
    payload: bytes
    mid: int
    qos: int
    retained: bool


class Client(paho.Client):
    """A client that hands over what it can read.

    Args:
        on_bare: takes a message whose properties cannot be read, and why.
        options: `paho.Client`'s.
    """

    def __init__(self, on_bare: Callable[[Bare, str], None], *options: Any, **named: Any) -> None:  # noqa: ANN401 - paho's
        super().__init__(*options, **named)
        self._on_bare = on_bare

    def _handle_publish(self) -> MQTTErrorCode:
        try:
            return super()._handle_publish()
        except MalformedPacket as error:
            message = bare(self._in_packet["command"], bytes(self._in_packet["packet"]))
            if message is None:
                raise
            self._on_bare(message, str(error))
            return MQTTErrorCode.MQTT_ERR_SUCCESS


def bare(head: int, packet: bytes) -> Bare | None:
    """Read a PUBLISH and step over its properties; None where it is no PUBLISH at all.

    Args:
        head: first byte of the packet.
        packet: what follows the packet's length.
    """
    qos = (head & 0x06) >> 1
    at = 2 + int.from_bytes(packet[:2])
    topic = packet[2:at]
    mid = int.from_bytes(packet[at : at + 2]) if qos else 0
    at += 2 if qos else 0
    length = shift = 0
    while True:
        if at >= len(packet):
            return None
        length |= (packet[at] & ~CONTINUES) << shift
        shift, at = shift + 7, at + 1
        if not packet[at - 1] & CONTINUES:
            break
    if at + length > len(packet):
        return None
    return Bare(topic, packet[at + length :], mid, qos, bool(head & 0x01))
