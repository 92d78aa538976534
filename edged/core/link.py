"""What the node and its broker connection tell each other, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edged.core.question import Properties

JSON = "application/json"
"""Content type of what a node sends, but for the answers in plain text."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way out; with a `token` the node is told what became of it."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    token: object = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the broker waits to see acknowledged.

    Attributes:
        mid: packet identifier; it means something only on the connection it came by.
        qos: 0, 1 or 2.
        connection: which connection that was, counted from 1.
    """

    mid: int
    qos: int
    connection: int


INSIDE = Delivery(mid=0, qos=0, connection=0)
"""Delivery of what came from this process itself, over HTTP: no broker waits for an acknowledgement."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic filter to listen to from now on, or to give up."""

    topic: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Arrived:
    """A PUBLISH from the broker, or what stands for one: see `INSIDE`."""

    topic: str
    payload: bytes
    properties: Properties
    retained: bool
    delivery: Delivery


STEADY_S = 10.0
"""A connection that lasted so long is steady."""
SHORT_LIVES = 3
"""So many connections in a row that were never steady: two programs of one name push each other off the broker for
ever (MQTT 5, 3.1.4), and Mosquitto 2.0 does not say why."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took us in; subscriptions are under way.

    Attributes:
        session_present: it had kept our session.
        quiet: so many before it were short that it is worth a line only once it is steady.
    """

    session_present: bool
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; the adapter tries again by itself. `quiet`: as so often before, not worth a line."""

    reason: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """A try to connect failed; told once for each new reason, not once a try."""

    reason: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker hands us what comes to this filter; `refused` says why it does not."""

    topic: str
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The broker hands nothing more to this filter; what it had handed over before may still arrive."""

    topic: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The broker acknowledged the message that was published with `token`; `refused` says why it did not."""

    token: object
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The message with `token` was not handed over: there is no connection. Publish it again later."""

    token: object


@dataclass(frozen=True, slots=True)
class ThreadDied:
    """A thread of ours ended though nobody told it to: the process cannot go on."""

    name: str
    reason: str


LinkEvent = (
    Arrived
    | Connected
    | Disconnected
    | ConnectFailed
    | Subscribed
    | Unsubscribed
    | Delivered
    | Undelivered
    | ThreadDied
)
"""Everything that a connection tells the node."""
