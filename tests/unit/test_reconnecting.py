"""How long the connection waits between two tries, and what is said of a broker that cuts it again and again."""

from __future__ import annotations

import queue

import pytest
from fake_broker import CONNACK, GRANTED, PUBLISH, SUBSCRIBE, fake, suback

from edged.adapters.mqtt import Link, Mqtt
from edged.adapters.mqtt.tries import CUT_RETRY_MAX_S, CUTS, RETRY_MAX_S, longest_wait_s
from edged.core.link import Connected, Disconnected, LinkEvent, Outgoing, Subscribed


@pytest.mark.parametrize(
    ("failures", "wait_s"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, RETRY_MAX_S), (1024, RETRY_MAX_S), (10**6, RETRY_MAX_S)],
)
def test_longest_wait(failures: int, wait_s: float) -> None:
    """It doubles up to its bound, and stays there for as long as the broker is away: an hour, a year."""
    assert longest_wait_s(failures) == wait_s


@pytest.mark.parametrize(
    ("cuts", "wait_s"),
    [
        (CUTS, RETRY_MAX_S),
        (CUTS + 1, 8.0),
        (CUTS + 2, 16.0),
        (CUTS + 9, CUT_RETRY_MAX_S),
        (10**6, CUT_RETRY_MAX_S),
    ],
)
def test_longest_wait_for_a_broker_that_cuts(cuts: int, wait_s: float) -> None:
    """Somebody has to change an ACL first: a node that came back every four seconds would fill both logs."""
    assert longest_wait_s(99, cuts) == wait_s


@pytest.mark.parametrize(
    ("forbidden", "told"),
    [(SUBSCRIBE, "subscribing to ask/+"), (PUBLISH, "publishing to info")],
)
def test_a_broker_that_cuts_who_may_not_use_a_topic(forbidden: int, told: str) -> None:
    """There is no reason code; the log names what it has not answered."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == forbidden:
            return None
        return suback(body, GRANTED) if kind == SUBSCRIBE else b""

    with fake(CONNACK, answer) as port:
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 60, 9, 9999, "will", b"", ("ask/+",)), events.put)
        mqtt.start()
        reason = ""
        while "soon after connecting" not in reason:
            match events.get(timeout=60):
                case Connected():
                    mqtt.publish(Outgoing("info", b"{}", qos=1, retain=True))
                case Disconnected(reason):
                    pass
        forbidden = 0  # from now on all is allowed, so that it ends in order
        while not isinstance(events.get(timeout=60), Subscribed):
            pass
        assert mqtt.stop(10)
    assert told in reason
