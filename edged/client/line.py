"""The client's line to the broker, over paho-mqtt: one of the two rooms that use it.

The other is the daemon's adapter. What comes of a try to connect is `attempt`'s matter.

paho's one network thread runs the callbacks below. They raise nothing and hold no lock of ours while they call
paho; if that thread ends all the same, `alive` tells.
"""

from __future__ import annotations

import math
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged import mqtt5
from edged.client import failures
from edged.client.answer import NO_LINE, ClientError, UnreachableError
from edged.client.attempt import Attempt
from edged.client.cuts import CUTS_OFF, Cuts
from edged.client.found import SESSION_S
from edged.client.words import Words
from edged.core.link import SHORT_LIVES, STEADY_S

CONNECT_S = 10.0
KEEPALIVE_S = 20
LOOK_S = 0.1
"""How often to look whether a lost connection is back."""
LAST_WORDS_S = 2.0
"""How long the broker's words on what was sent are waited for at the end."""
RETRY_MIN_S, RETRY_MAX_S = 1, 4
SUBSCRIBED_S = 2.0 * RETRY_MIN_S
"""By then a program that was pushed out is back and has subscribed."""
RECEIVE_MAX = 32
"""Messages of QoS 1 that may be in flight to us: of a session that is not ours no more than these need to come."""
EXPIRY_MAX_S = 0xFFFF_FFFF
"""Message Expiry Interval has four bytes (MQTT 5, 3.3.2.3.3)."""

Acknowledged = Callable[[int, str], None]
"""Told the broker's word on a message: PUBACK's reason code, and the same in words."""


