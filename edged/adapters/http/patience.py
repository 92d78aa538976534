"""How many connections are held, and for how long: uvicorn's protocol with limits that it does not have.

Runs on the loop of the HTTP thread. A connection is closed when it sends no request, and cut off when it reads
nothing of what it was sent: both could otherwise be done for ever, by anybody who reaches the port. And each is a
file: with all files taken, sensors cannot be read nor the broker be reached again.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
import weakref
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .routes import no_place

HEAD_BYTES_MAX = 16 * 1024
HEAD_S = 15.0
"""A connection must have sent a request's head by then, also between two requests, and before it shaken hands."""
READ_S = 30.0
"""So long what was sent may wait without the client taking any of it."""


class Door(socket.socket):
    """The listening socket: holds no more connections open than `most`, whatever they are about.

    Of one that has not shaken hands nobody above knows yet: uvicorn hears of it afterwards.
    """

    def __init__(self, family: int, kind: int, proto: int, most: int) -> None:
        super().__init__(family, kind, proto)
        self._most = most
        self._held: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next one; what is one too many is closed without a word.

        Raises:
            ConnectionAbortedError: it was; asyncio comes back for the next.
        """
        taken, address = super().accept()
        if sum(one.fileno() >= 0 for one in self._held) >= self._most:
            taken.close()
            raise ConnectionAbortedError
        self._held.add(taken)
        return taken, address


class Loop(asyncio.SelectorEventLoop):
    """A loop that waits for a TLS handshake no longer than for a request; uvicorn does not ask for that."""

    async def create_server(self, *args: Any, **given: Any) -> asyncio.Server:  # noqa: ANN401
        """Listen, with an end to each handshake."""
        if given.get("ssl") is not None:
            given["ssl_handshake_timeout"] = HEAD_S
        return await super().create_server(*args, **given)


class Connection(H11Protocol):
    """One connection, on its way to a place or in one.

    Attributes:
        placed: False for one that found none.
    """

    placed = True
    _due: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find a place, or be told that there is none; what says nothing is watched."""
        super().connection_made(transport)
        most = self.limit_concurrency
        if most is not None:
            # uvicorn counts the connection itself, and while one is too many turns away all that ask; here who
            # found a place keeps it, and only the others are told 503.
            self.limit_concurrency = None
            self.placed = sum(getattr(one, "placed", False) for one in self.connections) <= most
            if not self.placed:
                self.app = no_place
        # Whatever the kernel has not taken is waited for, also what a connection that is being closed still owes.
        transport.set_write_buffer_limits(high=1, low=0)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on; a head ends the wait for it, and what comes behind a request begins the wait for the next."""
        super().data_received(data)
        if not self._idle():
            self._stop_watching()  # from the answer's end on uvicorn waits, until more comes
        elif self._due is None:
            self._watch()

    def handle_events(self) -> None:
        """Read what has come, but for empty lines before a request (RFC 9112, 2.2).

        Programs of a few lines end a body with one; to h11 it is a request that cannot be read.
        """
        if self.conn.their_state is h11.IDLE:
            come, _ = self.conn.trailing_data
            if come.startswith((b"\r", b"\n")):
                self.conn = h11.Connection(h11.SERVER, HEAD_BYTES_MAX)
                if rest := come.lstrip(b"\r\n"):
                    self.conn.receive_data(rest)
        super().handle_events()

    def _should_upgrade(self) -> bool:
        """Never: who would rather speak HTTP/2, as Java's client says at first, is answered in what he speaks.

        uvicorn would write two warnings of it, one on libraries for WebSockets.
        """
        return False

    def pause_writing(self) -> None:
        """The kernel takes no more: wait for the client to read."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """All was taken."""
        self._stop_waiting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self._stop_waiting()
        self._stop_watching()

    # without a request ----------------------------------------------------------------------------------

    def _idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _watch(self) -> None:
        self._due = self.loop.call_later(HEAD_S, self._look)

    def _look(self) -> None:
        self._due = None
        if self._idle():
            self.transport.close()

    def _stop_watching(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    # without reading ------------------------------------------------------------------------------------

    def _wait_for_reader(self) -> None:
        self._unread = self.loop.call_later(READ_S, self._look_at_reader, self._untaken())

    def _look_at_reader(self, before: tuple[int, int]) -> None:
        if self._untaken() != before:
            self._wait_for_reader()
        else:
            self.transport.abort()

    def _untaken(self) -> tuple[int, int]:
        """Bytes here and in the kernel: while both stay as they are, the client takes none.

        The kernel has megabytes, and asks for more only when a third of them has gone: that alone can take minutes.
        """
        there = fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size(), int.from_bytes(there, sys.byteorder)

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
