"""A TCP proxy between a node and its broker that cuts, swallows, or slows what passes. One thread a direction.

Swallowing keeps both sockets open and acknowledged by the kernel, which is what a network that went away looks like
to a program: nothing comes, nothing fails.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Literal

CHUNK_BYTES = 65_536
TICK_S = 0.05

Mode = Literal["pass", "refuse", "swallow", "hold_up"]


class Proxy:
    """Listens on a free loopback port and passes everything to `port`.

    Modes: `pass`; `refuse` cuts all connections and takes none; `swallow` moves nothing in either direction;
    `hold_up` moves nothing from the node to the broker.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TICK_S)
        self.port = int(self._listener.getsockname()[1])
        self._mode: Mode = "pass"
        self._open = True
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()
        self.bytes_per_s: float | None = None

    def set(self, mode: Mode) -> None:
        """Change what happens to connections, the present ones and those to come."""
        self._mode = mode
        if mode == "refuse":
            self._cut()

    def close(self) -> None:
        """Cut everything and end the threads."""
        self._open = False
        self._threads[0].join(5)
        self._cut()
        self._listener.close()

    def _cut(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was faster

    def _listen(self) -> None:
        while self._open:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._mode == "refuse":
                near.close()
                continue
            try:
                far = socket.create_connection(self._target, timeout=2)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._sockets += [near, far]
            for source, sink, outward in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._move, args=(source, sink, outward), daemon=True).start()

    def _move(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:  # noqa: FBT001 - a thread's
        try:
            while True:
                self._wait(outward=outward)
                data = source.recv(CHUNK_BYTES if self.bytes_per_s is None else 1024)
                if not data:
                    break
                self._wait(outward=outward)
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                sink.sendall(data)
        except OSError:
            pass  # cut, by us or by one of them
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other direction was faster
        source.close()

    def _wait(self, *, outward: bool) -> None:
        while self._open and (self._mode == "swallow" or (self._mode == "hold_up" and outward)):
            time.sleep(TICK_S)
