"""What a try to reach the broker failed for, in words that say what to change. No paho here."""

from __future__ import annotations

import errno
import socket
import ssl

MEND = "start the broker, or correct host and port"
NO_QOS_1 = (
    "passes nothing on with QoS 1, as questions and answers are sent; allow it there (Mosquitto: max_qos)"
)
WRONG_CA = "give the CA that signed it"
CERTIFICATE = {
    "has expired": "renew it at the broker, or set this machine's clock if that is wrong",
    "not yet valid": "set this machine's clock if that is wrong",
    "mismatch": "give the host by a name that stands in it",
}
"""Parts of OpenSSL's words on a broker's certificate (X509_verify_cert_error_string) and what helps."""


def mend(error: Exception) -> str:
    """What to change, so that it does not fail again."""
    if isinstance(error, ssl.SSLCertVerificationError):
        verdict = error.verify_message
        return next((advice for part, advice in CERTIFICATE.items() if part in verdict), WRONG_CA)
    if isinstance(error, ssl.SSLError | ConnectionResetError):  # a broker without TLS resets the handshake
        return "does that port speak TLS?"
    if isinstance(error, UnicodeError):
        return "correct the host"
    if isinstance(error, socket.gaierror):
        return "see to this machine's network" if error.errno == socket.EAI_AGAIN else "correct the host"
    if isinstance(error, OSError) and error.errno == errno.ENETUNREACH:
        return "see to this machine's network"
    return MEND


def words(error: Exception) -> str:
    """What went wrong."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
        case socket.gaierror() | UnicodeError():  # the second of a dot too many
            waits = getattr(error, "errno", None) == socket.EAI_AGAIN
            return "no name server answers" if waits else "the host name cannot be resolved"
        case ConnectionRefusedError():
            return "nothing listens there"
        case TimeoutError():
            return "it does not answer"
        case ConnectionResetError():
            return "it ended the connection"
        case _:
            return getattr(error, "strerror", None) or str(error)


def on_refusal(reason: str) -> str:
    """What helps where the broker answers CONNECT with this reason."""
    if reason == "Unsupported protocol version":
        return "it has no MQTT 5, which this client speaks"
    return "see user name, password and its ACL"


def on_closing(*, tls: bool) -> str:
    """What helps where the connection ended before the broker answered CONNECT, over TLS or not."""
    if tls:  # with TLS 1.3 it looks at our certificate when the handshake is over for us
        return (
            "it may want a certificate of this program (--cert, --key), or not accept that; its log says more"
        )
    return (
        "if that is its port for TLS, give the CA that signed its certificate (--cafile), else see whether it is "
        "a broker for MQTT 5"
    )
