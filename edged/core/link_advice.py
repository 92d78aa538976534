"""What a person can do about a broker that cannot be reached or does not take us in: words for the log. Pure.

Reasons come as OpenSSL, the kernel and the broker give them; each ends in the setting to change. Settings are read
once, so a change needs a restart.
"""

from __future__ import annotations

WRONG_CA = "put the certificate of the authority that signed the broker's into mqtt.tls.ca and restart edged"
MQTT_5 = "nodes need a broker of MQTT 5, such as Mosquitto from 1.6 on; devices may speak 3.1.1"
UNANSWERED = f"the broker does not answer CONNECT; see its log: {MQTT_5}"
NEEDS: dict[str, str] = {
    "Unsupported protocol version": MQTT_5,
    "Retain not supported": "nodes need retained messages: allow them (Mosquitto: retain_available)",
    "QoS not supported": "nodes need QoS 1: allow it (Mosquitto: max_qos)",
}
"""What a node cannot do without, by the refusal of a broker that has it not."""
UNKNOWN_NAME = "the host name cannot be resolved; correct mqtt.host"
NO_NAME_SERVER = (
    "no name server answers, as while the router starts; see to this board's network and /etc/resolv.conf, or set "
    "mqtt.host to an address"
)
NO_NETWORK = "this board has no way there; see to its network (ip route)"
NOT_FOUND = "that machine is not to be found on the network; switch it on, or correct mqtt.host"
SILENT = (
    "it does not answer; see whether that machine is on and lets this board through to mqtt.port, or correct "
    "mqtt.host and mqtt.port"
)
NOT_LISTENING = "nothing listens there; start the broker or correct mqtt.host and mqtt.port"
OWN_CERTIFICATE = "put a valid one into mqtt.tls.cert and mqtt.tls.key and restart edged"

BROKER_CERTIFICATE: tuple[tuple[str, str], ...] = (
    ("has expired", "renew it at the broker, or set this board's clock if that is wrong"),
    ("not yet valid", "set this board's clock if that is wrong"),
    ("mismatch", "set mqtt.host to a name in the certificate, or have one made for this name"),
    ("revoked", "give the broker a new one"),
    ("issuer", WRONG_CA),
    ("self-signed", WRONG_CA),
    ("self signed", WRONG_CA),
    ("signature", WRONG_CA),
)
"""Parts of OpenSSL's words on a certificate (X509_verify_cert_error_string) and what helps."""

ALERTS: tuple[tuple[str, str], ...] = (
    (
        "CERTIFICATE_REQUIRED",
        "the broker wants a certificate of this board; set mqtt.tls.cert and mqtt.tls.key",
    ),
    ("CERTIFICATE_REVOKED", f"the broker has this board's certificate as revoked; {OWN_CERTIFICATE}"),
    ("CERTIFICATE_EXPIRED", f"this board's certificate has expired; {OWN_CERTIFICATE}"),
    ("UNKNOWN_CA", f"the broker does not know who signed this board's certificate; {OWN_CERTIFICATE}"),
    ("ALERT", "the broker refuses TLS with us; see its log, and mqtt.tls"),
)
"""Parts of the names of TLS alerts (RFC 8446, 6.2) as Python shows them; the first that fits counts."""


def on_certificate(verdict: str) -> str:
    """The broker's certificate was not accepted; `verdict` is OpenSSL's."""
    told = verdict.rstrip(".")
    return f"the broker's certificate is not accepted: {told}; {_find(BROKER_CERTIFICATE, told) or WRONG_CA}"


def on_handshake(reason: str) -> str:
    """TLS did not come about, for another reason than the broker's certificate."""
    return _find(ALERTS, reason) or (
        "there is no TLS at this port; set mqtt.port to the broker's port for TLS (8883 is usual), "
        f"or remove [mqtt.tls] if it has none ({reason})"
    )


def on_closing(reason: str, *, tls: bool, certificate: bool) -> str:
    """The connection ended before the broker answered CONNECT.

    Args:
        reason: of the connection's end.
        tls: whether it was one over TLS.
        certificate: whether we have a certificate of our own.
    """
    if not tls:
        return (
            "the broker closed the connection without an answer; if this is its port for TLS, set mqtt.tls.ca; "
            f"else see its log: {MQTT_5} ({reason})"
        )
    # With TLS 1.3 the broker looks at our certificate when the handshake is over for us; its alert may get lost.
    doubt = (
        "it may not accept mqtt.tls.cert (revoked, expired, of another authority)"
        if certificate
        else "it may want a certificate (set mqtt.tls.cert and mqtt.tls.key)"
    )
    return _find(ALERTS, reason) or (
        f"the broker closed the connection without an answer; {doubt}, or have no MQTT 5, which nodes need; "
        f"its log says more ({reason})"
    )


def on_refusal(reason: str, username: str | None) -> str:
    """The broker answered CONNECT with a refusal; `reason` is MQTT's word for it."""
    told = f"the broker refused us: {reason}"
    if reason in NEEDS:
        return f"{told}; {NEEDS[reason]}"
    if reason not in {"Not authorized", "Bad user name or password"}:
        return told
    if username is None:
        return f"{told}; set mqtt.username and mqtt.password_file"
    return (
        f"{told}; give the broker the account {username!r} with the password in mqtt.password_file, or correct "
        "mqtt.username and that file and restart edged"
    )


def on_reply(reason: str) -> str:
    """The broker did not take an answer; `reason` is MQTT's word for it, or ours."""
    if reason != "Not authorized":
        return reason
    return f"{reason}; let this node's account write there in the broker's ACL (configs/mosquitto/edged.acl)"


def on_session(connack: object, asked_s: int) -> str:
    """The broker took us in, but may keep our session for less than was asked (MQTT 5, 3.2.2.3.2); else empty.

    Args:
        connack: properties of its answer, None where it has none.
        asked_s: for how long it was to be kept.
    """
    kept_s: int = getattr(connack, "SessionExpiryInterval", asked_s)
    if kept_s >= asked_s:
        return ""
    return (
        f"the broker keeps what is asked while the node is away for {kept_s} s only; raise its limit for the "
        f"expiry of sessions to {asked_s} s, or lower mqtt.session_expiry_s"
    )


def _find(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((advice for part, advice in table if part in text), None)
