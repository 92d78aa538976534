"""Terminal messages on their way to the broker."""

from __future__ import annotations

import structlog
from desk_rig import TOPICS, Journal, Line

from edged.core.link import INSIDE, JSON, Delivered, Delivery, Outgoing, Undelivered
from edged.core.records import Publish
from edged.node.outbox import UNHEARD_MAX, WINDOW, Outbox


def test_order_after_a_broken_connection() -> None:
    """What comes back goes out in the order that it had: a display shows the newest text, not an older one."""
    line = Line()
    outbox = Outbox(line, Journal())
    texts = [f"answer {number}".encode() for number in range(WINDOW + 2)]
    outbox.owe(
        tuple((number, Publish("edged/v1/client/c1/text", text, {})) for number, text in enumerate(texts))
    )
    assert len(line.published) == WINDOW
    for _ in range(2):  # some had to wait behind them, and it breaks once more
        sent, line.published, line.connected = line.published, [], False
        for message in sent:
            outbox.undelivered_one(Undelivered(message.token))
        line.connected = True
        outbox.connected(session_present=True)
        assert [message.payload for message in line.published] == texts[:WINDOW]
    outbox.delivered_one(Delivered(line.published[0].token))  # which makes room
    assert [(message.payload, message.qos) for message in line.published[WINDOW:]] == [(texts[WINDOW], 1)]


def test_refusals_of_questions_that_come_without_a_bound() -> None:
    """Of QoS 0, over MQTT: more than the broker takes are not sent, and room is made as it takes them."""
    line, refusal = Line(), Outgoing(TOPICS.answer("c", "q"), b"{}", qos=1)
    outbox = Outbox(line, Journal())
    loose, held = Delivery(0, 0, 1), Delivery(1, 1, 1)
    assert all(outbox.refuse(refusal, loose) for _ in range(UNHEARD_MAX))
    assert not outbox.refuse(refusal, loose)
    assert outbox.refuse(refusal, held)
    assert outbox.refuse(refusal, INSIDE)
    first, second = line.published[0].token, line.published[1].token
    outbox.delivered_one(Delivered(first))
    outbox.undelivered_one(Undelivered(second))
    assert [outbox.refuse(refusal, loose) for _ in range(2)] == [True, False]
    outbox.connected(session_present=True)  # what came back is sent again, and counts as before
    assert not outbox.refuse(refusal, loose)


def test_an_answer_that_is_damaged_and_too_large() -> None:
    """Nothing can stand in its place: it is over, for the next start would meet it again."""
    line, journal = Line(), Journal()
    outbox = Outbox(line, journal)
    damaged = b'{"id":"1","type":"d\xffne","seq":2}'
    outbox.owe(((8, Publish("edged/v1/client/c1/answer/1", damaged, {"content_type": JSON})),))
    outbox.delivered_one(Delivered(line.published[0].token, "packet too large"))
    assert (len(line.published), len(outbox)) == (1, 0)


def test_an_answer_that_the_broker_forbids() -> None:
    """After a change of its ACL the log says where the node may not write, and what lets it."""
    line = Line()
    outbox = Outbox(line, Journal())
    outbox.owe(((8, Publish("elsewhere/1", b"Paris", {})),))
    with structlog.testing.capture_logs() as lines:
        outbox.delivered_one(Delivered(line.published[0].token, "Not authorized"))
    told = next(each for each in lines if each["event"] == "reply_refused_by_broker")
    assert told["topic"] == "elsewhere/1"
    assert "let this node's account write there in the broker's ACL" in told["reason"]
