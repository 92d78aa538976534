"""Orders of an operator: any bytes are one, or a refusal on one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.admin import OPS, PAYLOAD_BYTES_MAX, Order, parse
from edged.errors import Refusal

ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


def refused(payload: bytes, op: str | None = None) -> str:
    """The sentence with which an order is refused."""
    with pytest.raises(Refusal) as caught:
        parse(payload, op)
    assert caught.value.message.isprintable()
    return caught.value.message


def test_the_topic_names_it() -> None:
    """Over MQTT the object has no `op`; on the machine it has."""
    assert parse(b'{"transaction":"t"}', "drain") == Order("t", "drain")
    assert parse(b'{"transaction":"t","op":"drain"}') == Order("t", "drain")
    assert "reboot is no operation" in refused(b'{"transaction":"t"}', "reboot")


@pytest.mark.parametrize(
    ("payload", "op"),
    [
        (b"", "drain"),
        (b"{}", "drain"),
        (b'{"transaction":""}', "drain"),
        (b'{"transaction":"a\\nb"}', "drain"),
        (b'{"transaction":"t","tr\\nansaction":1}', "drain"),
        (b'{"transaction":"t","set":{"a":1}}', "drain"),
        (b'{"transaction":"t"}', "model"),
        (b'{"transaction":"t","path":"../a"}', "model"),
        (b'{"transaction":"t","path":"a","sha256":"0"}', "model"),
        (b'{"transaction":"t"}', "re\nboot"),
    ],
)
def test_refusals(payload: bytes, op: str) -> None:
    """Each in one sentence on one line, whatever the payload brings into it."""
    refused(payload, op)


def test_too_large() -> None:
    """An order is short."""
    assert str(PAYLOAD_BYTES_MAX) in refused(b" " * (PAYLOAD_BYTES_MAX + 1))


@given(
    st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(["transaction", "op", "set", "path", "sha256"]) | st.text(max_size=3),
        ANY | st.dictionaries(st.text(max_size=3), ANY | st.lists(ANY, max_size=2), max_size=3),
    )
    | st.fixed_dictionaries(
        {"transaction": st.text("t \n", max_size=3)},
        optional={
            "op": st.sampled_from([*sorted(OPS), "x"]),
            "set": st.dictionaries(st.text(max_size=3), ANY, max_size=2),
            "path": st.text("a./\n", max_size=4),
        },
    ),
    st.none() | st.sampled_from(sorted(OPS)) | st.text(max_size=3),
)
def test_anything(value: Any, op: str | None) -> None:
    """Any bytes are an order or a refusal."""
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    try:
        assert parse(payload, op).op in OPS
    except Refusal as refusal:
        sentence = refusal.message
    else:
        sentence = ""
    assert sentence.isprintable()
