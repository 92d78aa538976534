"""Between the node's values and paho's: properties of a PUBLISH, and the cause of a broken connection."""

from __future__ import annotations

import logging

from paho.mqtt.client import DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from edged.core.link import Outgoing
from edged.core.question import Properties

UNSPECIFIED = 0x80
"""A reason of DISCONNECT: "Unspecified error"."""


def publish_properties(message: Outgoing) -> PahoProperties | None:
    """MQTT 5 properties of a message of ours; None where it has none."""
    if message.correlation is None and not message.content_type and message.expiry_s is None:
        return None
    properties = PahoProperties(PacketTypes.PUBLISH)
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    if message.content_type:
        properties.ContentType = message.content_type
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    return properties


def properties_of(properties: PahoProperties | None) -> Properties:
    """What the contract honours of a device's message."""
    if properties is None:
        return Properties()
    get = vars(properties).get
    return Properties(
        response_topic=get("ResponseTopic"),
        correlation=get("CorrelationData"),
        expiry_s=get("MessageExpiryInterval"),
        content_type=get("ContentType"),
    )


class LastWord(logging.Handler):
    """Keeps the last error that paho logs: it hands a broken connection's cause to its logger and nobody else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001 - ours alone: not in the tree of loggers
        self.logger.addHandler(self)
        self._text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._text = record.getMessage()

    def take(self, flags: DisconnectFlags, reason: ReasonCode) -> str:
        """Why a connection is gone: the last error, once, else what paho makes of its end."""
        text, self._text = self._text, ""
        if text:
            return text.removeprefix("failed to receive on socket: ")
        # "Unspecified error" of a broker is its word (MQTT 5, 3.14.2.1); of paho, that the connection ended.
        unsaid = reason.value == UNSPECIFIED and not flags.is_disconnect_packet_from_server
        return "the broker closed the connection without a reason" if unsaid else str(reason)
