"""paho's client, which keeps the connection where it does not know a PUBACK's reason. For daemon and devices alike.

paho ends the connection where MQTT 5 has no such reason for a PUBACK (3.4.2.1), and sends the message again to the
next one, which ends in the same way, and so on for ever. Mosquitto 2.0 answers so what its `message_size_limit`
does not let pass (149, "Packet too large"): a single long answer kept a node off its broker.
"""

from __future__ import annotations

from typing import Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

FAILURE = 0x80
"""Where reasons begin that are failures (MQTT 5, 2.4); itself "Unspecified error"."""


class Client(paho.Client):
    """A client for which a PUBACK with any reason is one."""

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