class Line:
    """One connection, which comes back by itself once it has been made.

    Args:
        name: begins the MQTT client id.
        topics: to subscribe to on every connection.
        marks: topics that only sessions of programs of our name have, this one or others.
        on_message: told topic, payload and whether it was retained. Network thread.
        on_reached: told of every connection before what waits for one is sent. Network thread.
        on_connected: told of every connection, all but the first once subscriptions are answered. Network thread.
        on_subscribed: told a topic and why the broker refuses it, None where it does not. Any thread.

    Attributes:
        lives: connections that there were so far.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str,
        topics: tuple[str, ...],
        marks: tuple[str, ...],
        on_message: Callable[[str, bytes, bool], None],
        on_reached: Callable[[], None],
        on_connected: Callable[[], None],
        on_subscribed: Callable[[str, str | None], None],
        username: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._host, self._port = host, port
        self._topics, self._marks = topics, marks
        self._on_message = on_message
        self._on_reached = on_reached
        self._on_connected = on_connected
        self._on_subscribed = on_subscribed
        self._pubacks: Words[tuple[int, str]] = Words()
        self._subacks: Words[list[ReasonCode]] = Words()
        self._connected_s: float | None = None
        self.lives = 0
        self._short_lives = 0
        self._cuts = Cuts()
        self._packet_bytes_max = mqtt5.PACKET_BYTES_MAX
        self._network: threading.Thread | None = None
        self._closed = False
        self._coming_or_going = threading.RLock()  # one thread at a time; the network thread does neither
        self._name, self._account, self._tls = name, (username, password), tls
        self._attempt = self._begun()
        self._paho = self._made()

    def _begun(self) -> Attempt:
        return Attempt(
            f"{self._host}:{self._port}", self._account[0], tls=self._tls is not None, marks=self._marks
        )

    def _made(self) -> mqtt5.Client:
        # The client id differs from the name: two programs of one user must not throw each other out.
        made = mqtt5.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._name[:50]}-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        made.connect_timeout = CONNECT_S
        made.suppress_exceptions = True
        made.reconnect_delay_set(min_delay=RETRY_MIN_S, max_delay=RETRY_MAX_S)
        username, password = self._account
        if username is not None:
            made.username_pw_set(username, password)
        if self._tls is not None:
            made.tls_set_context(self._tls)
        made.on_connect = self._connected
        made.on_message = self._arrived
        made.on_publish = self._published
        made.on_subscribe = self._subscribed
        made.on_unsubscribe = self._unsubscribed
        made.on_disconnect = self._lost
        made.on_socket_open = _prompt
        return made

    # any thread -----------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, first or again, and wait until the broker has taken us in; nothing is done where it has.

        Raises:
            UnreachableError: nothing listens there, it does not answer, or refuses for now.
            ClientError: the broker refuses, or can never be reached so.
        """
        with self._coming_or_going:
            if not self.alive():
                self._connect()
            end_s = time.monotonic() + CONNECT_S
            while not self.connected():  # lost, and on its way back with all that waits there
                if time.monotonic() > end_s:
                    raise UnreachableError(
                        f"no broker at {self._host}:{self._port} just now; {failures.MEND}"
                    )
                time.sleep(LOOK_S)

    def _connect(self) -> None:
        try:
            failure = self._tried()
            if self._attempt.foreign and self._attempt.ended:
                # One of ours may have made it and not subscribed yet: look again when it has.
                self.close()
                time.sleep(SUBSCRIBED_S)
                failure = self._tried()
        except BaseException:  # an interrupt too: left there, our session would look like somebody else's
            self.close()
            raise
        if failure is not None:
            self.close()
            raise failure

    def _tried(self) -> ClientError | None:
        """Try once; returns why the broker has not taken us in.

        Raises:
            ClientError: as `connect`, where it cannot be reached.
        """
        self.close()  # what waited there was asked by answers that have ended
        self._pubacks.clear()
        self._closed, self._network = False, None
        self._short_lives = 0
        self._cuts.begin()
        self._attempt = self._begun()
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_S
        properties.ReceiveMaximum = RECEIVE_MAX
        try:
            self._paho.connect(self._host, self._port, KEEPALIVE_S, clean_start=False, properties=properties)
        except (OSError, ValueError) as error:
            raise self._attempt.unreachable(error) from None
        self._paho.loop_start()
        return self._attempt.failure(CONNECT_S)

    def close(self) -> None:
        """Disconnect once the broker has what was sent, end the network thread, and let go of its files.

        paho closes the pair of sockets that wakes its thread when it is collected. It holds us by its callbacks: a
        new one in its place unties that ring, for the garbage collector would come late, and may come to the
        sockets first and warn of them.
        """
        with self._coming_or_going:
            try:
                if self.connected():
                    # Behind DISCONNECT paho closes at once. Whatever has come and is not read resets the connection
                    # then, and a broker that cannot acknowledge one message any more reads none of those behind it.
                    self._pubacks.settle(LAST_WORDS_S)
            finally:
                self._closed = True
                goodbye = Properties(PacketTypes.DISCONNECT)
                goodbye.SessionExpiryInterval = self._attempt.keep_s
                self._paho.disconnect(properties=goodbye)
                self._paho.loop_stop()
                self._paho = self._made()

    def alive(self) -> bool:
        """Whether messages can still come: it was connected, is not closed, and the network thread lives."""
        return not self._closed and self._network is not None and self._network.is_alive()

    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self._paho.is_connected()

    def crowded(self) -> bool:
        """Whether connections end again and again soon after they began; no longer once one lasts."""
        since_s = self._connected_s
        lasts = since_s is not None and time.monotonic() - since_s >= STEADY_S
        return self._short_lives >= SHORT_LIVES and not lasts

    def subscribe(self, topic: str) -> None:
        """Subscribe from now on; once is enough.

        Raises:
            ClientError: nothing was connected, or it has ended for good.
        """
        if not self.alive():
            raise ClientError(NO_LINE)
        if topic not in self._topics:
            self._topics = (*self._topics, topic)
            self._subscribe((topic,))

    def publish(
        self,
        topic: str,
        payload: bytes,
        acknowledged: Acknowledged,
        correlation: bytes = b"",
        expiry_s: float | None = None,
    ) -> int:
        """Send JSON with QoS 1; while the connection is lost it waits for the next one. Returns its name.

        With `expiry_s` the broker passes it on no later than so many seconds after it came there, rounded up.

        Raises:
            ClientError: it is larger than the broker takes, too much waits already, or nothing is connected.
        """
        if not self.alive():
            raise ClientError(NO_LINE)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        properties.PayloadFormatIndicator = 1
        if correlation:
            properties.CorrelationData = correlation
        if expiry_s is not None:
            properties.MessageExpiryInterval = min(EXPIRY_MAX_S, max(1, math.ceil(expiry_s)))
        size = mqtt5.HEAD_BYTES_MAX + len(topic) + len(correlation) + len(payload)
        if size > self._packet_bytes_max:  # the broker would end the connection, and the next one, and so on
            raise ClientError(
                f"it cannot be sent: with its topic it has {size} bytes, and the broker takes "
                f"{self._packet_bytes_max} at most"
            )
        try:
            sent = self._paho.publish(topic, payload, qos=1, properties=properties)
        except ValueError as error:
            raise ClientError(f"it cannot be sent: {error}") from None
        if sent.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}:
            raise ClientError(f"it cannot be sent: {paho.error_string(sent.rc)}")
        self._pubacks.wait_for(sent.mid, lambda word: acknowledged(*word))
        return sent.mid

    def take_back(self, mid: int) -> bool:
        """Do not send a message that was not acknowledged and still waits; False where the broker may have it."""
        taken = self._paho.take_back(mid)
        if taken:
            self._pubacks.drop(mid)
        return taken

    def _subscribe(self, topics: tuple[str, ...], then: Callable[[], None] = lambda: None) -> None:
        def answered(reasons: list[ReasonCode]) -> None:
            for topic, reason in zip(topics, reasons, strict=False):
                self._on_subscribed(topic, str(reason) if reason.is_failure else None)
            then()

        _, mid = self._paho.subscribe([(topic, 1) for topic in topics])
        if mid is not None:  # without a connection the next one will
            self._subacks.wait_for(mid, answered)

    # network thread: paho's callbacks ---------------------------------------------------------------------

    def _connected(
        self,
        client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._network = threading.current_thread()
        if reason.is_failure:
            self._attempt.refused(reason.value, str(reason))
            return
        self.lives += 1
        self._connected_s = time.monotonic()
        self._attempt.no_qos_1 = getattr(properties, "MaximumQoS", 1) == 0
        self._packet_bytes_max = getattr(properties, "MaximumPacketSize", mqtt5.PACKET_BYTES_MAX)
        self._on_reached()
        most = 1 if self._cuts.wary else mqtt5.MOST
        most = min(most, getattr(properties, "ReceiveMaximum", most))
        for mid in self._paho.fit(most, self._packet_bytes_max):
            self._told(mid, mqtt5.reason(mqtt5.TOO_LARGE))
        self._subacks.clear()  # those of the connection that is gone
        if flags.session_present and not self._attempt.ended:
            self._attempt.found(client.unsubscribe)
        else:
            self._begin()

    def _unsubscribed(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if self._attempt.answered(reason.value for reason in reasons):
            self._begin()

    def _begin(self) -> None:
        if self._attempt.ended:
            # What is asked again goes behind what paho sends again by itself, for that is counted only then.
            self._subscribe(self._topics, self._on_connected)
        else:
            self._subscribe(self._topics)
            self._on_connected()
            self._attempt.taken_in()

    def _subscribed(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._subacks.came(mid, reasons)

    def _lost(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        _flags: paho.DisconnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        since_s, self._connected_s = self._connected_s, None
        if since_s is not None:  # paho may tell it twice
            soon = time.monotonic() - since_s < STEADY_S
            self._short_lives = self._short_lives + 1 if soon else 0
            self._cut(soon=soon)
        elif not self._attempt.ended:
            self._attempt.hung_up()

    def _cut(self, *, soon: bool) -> None:
        """A connection has ended: give up the message that it may have been cut at, where others were before."""
        oldest = next(iter(self._paho.unanswered), None)
        if self._cuts.ended(oldest, soon=soon) and oldest is not None:
            self._paho.give_up(oldest)
            self._pubacks.came(oldest, (mqtt5.FAILURE, CUTS_OFF))

    def _told(self, mid: int, reason: ReasonCode) -> None:
        self._pubacks.came(mid, (reason.value, str(reason)))

    def _arrived(self, client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401
        if self._attempt.foreign:
            return  # what we do not acknowledge its owner gets
        client.ack(message.mid, message.qos)
        self._on_message(message.topic, bytes(message.payload), message.retain)

    def _published(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        self._told(mid, reason)


def _prompt(_paho: paho.Client, _userdata: object, sock: object) -> None:
    """Send small packets at once: an acknowledgement that waits for company delays the broker's next by 40 ms."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
