"""Messages of ours on their way to the broker: how many at once, which are too large, and what became of each.

Belongs to the MQTT thread, but for `put`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from edged.core.link import Delivered, LinkEvent, Outgoing, Undelivered
from edged.mqtt5 import HEAD_BYTES_MAX, MOST, PACKET_BYTES_MAX

from .client import Client
from .translation import publish_properties
from .window import Window

WAITING_MAX = 16_384
"""Messages that may wait to be sent: more than all jobs of the largest queue have at once, some 20 MB."""

log = structlog.get_logger()


class Sending:
    """What is sent.

    Args:
        client: paho's, which has what is under way and sends it again on a new connection.
        emit: the node's inbox.
        gathers: see `Window`.
    """

    def __init__(self, client: Client, emit: Callable[[LinkEvent], None], *, gathers: bool) -> None:
        self._client = client
        self._emit = emit
        self._waiting: deque[Outgoing] = deque()
        self._window = Window(gathers=gathers)
        self._news: dict[int, str] = {}  # topics of what this node says of itself, while it is under way
        self._told: dict[str, str] = {}  # why the broker does not take it, as the log has it
        self._packet_bytes_max = PACKET_BYTES_MAX
        self._last = ""

    def put(self, message: Outgoing) -> None:
        """A message is to be sent; any thread.

        Where too many wait, one that nobody keeps account of is dropped: its device may ask again.
        """
        if len(self._waiting) < WAITING_MAX or message.token is not None or message.retain:
            self._waiting.append(message)

    @property
    def gathering(self) -> bool:
        """Whether all that can wait should, to leave with the messages that have to."""
        return self._window.gathering

    @property
    def oldest_s(self) -> float:
        """How long the oldest message under way has waited for its acknowledgement."""
        return self._window.oldest_s

    @property
    def unanswered(self) -> list[str]:
        """Topics of what the broker owes us a word for, and of what was sent last: to QoS 0 it says nothing."""
        topics = [*self._client.unanswered.values()]
        return topics if self._last in topics or not self._last else [*topics, self._last]

    @property
    def done(self) -> bool:
        """Whether nothing waits, and nobody for an acknowledgement."""
        return not self._waiting and not self._window.owing

    def connected(self, properties: PahoProperties | None, *, singly: bool = False) -> None:
        """A new connection: what paho sends again is held to what this broker takes.

        `singly`: one message at a time, so that it shows at which one the broker cuts.
        """
        self._last = ""
        self._window.connected(properties, 1 if singly else MOST)
        self._packet_bytes_max = getattr(properties, "MaximumPacketSize", PACKET_BYTES_MAX)
        for mid in self._client.fit(self._window.limit, self._packet_bytes_max):
            self._too_large(self._window.acknowledged(mid), self._news.pop(mid, None))

    def give_up(self, topic: str, reason: str) -> bool:
        """Without a connection: take back the oldest message to this topic; False where there is none to be spared.

        What a node says of itself it says again on each connection.
        """
        sent = [mid for mid, to in self._client.unanswered.items() if to == topic and mid not in self._news]
        for mid in sent[:1]:
            self._client.give_up(mid)
            token = self._window.acknowledged(mid)
            log.warning("message_given_up", topic=topic, reason=reason)
            if token is not None:
                self._emit(Delivered(token, refused=reason))
        return bool(sent)

    def hand_over(self) -> None:
        """With a connection: give paho what may leave."""
        while self._waiting and not (self._waiting[0].qos and self._window.full):
            self._send(self._waiting.popleft())

    def give_back(self) -> None:
        """Without one: what has a token comes back, the rest is dropped."""
        while self._waiting:
            message = self._waiting.popleft()
            if message.token is not None:
                self._emit(Undelivered(message.token))

    def acknowledged(self, mid: int, reason: ReasonCode) -> None:
        """PUBACK, or paho's word that a message of QoS 0 is written."""
        token, topic = self._window.acknowledged(mid), self._news.pop(mid, None)
        refused = str(reason) if reason.is_failure else None
        if token is not None:
            self._emit(Delivered(token, refused=refused))
        elif topic is not None and refused is None:
            self._told.pop(topic, None)
        elif topic is not None:
            self._tell(topic, f"the broker refuses it: {refused}; see its ACL and its limits")

    def _send(self, message: Outgoing) -> None:
        topic = message.topic if message.retain else None
        size = len(message.topic.encode()) + len(message.payload) + len(message.correlation or b"")
        if size + HEAD_BYTES_MAX > self._packet_bytes_max:
            # The broker would cut the connection, paho send it again, and so on for ever (MQTT 5, 3.2.2.3.6).
            self._too_large(message.token, topic)
            return
        try:
            sent = self._client.publish(
                message.topic,
                message.payload,
                qos=message.qos,
                retain=message.retain,
                properties=publish_properties(message),
            )
        except ValueError as error:  # no legal topic
            if message.token is not None:
                self._emit(Delivered(message.token, refused=str(error)))
            return
        self._last = message.topic
        if message.qos and sent.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            self._window.sent(sent.mid, message.token)
            if topic is not None:
                self._news[sent.mid] = topic
        elif message.token is not None:
            self._emit(Undelivered(message.token))

    def _too_large(self, token: object, topic: str | None) -> None:
        reason = f"larger than the broker's limit of {self._packet_bytes_max} bytes a packet"
        if token is not None:
            self._emit(Delivered(token, refused=reason))
        elif topic is not None:
            self._tell(topic, f"{reason}; raise that")

    def _tell(self, topic: str, reason: str) -> None:
        """Nobody waits for the broker's word on what a node says of itself, but somebody will miss it there."""
        if self._told.get(topic) != reason:
            self._told[topic] = reason
            log.warning("message_refused", topic=topic, reason=reason)
