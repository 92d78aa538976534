"""Terminal messages on their way to the broker."""

from __future__ import annotations

from desk_rig import Journal, Line

from edged.core.link import Undelivered
from edged.core.records import Publish
from edged.node.outbox import Outbox


def test_order_after_a_broken_connection() -> None:
    """What comes back goes out in the order that it had: a display shows the newest text, not an older one."""
    line = Line()
    outbox = Outbox(line, Journal())
    texts = [f"answer {number}".encode() for number in range(4)]
    outbox.owe(
        tuple((number, Publish("edged/v1/client/c1/text", text, {})) for number, text in enumerate(texts))
    )
    sent, line.published, line.connected = line.published, [], False
    for message in sent:
        outbox.undelivered_one(Undelivered(message.token))
    line.connected = True
    outbox.connected(session_present=True)
    assert [message.payload for message in line.published] == [message.payload for message in sent] == texts
