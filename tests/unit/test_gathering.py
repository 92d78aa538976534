"""What waits leaves together: over TLS in one record, of which Mosquitto reads all packets in one turn."""

from __future__ import annotations

import queue
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st

from edged.adapters.mqtt import Link, Mqtt, Tls
from edged.adapters.mqtt.client import DISCONNECT, RECORD_BYTES, join
from edged.adapters.mqtt.window import Window
from edged.core.link import Connected, Delivery, LinkEvent, Outgoing
from edged.mqtt5 import MOST

PUBLISH = 0x30
CONNACK = bytes([0x20, 3, 0, 0, 0])
PACKET = st.tuples(
    st.sampled_from([PUBLISH, PUBLISH | 2, 0x40, 0xC0, DISCONNECT]),
    st.one_of(st.binary(min_size=2, max_size=40), st.integers(2, 40_000).map(bytes)),
)


@given(st.lists(PACKET, max_size=12), st.integers(0, 50))
def test_joining_changes_no_byte(packets: list[tuple[int, bytes]], written: int) -> None:
    """All bytes stay, in order, but those that were written; a DISCONNECT stays the packet that it is."""
    line: deque[dict[str, Any]] = deque(
        {
            "command": command,
            "mid": 0,
            "qos": 0,
            "pos": min(written, len(packet) - 1) if first else 0,
            "to_process": len(packet) - (min(written, len(packet) - 1) if first else 0),
            "packet": bytearray(packet),
            "info": None,
        }
        for first, (command, packet) in zip([True] + [False] * 12, packets, strict=False)
    )
    before = b"".join(packet["packet"][packet["pos"] :] for packet in line)
    goodbyes = [packet for packet in line if packet["command"] == DISCONNECT]
    join(line)  # type: ignore[arg-type] # paho's own type of them exists for checkers only
    left = [packet["packet"][packet["pos"] :] for packet in line]
    assert b"".join(left) == before
    assert [len(packet) for packet in left] == [packet["to_process"] for packet in line]
    assert [packet for packet in line if packet["command"] == DISCONNECT] == goodbyes
    for one, other in zip(line, list(line)[1:], strict=False):
        alone = DISCONNECT in {one["command"], other["command"]}
        assert alone or one["to_process"] + other["to_process"] > RECORD_BYTES


def test_a_window_that_gathers() -> None:
    """Full at its limit, it opens when half is acknowledged; one that does not gather opens at once."""
    window, plain = Window(gathers=True), Window()
    for mid in range(MOST):
        assert not window.full
        window.sent(mid, None)
        plain.sent(mid, None)
    plain.acknowledged(0)
    assert (plain.full, plain.gathering) == (False, False)
    for mid in range(MOST // 2):
        assert (window.full, window.gathering) == (True, True)
        window.acknowledged(mid)
    assert (window.full, window.gathering) == (False, False)


@contextmanager
def over_tls(server: socket.socket, authority: Authority) -> Iterator[ssl.SSLSocket]:
    """A client that was taken in."""
    pair = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    line, _ = server.accept()
    with context.wrap_socket(line, server_side=True) as secured:
        secured.settimeout(10)
        assert secured.recv(RECORD_BYTES)[0] == 0x10  # CONNECT
        secured.sendall(CONNACK)
        yield secured


def packets(record: bytes) -> list[tuple[int, int]]:
    """First byte and packet identifier of the short packets in a record: PUBLISH to `t`, or PUBACK."""
    found = []
    while record:
        head, length = record[0], record[1]
        at = 5 if head & 0xF0 == PUBLISH else 2
        found.append((head & 0xF0, int.from_bytes(record[at : at + 2])))
        record = record[2 + length :]
    return found


def test_one_record(tmp_path: Path) -> None:
    """Once the window is full, messages and acknowledgements wait for half of it, and are one record then."""
    told: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    authority = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        tls = Tls(authority.pem)
        link = Link("localhost", server.getsockname()[1], "n", 60, 60, 9, 9999, "will", b"", (), tls=tls)
        mqtt = Mqtt(link, told.put)
        mqtt.start()
        with over_tls(server, authority) as line:
            assert isinstance(told.get(timeout=10), Connected)
            for number in range(MOST + 5):
                mqtt.publish(Outgoing("t", b"x", qos=1, token=number))
            came: list[tuple[int, int]] = []
            while len(came) < MOST:
                came += packets(line.recv(RECORD_BYTES))
            for mid in (70, 71):
                mqtt.acknowledge(Delivery(mid, 1, connection=1))
            for _, mid in came[: MOST // 2 - 1]:
                line.sendall(b"\x40\x02" + mid.to_bytes(2))
            line.settimeout(0.3)
            try:
                early = line.recv(RECORD_BYTES)
            except TimeoutError:
                early = b""
            assert early == b""
            line.settimeout(10)
            line.sendall(b"\x40\x02" + came[MOST // 2][1].to_bytes(2))
            record = packets(line.recv(RECORD_BYTES))
            assert record[:2] == [(0x40, 70), (0x40, 71)]
            assert [kind for kind, _ in record[2:]] == [PUBLISH] * 5
        mqtt.stop(0.1)
