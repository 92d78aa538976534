"""MQTT 5 through paho-mqtt: one thread of our own does everything that touches the client.

Other threads put what they want into a queue and wake that thread; callbacks only put events into the node's
inbox. So no callback can deadlock against a publish, a packet is never written by two threads, and an
acknowledgement can never meet another connection than the one its message came by.

paho's own threads are not used: an exception in a callback ends them while `is_connected()` stays true. If
our thread ends unasked, the node is told and ends the process.
"""

from __future__ import annotations

import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from edged.core import link_advice
from edged.core.link import (
    Connected,
    Delivery,
    LinkEvent,
    Outgoing,
    Subscription,
    ThreadDied,
)

from . import opening
from .client import Client
from .link import Link
from .receiving import Receiving
from .sending import Sending
from .subscriptions import Subscriptions
from .translation import LastWord
from .tries import Tries
from .wake import Wake

log = structlog.get_logger()

CONNACK_TIMEOUT_S = 10.0
TICK_S = 0.5
ACK_KEEPALIVES = 2
"""Keepalive intervals after which a message counts as never to be acknowledged, or never to come. Where
`max_queued_messages` wait for a client, Mosquitto 2.0 drops acknowledgements too, and questions of QoS 1; on a new
connection all is sent again (MQTT 5, 4.4)."""
UNACKNOWLEDGED = (
    "the broker is there but does not acknowledge what was sent; connecting anew, to send it again"
)
PUBLISHING = "publishing to "
CUTS_OFF = "the broker ends the connection each time that this is sent; see its limits and its ACL"
FLOODED = (
    "so many messages came with QoS 0 that the broker may have dropped others; connecting anew, for it then sends "
    "those of QoS 1 again"
)


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
        self._wake = Wake()
        self._connack_due = 0.0
        self._tries = Tries(link, emit)
        self._receiving = Receiving(emit, behind)
        self._log = LastWord()
        self._told_short = ""
        self._subscriptions = Subscriptions(link.subscriptions, emit)
        self._stopping = threading.Event()
        self._stop_by = float("inf")
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._renewal = None if link.tls is None else opening.make_renewal(link.tls)
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
        self._wake.ring()

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
        self._wake.ring()
        # Not longer for one that still connects: a broker that has not taken us in is owed no goodbye.
        self._thread.join(timeout_s + TICK_S)
        if self._thread.is_alive():
            return False
        self._wake.close()
        return True

    def _put(self, item: Delivery | Subscription) -> None:
        self._orders.append(item)
        self._wake.ring()

    # MQTT thread ----------------------------------------------------------------------------------------

    def _make_client(self) -> Client:
        client = opening.make_client(self._link, self._renewal, self._receiving.on_bare)
        client.enable_logger(self._log.logger)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._receiving.on_message
        client.on_publish = lambda _client, _userdata, mid, reason, _properties: self._sending.acknowledged(
            mid, reason
        )
        client.on_subscribe = lambda _client, _userdata, mid, reasons, _properties: (
            self._subscriptions.subscribed(mid, reasons)
        )
        client.on_unsubscribe = lambda _client, _userdata, mid, _reasons, _properties: (
            self._subscriptions.unsubscribed(mid)
        )
        return client

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
        self._tries.begin()
        self.beat = time.monotonic()
        self._connack_due = self.beat + CONNACK_TIMEOUT_S
        reason = opening.connect(self._client, self._link, self._renewal)
        if reason:
            self._tries.failed(reason)
        return not reason

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
                self._tries.failed(link_advice.UNANSWERED)
                self._client.disconnect()
                return

    def _overdue(self) -> str:
        """Why this connection is to end: something is owed on it that never comes; empty while nothing is."""
        patience_s = ACK_KEEPALIVES * self._link.keepalive_s
        if self._sending.oldest_s > patience_s:
            return UNACKNOWLEDGED
        return FLOODED if self._receiving.flooded_s > patience_s else ""

    def _turn(self, sock: Any) -> MQTTErrorCode:  # noqa: ANN401 - a socket, of TLS or not
        """Wait until there is something to do, and do it."""
        client = self._client
        pending = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
        # Not select(2), which knows no file beyond the 1024th: clients over HTTP may have taken all before.
        either = select.poll()
        either.register(self._wake, select.POLLIN)
        try:
            either.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            ready = dict(either.poll(0 if pending else 1000 * TICK_S))
            events = ready.get(sock.fileno(), 0)
        except (OSError, ValueError):
            ready, events = {}, select.POLLERR  # the socket was closed under us: let paho find out
        if self._wake.fileno() in ready:
            self._wake.hush()
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        if pending or events & ~select.POLLOUT:
            code = client.loop_read()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS and events & select.POLLOUT:
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
            elif self.connected:
                self._receiving.acknowledge(self._client, order)
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
            readable, _, _ = select.select([self._wake], [], [], min(left, TICK_S))
            if readable:
                self._wake.hush()
                self._drop_offline()

    def _lost(self, reason: str) -> None:
        if self.connected:
            self.connected = False
            self._tries.lost(reason, self._unanswered())
            culprit = self._tries.culprit or ""
            if culprit.startswith(PUBLISHING) and self._sending.give_up(
                culprit.removeprefix(PUBLISHING), CUTS_OFF
            ):
                self._tries.relieved()
        elif not self._stopping.is_set():
            self._tries.closed(reason)

    def _unanswered(self) -> list[str]:
        subscribed = [f"subscribing to {topic}" for topic in self._subscriptions.unanswered]
        return subscribed + [f"{PUBLISHING}{topic}" for topic in dict.fromkeys(self._sending.unanswered)]

    # paho's callbacks, in the MQTT thread -----------------------------------------------------------------

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
        self._sending.connected(properties, singly=self._tries.wary)
        self._receiving.connected()
        self._tries.succeeded()
        self.connected = True
        self._subscriptions.connected(client, properties)
        self._emit(Connected(flags.session_present, quiet=self._tries.doubtful))
        short = link_advice.on_session(properties, self._link.session_expiry_s)
        if short and short != self._told_short:
            log.warning("session_shortened", reason=short)
        self._told_short = short

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: PahoProperties | None,
    ) -> None:
        if not self._stopping.is_set():
            self._lost(self._log.take(flags, reason))
        self.connected = False
