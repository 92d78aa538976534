"""A broker that says, byte for byte, what a test wants it to say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT = 1, 3, 8, 10, 14
CONNACK = bytes([0x20, 3, 0, 0, 0])
GRANTED = 1


@contextmanager
def fake(connack: bytes, answer: Callable[[int, bytes], bytes | None]) -> Iterator[int]:
    """A broker that answers each packet, by its type and what follows its length, with bytes; None: it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        thread = threading.Thread(target=serve, args=(server, connack, answer), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(30)
        assert not thread.is_alive()


def serve(server: socket.socket, connack: bytes, answer: Callable[[int, bytes], bytes | None]) -> None:
    """One connection after the other, until DISCONNECT."""
    while True:
        with server.accept()[0] as line, line.makefile("rb") as packets:
            while head := packets.read(1):
                length, shift = 0, 0
                while (byte := packets.read(1)[0]) & 0x80:
                    length, shift = length | (byte & 0x7F) << shift, shift + 7
                body = packets.read(length | byte << shift)
                kind = head[0] >> 4
                if kind == DISCONNECT:
                    return
                words = connack if kind == CONNECT else answer(kind, body)
                if words is None:
                    break
                line.sendall(words)


def suback(body: bytes, code: int) -> bytes:
    """The word on a SUBSCRIBE of one topic."""
    return b"\x90\x04" + body[:2] + bytes([0, code])


def unsuback(body: bytes) -> bytes:
    """The word on an UNSUBSCRIBE of one topic, which there was."""
    return b"\xb0\x04" + body[:2] + b"\0\0"


def puback(body: bytes) -> bytes:
    """The word on a PUBLISH of QoS 1."""
    at = 2 + int.from_bytes(body[:2])
    return b"\x40\x02" + body[at : at + 2]
