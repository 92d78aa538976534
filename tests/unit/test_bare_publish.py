"""A PUBLISH whose properties cannot be read: what is left of it. How a node takes one is in daemon/test_hostile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.adapters.mqtt.client import Bare, bare


def variable(number: int) -> bytes:
    """A variable byte integer (MQTT 5, 1.5.5)."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


@given(st.binary(max_size=80), st.binary(max_size=200), st.binary(max_size=50), st.integers(1, 0xFFFF))
def test_all_but_the_properties(topic: bytes, properties: bytes, payload: bytes, mid: int) -> None:
    """They are stepped over, whatever they hold."""
    rest = variable(len(properties)) + properties + payload
    head = len(topic).to_bytes(2) + topic
    length = len(properties)
    assert bare(0x33, head + mid.to_bytes(2) + rest) == Bare(topic, payload, mid, 1, True, length)
    assert bare(0x30, head + rest) == Bare(topic, payload, 0, 0, False, length)


@given(st.integers(0, 255), st.binary(max_size=40))
def test_any_bytes(head: int, packet: bytes) -> None:
    """They are a message or none."""
    message = bare(head, packet)
    assert message is None or message.payload == packet[len(packet) - len(message.payload) :]


def test_a_length_without_end() -> None:
    """A variable byte integer has four bytes at most: with more of them it is no message."""
    assert bare(0x30, b"\0\1t" + b"\x80" * 3 + b"\0") == Bare(b"t", b"", 0, 0, False, 0)
    assert bare(0x30, b"\0\1t" + b"\x80" * 4 + b"\0") is None
