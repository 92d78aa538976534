"""Frames over a stream socket: four bytes of length, then msgpack. Used by both processes.

Sending may come from several threads and is serialised; receiving belongs to one thread.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from edged.errors import DECODE_ERRORS, EngineError

_LENGTH = struct.Struct("<I")
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""A longer frame is a defect: a question is bounded by `limits.payload_bytes`, an answer by the context."""

_Out = TypeVar("_Out", bound=msgspec.Struct)
_In = TypeVar("_In", bound=msgspec.Struct)


class Channel(Generic[_Out, _In]):
    """One end of the pair of sockets between daemon and engine."""

    def __init__(self, sock: socket.socket, incoming: type[_In]) -> None:
        self._socket = sock
        self._sending = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(incoming)

    def send(self, *messages: _Out) -> None:
        """Send messages in one system call where the socket takes them.

        Raises:
            OSError: the other process is gone.
        """
        frames = bytearray()
        for message in messages:
            body = self._encoder.encode(message)
            frames += _LENGTH.pack(len(body))
            frames += body
        with self._sending:
            self._socket.sendall(frames)

    def receive(self) -> Iterator[_In]:
        """Yield messages until the other end closes.

        Raises:
            EngineError: the bytes are no frames.
        """
        buffer = bytearray()
        while True:
            try:
                chunk = self._socket.recv(65_536)
            except OSError:
                return
            if not chunk:
                return
            buffer += chunk
            start = 0
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > FRAME_BYTES_MAX:
                    raise EngineError(f"a frame of {length} bytes came from the other process")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                try:
                    yield self._decoder.decode(memoryview(buffer)[start + _LENGTH.size : end])
                except DECODE_ERRORS as error:
                    raise EngineError(f"a frame cannot be read: {error}") from error
                start = end
            del buffer[:start]

    def close(self) -> None:
        """Close this end; the other end's `receive` then ends."""
        with self._sending:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other end was faster
            self._socket.close()
