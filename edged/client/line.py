"""The client's line to the broker, over paho-mqtt: one of the two rooms that use it.

The first is the daemon's adapter, which keeps a session and acknowledges by hand; a client needs neither: it
starts clean with every connection. paho's one network thread runs the callbacks below. They raise nothing and
hold no lock of ours while they call paho; if that thread ends all the same, `alive` tells.
"""

from __future__ import annotations

import math
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged import puback
from edged.client.answer import NO_LINE, ClientError, UnreachableError

CONNECT_S = 10.0
KEEPALIVE_S = 20
RETRY_MAX_S = 4
PACKET_BYTES_MAX = 268_435_460
"""Largest packet of MQTT itself (MQTT 5, 2.1.4): what a broker takes that names no limit."""
PACKET_HEAD_BYTES = 64
"""What a PUBLISH has beside topic, payload and Correlation Data, at most."""
EXPIRY_MAX_S = 0xFFFF_FFFF
"""Message Expiry Interval has four bytes (MQTT 5, 3.3.2.3.3)."""
PASSING = frozenset({0x88, 0x89, 0x97, 0x9F})
"""Refusals that may be over later: server unavailable, server busy, quota or rate exceeded (MQTT 5, 3.2.2.2)."""

Acknowledged = Callable[[int, str], None]
"""Told the broker's word on a message: PUBACK's reason code, and the same in words."""


class Line:
    """One connection, which comes back by itself once it has been made.

    Args:
        name: begins the MQTT client id.
        topics: to subscribe to on every connection.
        on_message: told topic, payload and whether it was retained. Network thread.
        on_connected: told of every connection, after the subscriptions were sent. Network thread.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str,
        topics: tuple[str, ...],
        on_message: Callable[[str, bytes, bool], None],
        on_connected: Callable[[], None],
        username: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._host, self._port = host, port
        self._topics = topics
        self._on_message = on_message
        self._on_connected = on_connected
        self._lock = threading.Lock()  # guards the next two; never held while paho is called
        self._awaited: dict[int, Acknowledged] = {}
        self._early: dict[int, ReasonCode] = {}
        self._refused: ReasonCode | None = None
        self._taken_in = threading.Event()
        self._packet_bytes_max = PACKET_BYTES_MAX
        self._network: threading.Thread | None = None
        self._closed = False
        self._name, self._account, self._tls = name, (username, password), tls
        self._paho = self._made()

    def _made(self) -> paho.Client:
        # The client id differs from the name: two programs of one user must not throw each other out.
        made = puback.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._name[:50]}-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        made.connect_timeout = CONNECT_S
        made.suppress_exceptions = True
        made.reconnect_delay_set(min_delay=1, max_delay=RETRY_MAX_S)
        username, password = self._account
        if username is not None:
            made.username_pw_set(username, password)
        if self._tls is not None:
            made.tls_set_context(self._tls)
        made.on_connect = self._connected
        made.on_message = self._arrived
        made.on_publish = self._published
        made.on_socket_open = _prompt
        return made

    # any thread -----------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, first or again, and wait until the broker has taken us in.

        Raises:
            UnreachableError: nothing listens there, it does not answer, or refuses for now.
            ClientError: the broker refuses, or can never be reached so.
        """
        self.close()  # what waited there was asked by answers that have ended
        self._awaited, self._early = {}, {}
        self._taken_in.clear()
        self._closed, self._refused, self._network = False, None, None
        place = f"{self._host}:{self._port}"
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        try:
            self._paho.connect(self._host, self._port, KEEPALIVE_S, clean_start=True, properties=properties)
        except (ConnectionRefusedError, TimeoutError) as error:
            raise UnreachableError(f"no broker at {place}: {_words(error)}; {_MEND}") from None
        except (OSError, ValueError) as error:
            raise ClientError(f"no broker at {place}: {_words(error)}; {_mend(error)}") from None
        self._paho.loop_start()
        in_time = self._taken_in.wait(CONNECT_S)
        refused = self._refused
        if not in_time or refused is not None:
            self.close()
            if refused is not None and refused.value in PASSING:
                raise UnreachableError(f"the broker at {place} refused us: {refused}; try again later")
            if refused is not None:
                mend = "see user name, password and its ACL"
                if str(refused) == "Unsupported protocol version":
                    mend = "it has no MQTT 5, which this client speaks"
                raise ClientError(f"the broker at {place} refused us: {refused}; {mend}")
            raise UnreachableError(f"{place} takes connections and says nothing; is it a broker for MQTT 5?")

    def close(self) -> None:
        """Disconnect, end the network thread, and let go of its files.

        paho closes the pair of sockets that wakes its thread when it is collected. It holds us by its callbacks: a
        new one in its place unties that ring, for the garbage collector would come late, and may come to the
        sockets first and warn of them.
        """
        self._closed = True
        self._paho.disconnect()
        self._paho.loop_stop()
        self._paho = self._made()

    def alive(self) -> bool:
        """Whether messages can still come: it was connected, is not closed, and the network thread lives."""
        return not self._closed and self._network is not None and self._network.is_alive()

    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self._paho.is_connected()

    def subscribe(self, topic: str) -> None:
        """Subscribe from now on; once is enough.

        Raises:
            ClientError: nothing was connected, or it has ended for good.
        """
        if not self.alive():
            raise ClientError(NO_LINE)
        if topic not in self._topics:
            self._topics = (*self._topics, topic)
            self._paho.subscribe(topic, qos=1)  # without a connection: the next one will

    def publish(
        self,
        topic: str,
        payload: bytes,
        acknowledged: Acknowledged,
        correlation: bytes = b"",
        expiry_s: float | None = None,
    ) -> None:
        """Send JSON with QoS 1; while the connection is lost it waits for the next one.

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
        size = PACKET_HEAD_BYTES + len(topic) + len(correlation) + len(payload)
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
        with self._lock:
            reason = self._early.pop(sent.mid, None)  # PUBACK can be quicker than publish() returns
            if reason is None:
                self._awaited[sent.mid] = acknowledged
        if reason is not None:
            acknowledged(reason.value, str(reason))

    # network thread: paho's callbacks ---------------------------------------------------------------------

    def _connected(
        self,
        client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._network = threading.current_thread()
        self._packet_bytes_max = getattr(properties, "MaximumPacketSize", PACKET_BYTES_MAX)
        if reason.is_failure:
            self._refused = reason
        else:
            self._refused = None
            client.subscribe([(topic, 1) for topic in self._topics])
            self._on_connected()
        self._taken_in.set()

    def _arrived(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401
        self._on_message(message.topic, bytes(message.payload), message.retain)

    def _published(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        with self._lock:
            acknowledged = self._awaited.pop(mid, None)
            if acknowledged is None:
                self._early[mid] = reason
        if acknowledged is not None:
            acknowledged(reason.value, str(reason))


def _prompt(_paho: paho.Client, _userdata: object, sock: object) -> None:
    """Send small packets at once: an acknowledgement that waits for company delays the broker's next by 40 ms."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


_MEND = "start the broker, or correct host and port"


def _mend(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "give the CA that signed it, and the host by a name that stands in it"
    if isinstance(error, ssl.SSLError | ConnectionResetError):  # a broker without TLS resets the handshake
        return "does that port speak TLS?"
    return "correct the host" if isinstance(error, socket.gaierror) else _MEND


def _words(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message}"
        case socket.gaierror():
            return "the host name cannot be resolved"
        case ConnectionRefusedError():
            return "nothing listens there"
        case TimeoutError():
            return "it does not answer"
        case ConnectionResetError():
            return "it ended the connection"
        case _:
            return str(error)
