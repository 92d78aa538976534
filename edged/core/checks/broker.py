"""The way to the broker: whether it is there, takes our credentials, and for how long its certificates hold."""

from __future__ import annotations

from dataclasses import dataclass

from edged.core.checks.verdict import Verdict, failure, ok, unknown, warning

DAY_S = 86_400.0
SOON_S = 30 * DAY_S


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's file, and its dates in seconds since 1970; a reason where it cannot be read."""

    name: str
    begins_s: float = 0.0
    ends_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BrokerAnswer:
    """What a broker said to our credentials.

    Attributes:
        reached: it can be connected to, over TLS where that is set.
        logged_in: it took the credentials; False too where nobody tried, for a node may be using them.
        reason: why it cannot be reached, or what it said instead.
        kind: `network`, `tls`, `credentials`, or "" where all is well.
        round_trip_ms: of the connection.
        server: its certificate.
        short: what it keeps of a session, where that is less than was asked.
    """

    reached: bool
    logged_in: bool = False
    reason: str = ""
    kind: str = ""
    round_trip_ms: float | None = None
    server: Certificate | None = None
    short: str = ""


def broker(
    address: str, answer: BrokerAnswer, host: str, *, wanted: bool = True, missed: bool = False
) -> Verdict:
    """Whether it is there and takes our credentials.

    Args:
        address: where it should be.
        answer: what it said to us.
        host: the part of the address that can be pinged.
        wanted: the node does not do without one.
        missed: a daemon runs, and says that it has no connection to it.
    """
    if not wanted and answer.kind == "network":
        return unknown("broker", f"none at {address}, and none in the settings: asked over HTTP alone")
    if answer.reached and not answer.kind:
        took = f" in {answer.round_trip_ms:.1f} ms" if answer.round_trip_ms is not None else ""
        if answer.logged_in and missed:
            words = f"{address}: takes our credentials{took}, but the running daemon is not connected"
            mend = "sudo systemctl restart edged (passwords and certificates are read at its start)"
            return failure("broker", words, mend)
        if answer.short:
            words, _, mend = answer.short.partition("; ")
            return warning("broker", f"{address}: {words}", mend)
        if answer.logged_in:
            return ok("broker", f"{address}: takes our credentials, answers{took}")
        return ok("broker", f"{address}: can be reached{took}; the running daemon uses the credentials")
    mends = {
        "network": f"start the broker (systemctl start mosquitto), or correct mqtt.host and mqtt.port; ping {host}",
        "tls": "compare mqtt.tls.ca with the broker's certificate, and the clocks",
        "credentials": "mosquitto_passwd on the broker; mqtt.username and mqtt.password_file here",
    }
    words, _, mend = answer.reason.partition("; ")  # what the link knows of this one fault goes first
    return failure("broker", f"{address}: {words}", mend or mends.get(answer.kind))


def plain(host: str, *, local: bool) -> Verdict:
    """A broker that is spoken to without TLS; `local`: it is on this machine."""
    if local:
        return ok("TLS", "none, and none needed: the broker is on this machine")
    words = f"none: questions and answers travel to {host} for all to read"
    return warning("TLS", words, "[mqtt.tls] ca = ... here, and a listener as in configs/mosquitto there")


def certificate(one: Certificate, now_s: float) -> Verdict:
    """A certificate's dates."""
    name = "certificate"
    if one.reason:
        return failure(name, f"{one.name}: {one.reason}", f"openssl x509 -in {one.name} -noout -dates")
    if now_s < one.begins_s:
        return failure(name, f"{one.name}: not valid yet; this board's clock may be wrong", "timedatectl")
    left_s = one.ends_s - now_s
    if left_s < 0:
        return failure(name, f"{one.name}: expired {-left_s / DAY_S:.0f} days ago", "renew it")
    words = f"{one.name}: {left_s / DAY_S:.0f} days left"
    return warning(name, words, "renew it") if left_s < SOON_S else ok(name, words)
