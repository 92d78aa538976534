"""Control messages: the orders, and anything else as a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core import reply
from edged.core.control import PAYLOAD_BYTES_MAX, Control, Status, parse
from edged.core.topics import is_job_id
from edged.errors import Refusal


@pytest.mark.parametrize("op", ["cancel", "resume", "end_reasoning", "status"])
def test_orders(op: str) -> None:
    """Each order of the contract is read."""
    assert parse(json.dumps({"op": op, "id": "q:1"}).encode()) == Control(op, "q:1")  # type: ignore[arg-type]


def test_resume_from() -> None:
    """A resume says which reply is the first that the device misses."""
    assert parse(b'{"op":"resume","id":"q1","from_seq":7}').from_seq == 7


def test_forget() -> None:
    """A session is forgotten by its name."""
    assert parse(b'{"op":"forget","id":"f","session":"line-3"}') == Control("forget", "f", session="line-3")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"cancel",
        b"{}",
        b"[]",
        b'{"op":"cancel"}',
        b'{"id":"q1"}',
        b'{"op":"stop","id":"q1"}',
        b'{"op":"cancel","id":5}',
        b'{"op":"cancel","id":""}',
        b'{"op":"cancel","id":"a b"}',
        b'{"op":"cancel","id":"a\\u0000"}',
        b'{"op":"cancel","id":"\\ud800\\ud800"}',
        b'{"op":"resume","id":"q1","from_seq":"1"}',
        b'{"op":"resume","id":"q1","from_seq":1e999}',
        b'{"op":"forget","id":"q1"}',
        b'{"op":"forget","id":"q1","session":""}',
        b'{"op":"forget","id":"q1","session":"a b"}',
        b'{"op":"forget","session":"s"}',
        b'{"op":"cancel","id":"q1"}}',
        b'\xff{"op":"cancel","id":"q1"}',
        b'{"op":"cancel","id":"\xff"}',
        b'{"x":' + b"[" * 4000,
    ],
)
def test_bad_requests(payload: bytes) -> None:
    """Anything else is a bad request in one sentence."""
    with pytest.raises(Refusal) as caught:
        parse(payload)
    assert caught.value.code == "bad_request"
    assert "\n" not in caught.value.message


def test_too_large() -> None:
    """A control message is short."""
    with pytest.raises(Refusal) as caught:
        parse(b'{"op":"cancel","id":"q1"}'.ljust(PAYLOAD_BYTES_MAX + 1))
    assert caught.value.code == "too_large"


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(
    st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(["op", "id", "from_seq", "session", "x"]),
        ANY | st.sampled_from(["cancel", "forget"]) | st.lists(ANY, max_size=2),
    )
    | st.fixed_dictionaries(
        {
            "op": st.sampled_from(["cancel", "resume", "forget", "stop"]),
            "id": st.sampled_from(["q:1", "a\n"]),
        },
        optional={"from_seq": st.integers(), "session": st.sampled_from(["s", "", "a b"])},
    )
)
def test_anything(value: Any) -> None:
    """Any bytes are an order or a refusal."""
    payload = value if isinstance(value, bytes) else json.dumps(value, default=repr).encode()
    try:
        control = parse(payload)
    except Refusal:
        return
    assert is_job_id(control.id)


def test_status_on_the_wire() -> None:
    """A status says where a question stands; one that no reply was sent for has no seq."""
    fresh = json.loads(reply.encode(Status(id="q1", state="waiting", node="n1")))
    assert fresh == {"type": "status", "id": "q1", "state": "waiting", "node": "n1"}
    later = json.loads(reply.encode(Status(id="q1", seq=0, state="running", node="n1", attempt=1)))
    assert (later["seq"], later["attempt"]) == (0, 1)
