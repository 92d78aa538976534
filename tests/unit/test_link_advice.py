"""What the log tells a person to change when the broker does not take a node in."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from fake_broker import fake

from edged.adapters.mqtt.link import words
from edged.adapters.mqtt.probe import Asked, probe
from edged.client import failures
from edged.core.link_advice import on_certificate, on_closing, on_handshake, on_refusal


@pytest.mark.parametrize(
    ("verdict", "advice"),
    [
        ("certificate has expired", "renew it at the broker"),
        ("certificate is not yet valid", "set this board's clock"),
        ("self-signed certificate in certificate chain", "mqtt.tls.ca"),
        ("unable to get local issuer certificate", "mqtt.tls.ca"),
        ("Hostname mismatch, certificate is not valid for 'x'.", "mqtt.host"),
        ("IP address mismatch, certificate is not valid for '192.0.2.1'.", "mqtt.host"),
        ("certificate revoked", "give the broker a new one"),
        ("something that OpenSSL says in ten years", "mqtt.tls.ca"),
    ],
)
def test_certificates(verdict: str, advice: str) -> None:
    """OpenSSL's verdict is repeated, and followed by what helps."""
    told = on_certificate(verdict)
    assert verdict.rstrip(".") in told
    assert advice in told.partition(verdict.rstrip("."))[2]


@pytest.mark.parametrize(
    ("verdict", "advice"),
    [
        ("certificate has expired", "renew it at the broker, or set this machine's clock"),
        ("certificate is not yet valid", "set this machine's clock"),
        ("self-signed certificate in certificate chain", "give the CA that signed it"),
        ("Hostname mismatch, certificate is not valid for 'x'.", "give the host by a name that stands in it"),
        ("something that OpenSSL says in ten years", "give the CA that signed it"),
    ],
)
def test_certificates_of_a_clients_broker(verdict: str, advice: str) -> None:
    """A device's program is told what helps there, and nothing beside."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = verdict
    assert failures.words(error).endswith(verdict.rstrip("."))
    assert failures.mend(error).startswith(advice)


def test_an_alert_is_better_than_a_guess() -> None:
    """Where the broker's alert came through, its meaning is told; else what may be the matter."""
    alert = "[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] sslv3 alert certificate revoked"
    assert "revoked" in on_closing(alert, tls=True, certificate=True)
    assert "its log" not in on_closing(alert, tls=True, certificate=True)
    assert "may not accept mqtt.tls.cert" in on_closing("EOF", tls=True, certificate=True)
    assert "may want a certificate" in on_closing("EOF", tls=True, certificate=False)
    assert "set mqtt.tls.ca" in on_closing("EOF", tls=False, certificate=False)


def test_a_broker_that_knows_no_mqtt_5_and_does_not_say_so() -> None:
    """RabbitMQ 3.10 (Debian 12) closes the connection, amqtt says nothing: that was told of neither."""
    for tls in (False, True):
        assert "MQTT 5" in on_closing("EOF", tls=tls, certificate=False)
    with fake(b"", lambda _kind, _body: b"") as port:
        answer = probe(Asked("127.0.0.1", port, "n", 60), log_in=True, timeout_s=0.3)
    assert answer.kind == "network"
    assert "; see its log: nodes need a broker of MQTT 5" in answer.reason


def test_handshakes() -> None:
    """No TLS at the port and a version that the broker does not speak are different mistakes."""
    assert "mqtt.port" in on_handshake("SSLEOFError: EOF occurred in violation of protocol")
    assert "see its log" in on_handshake("[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version")


def test_refusals() -> None:
    """Accounts lead to the settings of the account; another reason stands for itself."""
    assert "set mqtt.username" in on_refusal("Not authorized", None)
    assert "'n1'" in on_refusal("Bad user name or password", "n1")
    assert on_refusal("Server busy", "n1") == "the broker refused us: Server busy"


def test_a_broker_without_mqtt_5_is_told_as_such() -> None:
    """What the board needs is said where the broker says what it does not have."""
    assert "need a broker of MQTT 5" in on_refusal("Unsupported protocol version", None)
    assert "allow them (Mosquitto: retain_available)" in on_refusal("Retain not supported", "n1")
    assert "nodes need QoS 1" in on_refusal("QoS not supported", "n1")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "correct mqtt.host"),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "see to this board's network",
        ),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "see to its network"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "switch it on"),
        (TimeoutError("timed out"), "see whether that machine is on"),
    ],
)
def test_a_network_that_is_not_up_is_told_as_such(error: OSError, advice: str) -> None:
    """A board that starts before its router hears nothing of wrong settings, nor what Python calls the error."""
    told = words(error, tls=False)
    assert advice in told.partition("; ")[2]
    assert "rror" not in told
    assert "rrno" not in failures.words(error)
    right = error.errno not in {socket.EAI_AGAIN, errno.ENETUNREACH}
    assert ("correct" in failures.mend(error)) is right
