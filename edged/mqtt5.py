"""paho's client, held to MQTT 5 where it does not hold itself to it. For the daemon and for devices alike.

It ends the connection where MQTT 5 has no such reason for a PUBACK (3.4.2.1), and sends the message again to the
next one, which ends in the same way, and so on for ever. Mosquitto 2.0 answers so what its `message_size_limit`
does not let pass (149, "Packet too large"): a single long answer kept a node off its broker.

It looks neither at a broker's Receive Maximum nor at its Maximum Packet Size (3.2.2.3), and what is under way it
sends again without a look at what the new connection's broker takes. And its `loop_stop` can meet the thread's end.
"""

from __future__ import annotations

from typing import Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import MessageState, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

FAILURE = 0x80
"""Where reasons begin that are failures (MQTT 5, 2.4); itself "Unspecified error"."""
TOO_LARGE = 0x95
"""A reason: "Packet too large"."""
MOST = 20
"""Messages under way at once, where the broker takes as many: paho's own default, and Mosquitto's."""
PACKET_BYTES_MAX = 268_435_460
"""Largest packet of MQTT (MQTT 5, 1.5.5 and 2.1.4): where the broker names no limit of its own."""
HEAD_BYTES_MAX = 64
"""More than a PUBLISH of ours has beside topic, payload and Correlation Data."""
PUBLISH_HEAD_BYTES = 10
"""Most that a PUBLISH of QoS 1 has beside topic, properties and payload (MQTT 5, 3.3)."""

WAITS = frozenset({MessageState.MQTT_MS_PUBLISH, MessageState.MQTT_MS_QUEUED})
"""Of a message that is to be sent, first or again: for a connection, or until the broker takes more."""


class Client(paho.Client):
    """A client that takes any PUBACK, and can be told what its broker takes."""

    def fit(self, most: int, packet_bytes_max: int) -> list[int]:
        """Before what is under way is sent again: hold it to what the broker takes now.

        Args:
            most: messages at once; the others follow as these are acknowledged.
            packet_bytes_max: the broker's Maximum Packet Size.

        Returns:
            Packet identifiers of the messages that are larger, and given up.
        """
        with self._out_message_mutex:
            self._max_inflight_messages = most
            larger = [mid for mid, message in self._out_messages.items() if _size(message) > packet_bytes_max]
            for mid in larger:
                del self._out_messages[mid]
            for message in list(self._out_messages.values())[most:]:
                message.state = MessageState.MQTT_MS_QUEUED
            return larger

    @property
    def unanswered(self) -> dict[int, str]:
        """Topics of the messages of QoS 1 that were sent and not acknowledged, the oldest first, by identifier."""
        with self._out_message_mutex:
            sent = {mid: m for mid, m in self._out_messages.items() if m.state != MessageState.MQTT_MS_QUEUED}
        return {mid: message.topic for mid, message in sent.items()}

    def give_up(self, mid: int) -> None:
        """Without a connection: do not send this message on the next one."""
        with self._out_message_mutex:
            del self._out_messages[mid]

    def take_back(self, mid: int) -> bool:
        """Do not send a message that waits to be sent; False where it may be at the broker, or waits no more."""
        with self._out_message_mutex:
            message = self._out_messages.get(mid)
            waits = message is not None and not message.dup and message.state in WAITS
            if waits:
                del self._out_messages[mid]
            return waits

    def loop_stop(self) -> MQTTErrorCode:
        """End the network thread; paho looks for it twice, and it may have ended by itself in between.

        An interrupt may have met its start as well: then there is none to send what waits, or it comes too late.
        """
        try:
            return super().loop_stop()
        except AttributeError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except RuntimeError:  # of `Thread.join`
            self._thread = None
            return self.loop_write()

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        try:
            return super()._handle_pubackcomp(cmd)
        except MalformedPacket:
            packet = bytes(self._in_packet["packet"])
            if cmd != "PUBACK" or len(packet) <= 2:  # noqa: PLR2004 - no identifier, or no reason behind it
                raise
            mid, code = int.from_bytes(packet[:2]), packet[2]
        with self._out_message_mutex:
            if mid not in self._out_messages:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            return self._do_on_publish(mid, reason(code), Properties(PacketTypes.PUBACK))


def reason(code: int) -> ReasonCode:
    """The reason of a PUBACK; where none of these has this code, another packet's words for it, else the next."""
    for packet in (PacketTypes.PUBACK, PacketTypes.DISCONNECT):
        try:
            return ReasonCode(packet, identifier=code)
        except (KeyError, ValueError):
            pass  # it is none of this packet's
    return ReasonCode(PacketTypes.PUBACK, identifier=code & FAILURE)


def _size(message: paho.MQTTMessage) -> int:
    """Most that it may have as a packet, in bytes."""
    properties = b"" if message.properties is None else message.properties.pack()
    return PUBLISH_HEAD_BYTES + len(message.topic.encode()) + len(properties) + len(message.payload)
