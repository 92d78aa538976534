"""Asks a broker whether it can be reached and takes our credentials, and leaves everything there as it was.

A node's account is its session: brokers that take the user name for the client id (the shipped configuration does)
close a running node's connection when its account logs in again, and a clean start would delete what waits for
it. So nobody logs in while a node may be connected; else we log in as the node does, keep its session, acknowledge
nothing, subscribe to nothing, and let a session that was not there before end with us. Never raises for what the
broker or the network does. Caller's thread, and one of paho's.
"""

from __future__ import annotations

import queue
import socket
import ssl
import time
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged import mqtt5
from edged.core import certificate, link_advice
from edged.core.checks.broker import BrokerAnswer, Certificate
from edged.errors import SettingsError

from .link import Tls, tls_context, words
from .translation import LastWord

TIMEOUT_S = 5.0
CREDENTIAL_CODES = frozenset({134, 135, 140})
"""MQTT 5, 3.2.2.2: bad user name or password, not authorised, bad authentication method."""

NEEDED = {"MaximumQoS": "QoS not supported", "RetainAvailable": "Retain not supported"}
"""Properties of CONNACK that say 0 where a broker has not what nodes need, and its refusal of one for that."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which broker, as whom; `client_id` and `session_expiry_s` as the node has them."""

    host: str
    port: int
    client_id: str
    session_expiry_s: int
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None


def probe(asked: Asked, *, log_in: bool, timeout_s: float = TIMEOUT_S) -> BrokerAnswer:
    """Connect, and where `log_in` says so, log in."""
    try:
        context = None if asked.tls is None else tls_context(asked.tls)
        begun = time.monotonic()
        server = _reach(asked, context, timeout_s)
        reached_ms = 1000 * (time.monotonic() - begun)
        if not log_in:
            return BrokerAnswer(reached=True, round_trip_ms=reached_ms, server=server)
        return _log_in(asked, context, server, timeout_s)
    except SettingsError as error:
        return BrokerAnswer(reached=False, reason=str(error), kind="tls")
    except OSError as error:
        kind = "tls" if isinstance(error, ssl.SSLError) else "network"
        return BrokerAnswer(reached=False, reason=words(error, tls=context is not None), kind=kind)


def _reach(asked: Asked, context: ssl.SSLContext | None, timeout_s: float) -> Certificate | None:
    """Open a connection and close it again; the broker's certificate, over TLS."""
    with socket.create_connection((asked.host, asked.port), timeout_s) as line:
        if context is None:
            return None
        with context.wrap_socket(line, server_hostname=asked.host) as wrapped:
            der = wrapped.getpeercert(binary_form=True) or b""
    name = "the broker's"
    try:
        return Certificate(name, *certificate.validity(der))
    except ValueError as error:
        return Certificate(name, reason=str(error))


def _log_in(
    asked: Asked, context: ssl.SSLContext | None, server: Certificate | None, timeout_s: float
) -> BrokerAnswer:
    heard: queue.SimpleQueue[tuple[str, str, bool, str]] = queue.SimpleQueue()
    last, certified = LastWord(), asked.tls is not None and asked.tls.cert is not None
    client = mqtt5.Client(
        CallbackAPIVersion.VERSION2,
        client_id=asked.client_id,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.enable_logger(last.logger)
    client.on_connect = lambda _c, _u, flags, code, properties: heard.put(
        (
            *_refusal(code, properties),
            bool(flags.session_present),
            link_advice.on_session(properties, asked.session_expiry_s),
        )
    )
    client.on_disconnect = lambda _c, _u, flags, code, _p: heard.put(
        (
            link_advice.on_closing(last.take(flags, code), tls=context is not None, certificate=certified),
            "network" if context is None else "tls",
            False,
            "",
        )
    )
    if asked.username is not None:
        client.username_pw_set(asked.username, asked.password)
    if context is not None:
        client.tls_set_context(context)
    client.connect_timeout = timeout_s
    wanted = Properties(PacketTypes.CONNECT)
    wanted.SessionExpiryInterval = asked.session_expiry_s
    wanted.ReceiveMaximum = 1
    begun = time.monotonic()
    client.connect(asked.host, asked.port, keepalive=30, clean_start=False, properties=wanted)
    client.loop_start()
    known = True  # until we hear otherwise, a session may be the node's
    try:
        reason, kind, known, short = heard.get(timeout=timeout_s)
    except queue.Empty:
        return BrokerAnswer(reached=True, reason=link_advice.UNANSWERED, kind="network", server=server)
    finally:
        _leave(client, keep=known)
    if reason:
        return BrokerAnswer(reached=True, reason=reason, kind=kind, server=server)
    trip_ms = 1000 * (time.monotonic() - begun)
    return BrokerAnswer(reached=True, logged_in=True, round_trip_ms=trip_ms, server=server, short=short)


def _refusal(code: ReasonCode, properties: Properties | None) -> tuple[str, str]:
    """Why this broker does not take a node in, and of which kind that is; empty where it does.

    A node has a last will of QoS 1 that is retained, for which alone some refuse it; we have none.
    """
    if code.value in CREDENTIAL_CODES:
        return f"it refuses us: {code}", "credentials"
    lacks = next((need for name, need in NEEDED.items() if getattr(properties, name, 1) == 0), None)
    if code.is_failure or lacks is not None:
        return link_advice.on_refusal(lacks or str(code), None), "network"
    return "", ""


def _leave(client: paho.Client, *, keep: bool) -> None:
    """Go; a session that was there before stays for as long as its node wanted, ours ends."""
    goodbye = Properties(PacketTypes.DISCONNECT)
    if not keep:
        goodbye.SessionExpiryInterval = 0
    client.disconnect(properties=goodbye)
    client.loop_stop()
