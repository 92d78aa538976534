"""A real Mosquitto for tests: on a free loopback port, in its own folder, to be stopped, killed, restarted.

Fixtures `broker` (one for each test) and `shared_broker` (one for the run: for tests that neither stop it nor
mind other tests' topics); loaded as a plug-in by conftest.py. The system's own mosquitto is not touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S = 30.0
STOP_S = 30.0
RUNNING = re.compile(r"mosquitto version \S+ running")
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"
"""Debian puts mosquitto into sbin, which plain users' PATH leaves out."""

CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
# What a broker must be told so that nothing it acknowledged is lost to kill -9.
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
# Below the daemon's own limit: what is above a client's limit is dropped without a word.
max_packet_size 524288
max_queued_messages 100000
max_queued_bytes 0
log_dest stderr
log_type all
connection_messages true
"""


class Mosquitto:
    """One broker process and its folder. The port stays the same over restarts.

    Args:
        folder: an existing, empty folder: configuration, store and log go there.
        extra: further lines for mosquitto.conf (an ACL, another listener).
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, extra: str = "") -> None:
        self._folder = folder
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> Self:
        """Start it and return once the port accepts connections."""
        assert self._process is None, "it runs already"
        for _attempt in range(1 if self.port else 5):  # another process may take a free port before we do
            port = self.port or free_port()
            if self._try(port):
                self.port = port
                return self
        raise RuntimeError(f"mosquitto did not start:\n{self.log()[-2000:]}")

    def stop(self) -> None:
        """End it in good order (SIGTERM): it stores its state. No matter if it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL). No matter if it has ended."""
        self._end(signal.SIGKILL)

    def wipe(self) -> None:
        """Take its store away, as a broker without persistence would lose it; it does not run then."""
        assert not self.is_running
        for path in self._folder.glob("mosquitto.db*"):
            path.unlink()

    def restart(self) -> None:
        """Stop and start on the same port with the same store."""
        self.stop()
        self.start()

    def log(self) -> str:
        """All it has logged, over all its starts."""
        path = self._folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def _settings(self, port: int) -> str:
        return CONFIG.format(port=port, folder=self._folder)

    def _try(self, port: int) -> bool:
        program = shutil.which("mosquitto", path=SEARCH_PATH)
        if program is None:
            raise RuntimeError("mosquitto is not installed: bash tests/run installs it")
        config = self._folder / "mosquitto.conf"
        # Started as root it would change to the user mosquitto, who may not write into our folder.
        user = "user root" if os.geteuid() == 0 else ""
        config.write_text(f"{user}\n{self._settings(port)}{self._extra}")
        logged = len(self.log())
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        # Its own word first: whoever else holds the port would accept a connection too.
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.is_running:
            if RUNNING.search(self.log(), logged) and accepts(port):
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)  # Popen sends nothing to a process whose end it has seen
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


PORTS = range(22_000, 32_000)
"""None that Linux gives to outgoing connections, of whichever program: one may take it before our server."""
SLICE = 100
_left: list[int] = []


def free_port() -> int:
    """A loopback port that nobody listens on at this moment, and that no other test was given or will be.

    A broker comes back to its own after a stop, and one whose files name a port may start minutes after they are
    written: so the ports of all test processes of a machine are apart for as long as these live.
    """
    while True:
        if not _left:
            _left.extend(_own_slice())
        port = _left.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _own_slice() -> range:
    """Ports for this process alone: it holds the one before them until it ends, and never listens there."""
    while True:
        first = PORTS[SLICE * secrets.randbelow(len(PORTS) // SLICE)]  # not `random`: hypothesis seeds it
        holding = socket.socket()
        try:
            holding.bind(("127.0.0.1", first))
        except OSError:
            holding.close()  # another process has this slice
        else:
            holding.detach()
            return range(first + 1, first + SLICE)


def accepts(port: int) -> bool:
    """Whether the loopback port takes a connection now."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker of the test's own, running."""
    yield from _running(tmp_path_factory.mktemp("broker"))


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker for all tests that only publish and subscribe."""
    yield from _running(tmp_path_factory.mktemp("shared-broker"))


def _running(folder: Path) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(folder)
    try:
        yield mosquitto.start()
    finally:
        mosquitto.kill()
