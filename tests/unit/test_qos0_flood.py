"""What of a flood of QoS 0 is dropped, and told."""

from __future__ import annotations

from scripted import Clock
from structlog.testing import capture_logs

from edged.adapters.mqtt.flood import BEHIND_MAX, MANY, MANY_S, TELL_S, Flood
from edged.core.link import Arrived, Delivery
from edged.core.question import Properties


def message(qos: int) -> Arrived:
    """One of it."""
    return Arrived("edged/v1/node/n1/ask/c", b"x", Properties(), False, Delivery(qos, qos, 1))


def test_flood() -> None:
    """QoS 0 alone, while too much waits; one line a minute says how many, and names one who sends them."""
    clock, behind = Clock(), [BEHIND_MAX - 1]
    flood = Flood(lambda: behind[0], clock)
    with capture_logs() as told:
        assert not flood.drops(message(0))
        behind[0] += 1
        assert not flood.drops(message(1))
        assert all(flood.drops(message(0)) for _ in range(3))
        clock.advance(TELL_S)
        assert flood.drops(message(0))
    assert [(line["event"], line["count"]) for line in told] == [
        ("messages_dropped", 1),
        ("messages_dropped", 3),
    ]
    assert told[0]["topic"] == "edged/v1/node/n1/ask/c"


def test_since_when() -> None:
    """So many of QoS 0 in so short a time are a flood, on this connection; as many over a longer one are none."""
    clock = Clock()
    flood = Flood(lambda: 0, clock)
    for _ in range(2 * MANY):
        flood.drops(message(0))
        flood.drops(message(1))
        clock.advance(1.01 * MANY_S / MANY)
    assert flood.since_s == 0.0
    clock.advance(2 * MANY_S)
    for _ in range(MANY):
        assert flood.since_s == 0.0
        flood.drops(message(0))
    clock.advance(3.0)
    flood.drops(message(0))
    assert flood.since_s == 3.0
    flood.connected()
    assert flood.since_s == 0.0
