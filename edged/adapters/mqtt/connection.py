"""MQTT 5 through paho-mqtt: one thread of our own does everything that touches the client.

Other threads put what they want into a queue and wake that thread; callbacks only put events into the node's
inbox. So no callback can deadlock against a publish, a packet is never written by two threads, and an
acknowledgement can never meet another connection than the one its message came by.

paho's own threads are not used: an exception in a callback ends them while `is_connected()` stays true. If
our thread ends unasked, the node is told and ends the process.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from edged.core import link_advice
from edged.core.link import (
    Arrived,
    Connected,
    Delivery,
    LinkEvent,
    Outgoing,
    Subscription,
    ThreadDied,
)
from edged.core.question import Properties

from .client import Bare, Client
from .flood import Flood
from .link import Link, tls_context, words
from .sending import Sending
from .subscriptions import Subscriptions
from .translation import LastWord, properties_of
from .tries import Tries

CONNECT_TIMEOUT_S = 5.0
CONNACK_TIMEOUT_S = 10.0
TICK_S = 0.5
ACK_KEEPALIVES = 2
"""Keepalive intervals after which a message counts as never to be acknowledged, or never to come. Where
`max_queued_messages` wait for a client, Mosquitto 2.0 drops acknowledgements too, and questions of QoS 1; on a new
connection all is sent again (MQTT 5, 4.4)."""
UNACKNOWLEDGED = (
    "the broker is there but does not acknowledge what was sent; connecting anew, to send it again"
)
FLOODED = (
    "so many messages came with QoS 0 that the broker may have dropped others; connecting anew, for it then sends "
    "those of QoS 1 again"
)

log = structlog.get_logger()


class Mqtt:
    """A connection that is kept for as long as the process lives.

    Args:
        link: where and how.
        emit: the node's inbox; called from the MQTT thread.
        behind: how many events wait there.

    Raises:
        SettingsError: a file for TLS is missing or is not what it should be.
    """

    def __init__(
        self, link: Link, emit: Callable[[LinkEvent], None], behind: Callable[[], int] = lambda: 0
    ) -> None:
        self._link = link
        self._emit = emit
        self._orders: deque[Delivery | Subscription] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._connection = 0
        self._connack_due = 0.0
        self._tries = Tries(link, emit)
        self._flood = Flood(behind)
        self._log = LastWord()
        self._subscriptions = Subscriptions(link.subscriptions, emit)
        self._stopping = threading.Event()
        self._stop_by = float("inf")
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._client = self._make_client()
        self._sending = Sending(self._client, emit, gathers=link.tls is not None)
        self.connected = False
        self.beat = time.monotonic()
        """When the MQTT thread last went round its loop; the watchdog reads it."""

    # any thread -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def publish(self, message: Outgoing) -> None:
        """Send a message. Without a connection one of QoS 0 is dropped and one with a token comes back."""
        self._sending.put(message)
        self._wake()

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that we have a message; nothing happens if its connection is gone."""
        if delivery.qos:
            self._put(delivery)

    def subscribe(self, topic: str) -> None:
        """Listen to this filter from now on, over reconnections too; `Subscribed` follows."""
        self._put(Subscription(topic, wanted=True))

    def unsubscribe(self, topic: str) -> None:
        """Give a filter up; `Unsubscribed` follows once the broker hands nothing more to it."""
        self._put(Subscription(topic, wanted=False))

    def stop(self, timeout_s: float) -> bool:
        """Send what waits, disconnect without the last will, end the thread; True if it ended in time."""
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        self._wake()
        self._thread.join(timeout_s + CONNECT_TIMEOUT_S)
        if self._thread.is_alive():
            return False
        self._wake_in.close()
        self._wake_out.close()
        return True

    def _put(self, item: Delivery | Subscription) -> None:
        self._orders.append(item)
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_out.send(b"\0")
        except OSError:
            pass  # thousands of bytes already tell it to wake, or there is nobody left to be woken

    # MQTT thread ----------------------------------------------------------------------------------------

    def _make_client(self) -> Client:
        link = self._link
        client = Client(
            self._on_bare,
            CallbackAPIVersion.VERSION2,
            client_id=link.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.will_set(link.will_topic, link.will, qos=1, retain=True)
        if link.username is not None:
            client.username_pw_set(link.username, link.password)
        if link.tls is not None:
            client.tls_set_context(tls_context(link.tls))
        client.enable_logger(self._log.logger)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_socket_open = self._on_socket_open
        return client

    def _connect_properties(self) -> PahoProperties:
        properties = PahoProperties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._link.session_expiry_s
        properties.ReceiveMaximum = self._link.receive_max
        properties.MaximumPacketSize = self._link.packet_bytes_max
        return properties

    def _run(self) -> None:
        reason = "it returned"
        try:
            while not self._stopping.is_set():
                if self._connect():
                    self._serve()
                self._drop_offline()
                if not self._stopping.is_set():
                    self._wait_to_retry()
        except BaseException as error:  # noqa: BLE001 - whatever it was, the node must hear of it
            reason = f"{type(error).__name__}: {error}"
        finally:
            self.connected = False
            if not self._stopping.is_set():
                self._emit(ThreadDied("mqtt", reason))

    def _connect(self) -> bool:
        link = self._link
        self._tries.begin()
        self.beat = time.monotonic()
        self._connack_due = self.beat + CONNACK_TIMEOUT_S
        try:
            code = self._client.connect(
                link.host,
                link.port,
                # paho pings after this much silence and gives up after as much again: in all 1.5 of what is wanted
                keepalive=max(1, 3 * link.keepalive_s // 4),
                # False and a session expiry: only both together keep the broker's queue for us
                clean_start=False,
                properties=self._connect_properties(),
            )
        except (OSError, ValueError) as error:
            self._tries.failed(f"{link.host}:{link.port}: {words(error, tls=link.tls is not None)}")
            return False
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._tries.failed(f"{link.host}:{link.port}: {paho.error_string(code)}")
            return False
        return True

    def _serve(self) -> None:
        """Go round until the connection is gone or we are told to stop."""
        while True:
            self.beat = time.monotonic()
            self._send_out()
            if self._stopping.is_set() and self._finished():
                self._client.disconnect()
                self._client.loop_write()
                return
            sock = self._client.socket()
            if sock is None:
                return
            code = self._turn(sock)
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._client.socket() is None:
                self._lost(paho.error_string(code))
                return
            if self.connected and (reason := self._overdue()):
                self._lost(reason)
                self._client.disconnect()
                self._client.loop_write()
                return
            if not self.connected and time.monotonic() > self._connack_due:
                self._tries.failed("the broker does not answer CONNECT")
                self._client.disconnect()
                return

    def _overdue(self) -> str:
        """Why this connection is to end: something is owed on it that never comes; empty while nothing is."""
        patience_s = ACK_KEEPALIVES * self._link.keepalive_s
        if self._sending.oldest_s > patience_s:
            return UNACKNOWLEDGED
        return FLOODED if self._flood.since_s > patience_s else ""

    def _turn(self, sock: Any) -> MQTTErrorCode:  # noqa: ANN401 - a socket, of TLS or not
        """Wait until there is something to do, and do it."""
        client = self._client
        writers = [sock] if client.want_write() else []
        pending = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
        try:
            readable, writable, _ = select.select(
                [sock, self._wake_in], writers, [], 0 if pending else TICK_S
            )
        except (OSError, ValueError):
            readable, writable = [sock], []  # the socket was closed under us: let paho find out
        if self._wake_in in readable:
            self._drain_wake()
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        if sock in readable or pending:
            code = client.loop_read()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS and sock in writable:
            code = client.loop_write()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = client.loop_misc()
        return code

    def _send_out(self) -> None:
        """Hand what may leave to paho, and have it written together, see `client`."""
        while self._orders and not (self.connected and self._sending.gathering):
            order = self._orders.popleft()
            if isinstance(order, Subscription):
                self._subscriptions.change(order, self._client if self.connected else None)
            elif self.connected and order.connection == self._connection:
                self._client.ack(order.mid, order.qos)
                log.debug("message_acknowledged", mid=order.mid)
        if self.connected:
            self._sending.hand_over()
        else:
            self._sending.give_back()
        if self._client.want_write():
            self._client.loop_write()

    def _finished(self) -> bool:
        sent = not self._orders and self._sending.done
        return sent or time.monotonic() >= self._stop_by or not self.connected

    def _drop_offline(self) -> None:
        self.connected = False
        self._send_out()

    def _wait_to_retry(self) -> None:
        until = time.monotonic() + self._tries.wait_s()
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self.beat = time.monotonic()
            readable, _, _ = select.select([self._wake_in], [], [], min(left, TICK_S))
            if readable:
                self._drain_wake()
                self._drop_offline()

    def _drain_wake(self) -> None:
        try:
            self._wake_in.recv(65_536)
        except BlockingIOError:
            pass  # nothing left to read: another round took it

    def _lost(self, reason: str) -> None:
        if self.connected:
            self.connected = False
            self._tries.lost(reason)
        elif not self._stopping.is_set():
            self._tries.closed(reason)

    # paho's callbacks, in the MQTT thread -----------------------------------------------------------------

    def _on_socket_open(self, _client: paho.Client, _userdata: Any, sock: Any) -> None:  # noqa: ANN401
        # A half-open connection shows as sent bytes that nobody acknowledges. paho gives up after two of its
        # intervals; with this the kernel tells us half an interval after the ping (tcp(7)).
        timeout_ms = self._link.keepalive_s * 500
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, AttributeError):
            pass  # a transport without these options works as paho alone would

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: PahoProperties | None,
    ) -> None:
        if reason.is_failure:
            self._tries.failed(link_advice.on_refusal(str(reason), self._link.username))
            return
        self._sending.connected(properties)
        self._flood.connected()
        self._connection += 1
        self._tries.succeeded()
        self.connected = True
        self._subscriptions.connected(client, properties)
        self._emit(Connected(flags.session_present))

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: PahoProperties | None,
    ) -> None:
        if not self._stopping.is_set():
            self._lost(self._log.take() or str(reason))
        self.connected = False

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        reasons: list[ReasonCode],
        _properties: PahoProperties | None,
    ) -> None:
        self._subscriptions.subscribed(mid, reasons)

    def _on_unsubscribe(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        _reasons: list[ReasonCode],
        _properties: PahoProperties | None,
    ) -> None:
        self._subscriptions.unsubscribed(mid)

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401
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

    def _on_bare(self, message: Bare, fault: str) -> None:
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

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        reason: ReasonCode,
        _properties: PahoProperties,
    ) -> None:
        self._sending.acknowledged(mid, reason)
