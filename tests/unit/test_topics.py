"""Names and topics: what is a legal name, who asks what, and where a reply may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.topics import TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX, Topics, is_job_id, is_name

TOPICS = Topics("edged", "n1", ("plant/answers", "cell/"))
OWN = "edged/v1/client/c1/"


@pytest.mark.parametrize("text", ["a", "A-z_0.9", "x" * 64, "..."])
def test_legal_names(text: str) -> None:
    """A name has 1 to 64 of A-Z a-z 0-9 _ . -."""
    assert is_name(text)
    assert is_job_id(text)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "a+", "#", "ä", "a\n", "\0", "\uff11", "a:b"])
def test_illegal_names(text: str) -> None:
    """Everything else is no name, a trailing line feed and foreign digits included."""
    assert not is_name(text)


def test_job_ids() -> None:
    """An id may be longer than a name and hold colons."""
    assert is_job_id("a:" * 64)
    assert not is_job_id("a:" * 64 + "a")
    assert not is_job_id("")
    assert not is_job_id("a\n")


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("edged/v1/node/n1/ask/c1", ("ask", "c1", None)),
        ("edged/v1/node/n1/control/c1", ("control", "c1", None)),
        ("edged/v1/pool/hall/ask/c1", ("ask", "c1", "hall")),
        ("edged/v1/pool/lab/ask/c1", ("ask", "c1", "lab")),
        ("edged/v1/node/n1/ask/", ("ask", "", None)),
        ("edged/v1/node/n2/ask/c1", None),
        ("edged/v1/pool/other/ask/c1", ("ask", "c1", "other")),
        ("edged/v1/pool/a b/ask/c1", None),
        ("edged/v1/pool/hall/control/c1", None),
        ("edged/v1/node/n1/ask/c1/more", None),
        ("edged/v1/node/n1/ask", None),
        ("edged/v1/node/n1/status", None),
        ("edged/v2/node/n1/ask/c1", None),
        ("other/edged/v1/node/n1/ask/c1", None),
        ("edgedx/v1/node/n1/ask/c1", None),
    ],
)
def test_route(topic: str, expected: tuple[str, str, str | None] | None) -> None:
    """A topic is a question or a control message to this node or one of its pools, or nothing of ours."""
    assert TOPICS.route(topic) == expected


NEAR = st.tuples(
    st.sampled_from(["edged/v1/node/n1", "edged/v1/node/n2", "edged/v1/pool/hall", "edged/v1/pool/a b"]),
    st.sampled_from(["ask", "control", "admin", "status"]),
    st.text(max_size=8),
).map("/".join)
"""Topics that are ours or almost."""


@given(st.text(max_size=40) | NEAR | NEAR)
def test_route_takes_anything(topic: str) -> None:
    """Any topic has a route or none, and a route is the way that it was built."""
    route = TOPICS.route(topic)
    if route is not None:
        verb, client, pool = route
        built = {"ask": TOPICS.ask, "control": TOPICS.control, "admin": TOPICS.admin}[verb](client)
        assert topic == (built if pool is None else f"edged/v1/pool/{pool}/ask/{client}")


def test_subscriptions() -> None:
    """A node hears its own questions and control messages, and shares those of its pools."""
    assert TOPICS.subscriptions() == (
        "edged/v1/node/n1/ask/+",
        "edged/v1/node/n1/control/+",
    )
    assert TOPICS.pool("hall") == "$share/hall/edged/v1/pool/hall/ask/+"


def test_built_topics() -> None:
    """The topics are those of the contract, under whatever prefix."""
    topics = Topics("site/7", "n1")
    assert topics.status == "site/7/v1/node/n1/status"
    assert topics.info == "site/7/v1/node/n1/info"
    assert topics.health == "site/7/v1/node/n1/health"
    assert topics.event == "site/7/v1/node/n1/event"
    assert topics.answer("c1", "q:1") == "site/7/v1/client/c1/answer/q:1"
    assert topics.text("c1") == "site/7/v1/client/c1/text"
    assert topics.route(topics.ask("c1")) == ("ask", "c1", None)


@pytest.mark.parametrize(
    "topic",
    [
        OWN + "x",
        OWN + "answer/1",
        OWN + "a b/ä/\u20ac",
        "plant/answers/anything",
        "cell/4",
        OWN + "x" * (TOPIC_BYTES_MAX - len(OWN)),
        OWN + "/" * (TOPIC_LEVELS_MAX - 1 - OWN.count("/")),
    ],
)
def test_may_reply(topic: str) -> None:
    """A reply may go below the client's own branch or a configured prefix."""
    assert TOPICS.may_reply_to("c1", topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "x",
        "edged/v1/client/c1",
        "edged/v1/client/c2/x",
        "edged/v1/client/c10/x",
        "edged/v1/client/c1x/x",
        "edged/v1/node/n1/ask/c1",
        "/" + OWN + "x",
        "plant/answers",
        "plant/answersx/1",
        "cell4/1",
        OWN + "+",
        OWN + "#",
        OWN + "a+b",
        OWN + "\0",
        OWN + "x" * (TOPIC_BYTES_MAX - len(OWN) + 1),
        OWN + "ä" * TOPIC_BYTES_MAX,
    ],
)
def test_may_not_reply(topic: str) -> None:
    """A reply goes nowhere else, and never to a topic filter."""
    assert not TOPICS.may_reply_to("c1", topic)


@pytest.mark.parametrize(
    "tail", ["\x01", "\n", "\x7f", "\x9f", "\ufdd0", "\uffff", "\U0001ffff", "\ud800", "/" * TOPIC_LEVELS_MAX]
)
def test_topics_that_cost_the_connection(tail: str) -> None:
    """A topic for which a broker cuts the connection is none: the reply would be sent again for ever."""
    assert not TOPICS.may_reply_to("c1", OWN + tail)


@given(st.text(max_size=600))
def test_may_reply_takes_anything(tail: str) -> None:
    """Any text is judged, and what is allowed can be encoded, is short, and has no wildcard."""
    for topic in (tail, OWN + tail):
        if TOPICS.may_reply_to("c1", topic):
            assert len(topic.encode()) <= TOPIC_BYTES_MAX
            assert not set(topic) & set("#+\0")
            assert topic.startswith((OWN, "plant/answers/", "cell/"))


def test_client_is_no_pattern() -> None:
    """A client whose name holds dots has no access to names that the dots would match."""
    assert not TOPICS.may_reply_to("c.1", "edged/v1/client/cx1/a")
