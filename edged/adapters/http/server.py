"""The thread of the HTTP face: binds, serves with uvicorn on a loop of its own, ends when told.

An address that cannot be had just now is waited for: devices that ask over MQTT have nothing to do with it. If the
thread ends unasked, or its socket no longer listens, the node is told and ends the process.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from edged import small_file
from edged.core.link import ThreadDied
from edged.errors import NotNowError, SettingsError
from edged.renewal import Renewal

from .asking import Node
from .patience import HEAD_BYTES_MAX, HEAD_S, Connection, Door, Loop
from .routes import Routes

IP_FREEBIND = 15
"""ip(7): bind to an address that the machine does not have yet, as after a boot without network."""
BACKLOG = 64
"""Connections accepted at a time, each a file; one that finds it full tries again a second later."""
OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Of which asyncio says that it passes: it accepts again a second later."""

PASSES = frozenset({errno.EADDRINUSE, socket.EAI_AGAIN})
"""What may be over some time: another program has the port, no name server can be reached after a boot."""
RETRY_S = 5.0
PEM = "PEM files that belong together, the key without a passphrase"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen; `cert` and `key` for TLS."""

    host: str
    port: int
    connections: int
    cert: Path | None = None
    key: Path | None = None


def bind(listening: Listening) -> socket.socket:
    """The listening socket.

    Raises:
        NotNowError: the address cannot be had just now.
        SettingsError: it cannot be had at all.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            listening.host, listening.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = Door(family, kind, proto, 2 * listening.connections)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        failure = NotNowError if error.errno in PASSES else SettingsError
        key = "http.host" if isinstance(error, socket.gaierror) else "http.port"
        raise failure(
            f"{key}: {listening.host}:{listening.port}: {error.strerror}; accepted: an address of this machine "
            "and a free port"
        ) from error
    return sock


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """What is shown to clients: TLS 1.2 or newer, this certificate.

    Raises:
        SettingsError: the files are not what they should be.
    """
    try:
        for name, path in (("cert", cert), ("key", key)):
            looked_at, named = f"http.tls.{name}", str(path)
            small_file.check(path, small_file.PEM_BYTES_MAX)
        looked_at, named = "http.tls", f"{cert} and {key}"
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The empty passphrase: OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, lambda: "")
    except OSError as error:  # SSLError too
        reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else str(error)
        raise SettingsError(f"{looked_at}: {named}: {reason}; accepted: {PEM}") from error
    return context


def _renewed_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """The same, with what these files hold when somebody connects."""
    renewal = Renewal(cert, key, read=lambda: tls_context(cert, key))

    def show(sock: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        renewal.follow()
        sock.context = renewal.context

    first = renewal.context
    first.sni_callback = show  # called for each handshake, also of a client that names no host
    return first


class Server:
    """Serves until told to end.

    Args:
        emit: the node's inbox, for a thread that died.

    Raises:
        SettingsError: the files for TLS are not what they should be, or the address cannot be had at all.
    """

    def __init__(
        self,
        listening: Listening,
        node: Node,
        key: str | None,
        emit: Callable[[ThreadDied], None],
    ) -> None:
        self._listening = listening
        self._emit = emit
        self._routes = Routes(node, key)
        config = uvicorn.Config(
            self._routes.application(),
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # a warning is what anybody who reaches the port can cause, a line each time
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=listening.connections,
            backlog=max(BACKLOG, listening.connections),
            timeout_keep_alive=int(HEAD_S),
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
        config.load()
        if listening.cert is not None and listening.key is not None:
            config.ssl = _renewed_tls(listening.cert, listening.key)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._stopping = threading.Event()
        self._broke: str | None = None
        self._sock = self._take(told=False)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Take no more questions; those that run may end."""
        self._routes.closing = True

    def stop(self, timeout_s: float) -> bool:
        """End all connections and the thread; True if it ended in time."""
        self.close()
        self._stopping.set()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        reason = "it returned"
        try:
            while (sock := self._sock) is None:
                if self._stopping.wait(RETRY_S):
                    return
                self._sock = self._take(told=True)
            with asyncio.Runner(loop_factory=Loop) as runner:
                runner.get_loop().set_exception_handler(self._complain)
                runner.run(self._server.serve(sockets=[sock]))
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            if not self._stopping.is_set():
                self._emit(ThreadDied("http", self._broke or reason))

    def _take(self, *, told: bool) -> socket.socket | None:
        """The listening socket; None while the address cannot be had, of which the log has one line."""
        try:
            sock = bind(self._listening)
        except NotNowError as error:
            if not told:
                log.warning("http_waits", reason=str(error))
            return None
        if told:
            log.info("http_listens", host=self._listening.host, port=self._listening.port)
        return sock

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody caught. A socket that cannot accept would be tried for ever, thousands of times a second."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in OUT_OF and "socket" in context:
            log.warning("http_out_of_files", reason=error.strerror)
        elif self._broke is not None:
            pass  # already ending
        elif self._sock is not None and self._sock.fileno() >= 0 and not _listens(self._sock):
            self._broke = f"its socket no longer listens: {error}"
            self._server.should_exit = True
        else:
            loop.default_exception_handler(context)
