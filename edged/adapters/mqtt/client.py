"""paho's client, which keeps the connection when it cannot read a message, and writes what waits in one piece.

paho ends the connection where it cannot read the properties of a message, and the broker delivers the message
again to the next one: a single message, with U+FEFF in a user property for one (legal by MQTT 5, 1.5.4, refused
by paho 2), would keep the node from all that stands behind it.

paho writes each packet by itself, and over TLS each write is a record. In a turn of its loop Mosquitto reads one
packet from a client in plain text, but all packets of a record (2.0.11, `loop_handle_reads_writes`), and a turn
may end with its whole store written to disk: so packets that wait together leave as one record.

paho counts packet identifiers to their end and begins anew, also with those that are under way.

Belongs to the MQTT thread.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

from edged import mqtt5

if TYPE_CHECKING:
    from paho.mqtt.client import _OutPacket

PUBACK, DISCONNECT = 0x40, 0xE0
"""First bytes of packets (MQTT 5, 2.1.2)."""
RECORD_BYTES = 16_384
"""Most that a TLS record holds (RFC 8446, 5.1)."""
CONTINUES = 0x80
"""Of a variable byte integer: another byte follows (MQTT 5, 1.5.5)."""
VARIABLE_BYTES = 4
"""Most that a variable byte integer has."""
PROPERTY_BYTES_MAX = 8192
"""Longer properties of a message are not read. paho takes time with the square of their length (half a megabyte of
empty user properties: 24 s on an x86 server), and we neither hear nor answer the broker for so long."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A PUBLISH without its properties (MQTT 5, 3.3)."""

    topic: bytes
    payload: bytes
    mid: int
    qos: int
    retained: bool
    property_bytes: int


class Client(mqtt5.Client):
    """A client that hands over what it can read, and writes when it is told to: in `loop_write`.

    Args:
        on_bare: takes a message whose properties cannot be read, and why.
        options: `paho.Client`'s.
    """

    def __init__(self, on_bare: Callable[[Bare, str], None], *options: Any, **named: Any) -> None:  # noqa: ANN401 - paho's
        super().__init__(*options, **named)
        self._on_bare = on_bare
        # Where somebody else watches the socket, paho leaves packets in their line until `loop_write`.
        self.on_socket_register_write = lambda _client, _userdata, _socket: None

    def renew_tls(self, context: ssl.SSLContext) -> None:
        """Connect with another context from the next connection on; paho's own way takes one only once."""
        self._ssl_context = context

    def loop_write(self) -> MQTTErrorCode:
        """Write what waits, in as few pieces as may be."""
        join(self._out_packet)
        return super().loop_write()

    def _mid_generate(self) -> int:
        # paho refuses a message of QoS 1 under an identifier under way, and calls one of QoS 0 by it delivered.
        while (mid := super()._mid_generate()) in self._out_messages:
            pass
        return mid

    def _handle_publish(self) -> MQTTErrorCode:
        head, packet = self._in_packet["command"], self._in_packet["packet"]
        message = bare(head, bytes(packet)) if len(packet) > PROPERTY_BYTES_MAX else None
        if message is not None and message.property_bytes > PROPERTY_BYTES_MAX:
            fault = f"they have {message.property_bytes} bytes, at most {PROPERTY_BYTES_MAX} are read"
        else:
            try:
                return super()._handle_publish()
            except MalformedPacket as error:
                message = bare(head, bytes(packet))
                if message is None:
                    raise
                fault = str(error)
        self._on_bare(message, fault)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def join(waiting: deque[_OutPacket]) -> None:
    """Make packets that follow each other one, up to a record's size.

    paho looks at a packet once more when it is written: at DISCONNECT, which stays by itself, and at PUBLISH of
    QoS 0, to tell somebody who waits for that; nobody does. Of a joined one it is told that it is a PUBACK.

    Args:
        waiting: paho's line of packets; a part of the first may be written.
    """
    packets = list(waiting)
    waiting.clear()
    for packet in packets:
        last = waiting[-1] if waiting else None
        if (
            last is None
            or DISCONNECT in {last["command"], packet["command"]}
            or last["to_process"] + packet["to_process"] > RECORD_BYTES
        ):
            waiting.append(packet)
            continue
        last["packet"] = bytes(last["packet"][last["pos"] :]) + bytes(packet["packet"][packet["pos"] :])
        last["pos"], last["to_process"] = 0, len(last["packet"])
        last["command"], last["info"] = PUBACK, None


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
        if shift == 7 * VARIABLE_BYTES:
            return None
    if at + length > len(packet):
        return None
    return Bare(topic, packet[at + length :], mid, qos, bool(head & 0x01), length)
