"""How a connection is opened: paho's client as we want it, and what is demanded of the broker at CONNECT.

Belongs to the MQTT thread, but for `make_client`, which comes before it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from edged.renewal import Renewal

from .client import Bare, Client
from .link import Link, Tls, tls_context, words

TIMEOUT_S = 5.0
"""For TCP, for each address that the broker's name has."""


def make_renewal(tls: Tls) -> Renewal:
    """What is demanded of the broker and shown to it, as the files say it now.

    Raises:
        SettingsError: a file is missing or is not what it should be.
    """
    return Renewal(tls.ca, tls.cert, tls.key, read=lambda: tls_context(tls))


def make_client(link: Link, renewal: Renewal | None, on_bare: Callable[[Bare, str], None]) -> Client:
    """A client that is not connected yet, without callbacks but this one; `renewal` for TLS."""
    client = Client(
        on_bare,
        CallbackAPIVersion.VERSION2,
        client_id=link.client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
    )
    client.connect_timeout = TIMEOUT_S
    client.will_set(link.will_topic, link.will, qos=1, retain=True)
    if link.username is not None:
        client.username_pw_set(link.username, link.password)
    if renewal is not None:
        client.tls_set_context(renewal.context)
    client.on_socket_open = lambda _client, _userdata, sock: _tune(sock, link.keepalive_s)
    return client


def connect(client: Client, link: Link, renewal: Renewal | None) -> str:
    """Reach the broker and send CONNECT; why that came to nothing, with what to change, else empty."""
    if renewal is not None and renewal.follow():
        client.renew_tls(renewal.context)
    properties = PahoProperties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = link.session_expiry_s
    properties.ReceiveMaximum = link.receive_max
    properties.MaximumPacketSize = link.packet_bytes_max
    try:
        code = client.connect(
            link.host,
            link.port,
            # paho pings after this much silence and gives up after as much again: in all 1.5 of what is wanted
            keepalive=max(1, 3 * link.keepalive_s // 4),
            # False and a session expiry: only both together keep the broker's queue for us
            clean_start=False,
            properties=properties,
        )
    except (OSError, ValueError) as error:
        return f"{link.host}:{link.port}: {words(error, tls=link.tls is not None)}"
    if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
        return f"{link.host}:{link.port}: {paho.error_string(code)}"
    return ""


def _tune(sock: Any, keepalive_s: int) -> None:  # noqa: ANN401 - a socket, of TLS or not
    # A half-open connection shows as sent bytes that nobody acknowledges. paho gives up after two of its
    # intervals; with this the kernel tells us half an interval after the ping (tcp(7)).
    timeout_ms = keepalive_s * 500
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, AttributeError):
        pass  # a transport without these options works as paho alone would
