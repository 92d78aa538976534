"""A Unix socket for orders from this machine: one JSON line in, one JSON line out, then the end.

Whoever may open it is the operator: its folder belongs to edged, and the socket to its user and group. Runs
threads of its own; what an order means is decided in the dispatcher thread.
"""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

LINE_BYTES_MAX = 16 * 1024
READ_S = 5.0
ANSWER_S = 900.0
"""Longest wait for an answer: a large model is hashed and loaded in minutes."""
CONNECTIONS_MAX = 8
PAUSE_S = 1.0
"""Out of file descriptors or threads nobody can be taken in, and that is said at once each time."""
MODE = 0o660
NO_SOCKET = "what lies there is no socket and stays; name another place (admin.socket)"

log = structlog.get_logger()


Emit = Callable[[bytes, Callable[[bytes], None]], None]
"""Takes an order, and how to answer it with one line."""


class LocalSocket:
    """The socket.

    Args:
        path: where; its folder must exist. A socket that lies there is replaced, and nothing else.
        emit: takes each order.
    """

    def __init__(self, path: Path, emit: Emit) -> None:
        self._path = path
        self._emit = emit
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._listening: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="local", daemon=True)

    def start(self) -> None:
        """Listen; a socket that cannot be made is told in the log, for questions are answered without it."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if self._path.is_socket():  # of a daemon that was killed
                self._path.unlink()
            listening.bind(str(self._path))
            self._path.chmod(MODE)
            listening.listen(CONNECTIONS_MAX)
        except OSError as error:
            listening.close()
            reason = NO_SOCKET if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            log.warning("local_socket_failed", path=str(self._path), reason=reason)
            return
        self._listening = listening
        self._thread.start()

    def stop(self) -> None:
        """Take the socket away."""
        if self._listening is None:
            return
        listening, self._listening = self._listening, None
        listening.shutdown(socket.SHUT_RDWR)  # this ends accept(2); close(2) alone would not
        listening.close()
        with suppress(OSError):  # a file system that has become read-only keeps it
            self._path.unlink()

    def _run(self) -> None:
        while (listening := self._listening) is not None:
            self._places.acquire()
            try:
                connection, _ = listening.accept()
            except OSError as error:
                self._places.release()
                if self._listening is None:
                    return  # closed by `stop`
                log.warning("local_socket_waits", reason=error.strerror)
                time.sleep(PAUSE_S)
                continue
            while not self._begin(connection):
                time.sleep(PAUSE_S)

    def _begin(self, connection: socket.socket) -> bool:
        """Have a thread serve it; False where the system gives none now (`TasksMax`, memory)."""
        try:
            threading.Thread(target=self._serve, args=(connection,), name="local-order", daemon=True).start()
        except RuntimeError as error:
            log.warning("local_socket_waits", reason=str(error))
            return False
        return True

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(READ_S)
                payload = _line(connection)
                if payload:
                    answer: queue.SimpleQueue[bytes] = queue.SimpleQueue()
                    self._emit(payload, answer.put)
                    connection.sendall(answer.get(timeout=ANSWER_S) + b"\n")
        except (OSError, queue.Empty):
            pass  # the asker has gone away, or said nothing, or the daemon is ending
        finally:
            self._places.release()


def _line(connection: socket.socket) -> bytes:
    """The first line, without its end; what comes after LINE_BYTES_MAX is left unread."""
    data = b""
    while b"\n" not in data and len(data) <= LINE_BYTES_MAX:
        more = connection.recv(4096)
        if not more:
            break
        data += more
    return data.partition(b"\n")[0]
