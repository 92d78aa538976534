"""A broker that does not take a message says so in PUBACK, also with reasons that MQTT 5 does not have there."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import pytest
from broker import Mosquitto
from structlog.testing import capture_logs

from edged.adapters.mqtt import Link, Mqtt
from edged.client import Client, ClientError
from edged.core.link import Connected, Delivered, Disconnected, LinkEvent, Outgoing
from edged.mqtt5 import reason

LIMIT = 400
LONG = b"x" * (LIMIT + 1)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A Mosquitto that answers what is too large with 149, "Packet too large", and lets nobody write to `no/`."""
    folder = tmp_path_factory.mktemp("strict")
    acl = folder / "acl"
    acl.write_text("topic readwrite yes/#\ntopic readwrite edged/#\n")
    broker = Mosquitto(folder, f"message_size_limit {LIMIT}\nacl_file {acl}\n")
    try:
        yield broker.start()
    finally:
        broker.kill()


def test_the_connection_stays_and_the_log_tells(strict: Mosquitto) -> None:
    """A terminal message that is refused comes back; what a node says of itself is named once in the log."""
    told: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(strict.host, strict.port, "node", 60, 60, 9, 9999, "yes/will", b"", ())
    mqtt = Mqtt(link, told.put)
    with capture_logs() as lines:
        mqtt.start()
        assert isinstance(told.get(timeout=30), Connected)
        for number in range(2):
            mqtt.publish(Outgoing("yes/health", b"x" * 600_000, retain=True))
            mqtt.publish(Outgoing("yes/info", LONG, qos=1, retain=True))
            mqtt.publish(Outgoing("no/discovery", b"x", qos=1, retain=True))
            mqtt.publish(Outgoing("yes/answer", LONG, qos=1, token=("long", number)))
            mqtt.publish(Outgoing("yes/answer", b"x", qos=1, token=("short", number)))
        heard = [told.get(timeout=30) for _ in range(4)]
        assert mqtt.stop(10)
    refused = "Packet too large"
    assert [event for event in heard if isinstance(event, Disconnected)] == []
    assert heard == [
        Delivered((kind, number), refused=refused if kind == "long" else None)
        for number in range(2)
        for kind in ("long", "short")
    ]
    said = [(line["topic"], line["reason"]) for line in lines if line["event"] == "message_refused"]
    assert said == [
        ("yes/health", "larger than the broker's limit of 524288 bytes a packet; raise that"),
        ("yes/info", "the broker refuses it: Packet too large; see its ACL and its limits"),
        ("no/discovery", "the broker refuses it: Not authorized; see its ACL and its limits"),
    ]


def test_a_question_that_is_too_large(strict: Mosquitto) -> None:
    """The asker is told at once; before, its connection ended again and again until the time was over."""
    with Client(port=strict.port, node="n1", name="c1") as client:
        began = time.monotonic()
        with pytest.raises(ClientError, match="refused the question: Packet too large"):
            client.ask("word " * LIMIT, timeout_s=300).text()
        assert time.monotonic() - began < 150
        assert client.alive()


@pytest.mark.parametrize(
    ("code", "words", "failure"),
    [
        (0, "Success", False),
        (16, "No matching subscribers", False),
        (0x42, "Success", False),
        (0x87, "Not authorized", True),
        (149, "Packet too large", True),
        (0xFE, "Unspecified error", True),
    ],
)
def test_reasons(code: int, words: str, failure: bool) -> None:  # noqa: FBT001 - a table
    """Every byte is one, and a failure where MQTT says so."""
    assert (str(reason(code)), reason(code).is_failure) == (words, failure)
