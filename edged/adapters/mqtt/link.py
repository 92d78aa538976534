"""Where the broker is, what is demanded of it, and what a failure to reach it means. No paho here."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from edged import small_file
from edged.core import link_advice
from edged.errors import SettingsError

UNREACHABLE = {
    errno.ENETUNREACH: link_advice.NO_NETWORK,
    errno.EHOSTUNREACH: link_advice.NOT_FOUND,
}
"""What the kernel says of a way that is not there; a service that starts at boot is often before its network."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for a connection over TLS 1.2 or newer; `cert` and `key` for mutual TLS."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """How to reach the broker.

    Attributes:
        client_id: fixed, so that the broker keeps this node's session.
        receive_max: unacknowledged messages that the broker may have under way to us.
        packet_bytes_max: the broker drops larger packets; its own limit should be below this one.
        will_topic, will: retained last will, QoS 1.
    """

    host: str
    port: int
    client_id: str
    keepalive_s: int
    session_expiry_s: int
    receive_max: int
    packet_bytes_max: int
    will_topic: str
    will: bytes
    subscriptions: tuple[str, ...]
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None


def tls_context(tls: Tls) -> ssl.SSLContext:
    """What is demanded of the broker: TLS 1.2 or newer, a certificate of our authority, in the host's name."""
    files = {"mqtt.tls.ca": tls.ca, "mqtt.tls.cert": tls.cert, "mqtt.tls.key": tls.key}
    given = {key: path for key, path in files.items() if path is not None}
    looked_at: list[str] = []
    try:
        for key, path in given.items():
            looked_at = [key]
            small_file.check(path, small_file.PEM_BYTES_MAX)
        looked_at = ["mqtt.tls.ca"]
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert is not None:
            looked_at = list(given)[1:]
            # The empty passphrase: OpenSSL would ask for one on the terminal.
            context.load_cert_chain(str(tls.cert), None if tls.key is None else str(tls.key), lambda: "")
    except OSError as error:  # SSLError too
        named = " and ".join(str(given[key]) for key in looked_at)
        reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else str(error)
        raise SettingsError(
            f"{' and '.join(looked_at)}: {named}: {reason}; accepted: PEM files that belong together, the key "
            "without a passphrase"
        ) from error
    return context


def words(error: Exception, *, tls: bool) -> str:
    """What went wrong with a try to connect, and what to change."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return link_advice.on_certificate(error.verify_message)
    if isinstance(error, socket.gaierror):
        waits = error.errno == socket.EAI_AGAIN
        return link_advice.NO_NAME_SERVER if waits else link_advice.UNKNOWN_NAME
    if isinstance(error, ConnectionRefusedError):
        return link_advice.NOT_LISTENING
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return UNREACHABLE[error.errno]
    text = f"{type(error).__name__}: {error}"
    cut = isinstance(error, ConnectionResetError) or "handshake" in text
    if isinstance(error, ssl.SSLError) or (tls and cut):
        return link_advice.on_handshake(text)
    return link_advice.SILENT if isinstance(error, TimeoutError) else text
