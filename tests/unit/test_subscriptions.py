"""What the broker's words on a filter mean where the node has changed its mind meanwhile."""

from __future__ import annotations

import queue

from fake_broker import CONNACK, GRANTED, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, fake, puback, suback, unsuback

from edged.adapters.mqtt import Link, Mqtt
from edged.core.link import Delivered, LinkEvent, Outgoing, Unsubscribed

POOL = "$share/hall/pool"


def test_the_last_word_counts() -> None:
    """Left, joined and left again: a node is out when the broker has carried out all of it, and not before."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    words: list[bytes] = []

    def answer(kind: int, body: bytes) -> bytes | None:
        """A slow broker: on the first message it has said something to all but the last, on the second to that."""
        if kind == PUBLISH:
            told = words[:-1] or words[:]
            del words[: len(told)]
            return puback(body) + b"".join(told)
        if kind in {SUBSCRIBE, UNSUBSCRIBE}:
            words.append(suback(body, GRANTED) if kind == SUBSCRIBE else unsuback(body))
        return b""

    with fake(CONNACK, answer) as port:
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 60, 9, 9999, "will", b"", ()), events.put)
        mqtt.start()
        events.get(timeout=60)
        for way in (mqtt.unsubscribe, mqtt.subscribe, mqtt.unsubscribe):
            way(POOL)
        for number in (1, 2):
            mqtt.publish(Outgoing("later", b"{}", qos=1, token=number))
        heard = [events.get(timeout=60) for _ in range(3)]
        assert mqtt.stop(10)
    assert heard == [Delivered(1), Delivered(2), Unsubscribed(POOL)]
