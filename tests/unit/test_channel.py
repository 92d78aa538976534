"""Frames over a real pair of sockets: whole again however they were cut, and nonsense called by its name."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.engine.channel import FRAME_BYTES_MAX, Channel
from edged.engine.messages import Cancel, Log, Order, Piece, Refused, Report, Shutdown, Started
from edged.errors import EngineError

PIECES = st.builds(
    Piece, st.integers(0, 2**63 - 1), st.sampled_from(["text", "reasoning"]), st.text(max_size=40)
)
REPORTS = st.lists(
    PIECES
    | st.builds(Started, st.integers(0, 9))
    | st.builds(Refused, st.integers(0, 9), st.just("busy"), st.text(max_size=9), st.just({"a": 1}))
    | st.builds(
        Log, st.just("info"), st.text(max_size=9), st.dictionaries(st.text(max_size=3), st.integers(0, 9))
    ),
    max_size=8,
)


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, Channel[Any, Any]]]:
    """A bare socket, and a channel for reports at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        yield ours, Channel(theirs, cast("Any", Report))


def frames(*bodies: bytes) -> bytes:
    """Bodies with their lengths in front."""
    return b"".join(struct.pack("<I", len(body)) + body for body in bodies)


@given(REPORTS, st.lists(st.integers(0, 400), max_size=12))
def test_any_split(reports: list[Any], cuts: list[int]) -> None:
    """Messages arrive whole and in order, however the stream is cut."""
    data = frames(*map(msgspec.msgpack.encode, reports))
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    with pair() as (ours, channel):
        got: list[Any] = []
        received = channel.receive()
        sent = 0
        for bound in bounds:
            ours.sendall(data[sent:bound])
            sent = bound
            # What is complete by now can be had now: nothing waits for the next message.
            complete = sum(
                len(frames(*map(msgspec.msgpack.encode, reports[: n + 1]))) <= bound
                for n in range(len(reports))
            )
            while len(got) < complete:
                got.append(next(received))
        ours.close()
        assert list(received) == []
    assert got == reports


def test_both_ways() -> None:
    """Orders go one way and reports the other, several in one call too."""
    ours, theirs = socket.socketpair()
    daemon: Channel[Any, Any] = Channel(ours, cast("Any", Report))
    engine: Channel[Any, Any] = Channel(theirs, cast("Any", Order))
    daemon.send(Cancel(1), Shutdown())
    engine.send(Started(1), Piece(1, "text", "ä🙂\0"))
    orders, reports = engine.receive(), daemon.receive()
    assert [next(orders), next(orders)] == [Cancel(1), Shutdown()]
    assert [next(reports), next(reports)] == [Started(1), Piece(1, "text", "ä🙂\0")]
    daemon.close()
    assert list(orders) == []
    engine.close()
    assert list(reports) == []


def test_large_frame() -> None:
    """A message far above the size of one read arrives whole."""
    ours, theirs = socket.socketpair()
    sender: Channel[Any, Any] = Channel(ours, cast("Any", Order))
    receiver: Channel[Any, Any] = Channel(theirs, cast("Any", Report))
    message = Piece(1, "text", "x" * 1_000_000)
    writer = threading.Thread(target=sender.send, args=(message, Started(2)))
    writer.start()
    received = receiver.receive()
    assert [next(received), next(received)] == [message, Started(2)]
    writer.join()
    sender.close()
    receiver.close()


def test_senders_do_not_mix() -> None:
    """Frames of several threads stay whole, and each thread's stay in order."""
    ours, theirs = socket.socketpair()
    sender: Channel[Any, Any] = Channel(ours, cast("Any", Order))
    receiver: Channel[Any, Any] = Channel(theirs, cast("Any", Report))

    def talk(number: int) -> None:
        for count in range(50):
            sender.send(Piece(number, "text", f"{count} " * 200))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    received = receiver.receive()
    got = [next(received) for _ in range(200)]
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [piece.text for piece in got if piece.number == number] == [f"{n} " * 200 for n in range(50)]
    sender.close()
    receiver.close()


def test_oversize() -> None:
    """A length above the bound is refused before its body comes."""
    with pair() as (ours, channel):
        ours.sendall(struct.pack("<I", FRAME_BYTES_MAX + 1))
        with pytest.raises(EngineError, match=f"{FRAME_BYTES_MAX + 1} bytes"):
            next(channel.receive())


GARBAGE = [
    b"",
    b"\xc1",
    b"\xff" * 9,
    msgspec.msgpack.encode({"t": "piece"}),
    msgspec.msgpack.encode(["piece", 1, "text", 5]),
    msgspec.msgpack.encode(["piece", 1, "song", "a"]),
    msgspec.msgpack.encode(["nothing", 1]),
    msgspec.msgpack.encode(["started", 1])[:-1],
    b"\x94\xa5piece\x01\xa4text\xa1\xff",
    b"\x94\xa3log\xa4info\xa1a\x81\xa1a" + b"\x91" * 100_000,
]


@given(st.binary(max_size=60))
@example(b"\x92")
def test_any_garbage(body: bytes) -> None:
    """Any body is a report or an EngineError."""
    with pair() as (ours, channel):
        ours.sendall(frames(body))
        try:
            next(channel.receive())
        except EngineError:
            return


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(body: bytes) -> None:
    """A frame that is no report is an EngineError, after the good ones before it."""
    with pair() as (ours, channel):
        writer = threading.Thread(
            target=ours.sendall, args=(frames(msgspec.msgpack.encode(Started(1)), body),)
        )
        writer.start()
        received = channel.receive()
        assert next(received) == Started(1)
        with pytest.raises(EngineError, match="cannot be read"):
            next(received)
        writer.join()


def test_cut_off() -> None:
    """An end in the middle of a frame is an end."""
    with pair() as (ours, channel):
        ours.sendall(frames(msgspec.msgpack.encode(Started(1)))[:-1])
        ours.close()
        assert list(channel.receive()) == []


def test_other_end_gone() -> None:
    """Sending to a process that is gone raises OSError, and closing twice is harmless."""
    ours, theirs = socket.socketpair()
    channel: Channel[Any, Any] = Channel(ours, cast("Any", Report))
    theirs.close()
    with pytest.raises(OSError, match="pipe"):
        channel.send(Shutdown())
    channel.close()
    channel.close()
