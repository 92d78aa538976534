"""Daemons without the second that Python takes to import them: forked from a process that has imported all of it.

The same code as `python -m scripted_daemon` from its first line on; only interpreter start and imports are
spared, so that a hundred kills fit into a minute. Run as a program it is the nursery: it takes one JSON line with
a file descriptor for each daemon to start, and tells its process id and how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol, Self

from broker import Mosquitto
from daemon_process import DaemonProcess, Sections

from edged import daemon, logs, settings

ENGINE = (sys.executable, "-m", "scripted_engine")
LINE_BYTES = 65_536
SHIFT = "WALL_CLOCK_SHIFT"
"""Environment variable: a file with the seconds by which a forked daemon's wall clock is off, read at each look."""


class ForkedProcess:
    """What `DaemonProcess` needs of a `subprocess.Popen`, for a child of the nursery."""

    def __init__(self, pid: int, stderr: IO[bytes]) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None
        self._ended = threading.Event()

    def ended(self, code: int) -> None:
        """The nursery has seen it end."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Exit code, once it has ended."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("a forked daemon", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.returncode is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it has ended and the nursery is about to say so

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The test's side: one nursery process, many daemons."""

    def __init__(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        self._spawning = threading.Lock()
        self._changed = threading.Condition()
        self._started: list[int] = []
        self._children: dict[int, ForkedProcess] = {}
        self._early: dict[int, int] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def spawn(self, config: Path, environment: dict[str, str]) -> ForkedProcess:
        """Start a daemon. Its standard error can be read from `stderr`."""
        read, write = os.pipe()
        order = json.dumps({"config": str(config), "environment": environment}).encode()
        with self._spawning, self._changed:  # one at a time: else two nodes could take each other's process
            socket.send_fds(self._socket, [order], [write])
            os.close(write)
            assert self._changed.wait_for(lambda: self._started, 20), "the nursery does not answer"
            pid = self._started.pop()
            process = self._children[pid] = ForkedProcess(pid, os.fdopen(read, "rb"))
            if pid in self._early:
                process.ended(self._early.pop(pid))
        return process

    def close(self) -> None:
        """End the nursery; its daemons have ended before."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait(60)
        self._thread.join(60)
        self._socket.close()

    def _listen(self) -> None:
        while line := self._socket.recv(LINE_BYTES):
            said = json.loads(line)
            with self._changed:
                if "started" in said:
                    self._started.append(said["started"])
                    self._changed.notify_all()
                    continue
                process = self._children.pop(said["ended"], None)
                if process is None:
                    self._early[said["ended"]] = said["code"]
                else:
                    process.ended(said["code"])


class ForkedDaemon(DaemonProcess):
    """A node whose processes come from a nursery; `failpoint` holds for the next start only."""

    def __init__(self, nursery: Nursery, *place: Any, **options: Any) -> None:
        super().__init__(*place, **options)
        self._nursery = nursery
        self.failpoint = ""

    def launch(self) -> Self:
        """Start it and return at once."""
        assert not self.running, "it runs already"
        environment = {**self._environment, **({"EDGED_FAILPOINT": self.failpoint} if self.failpoint else {})}
        self.failpoint = ""
        process: Any = self._nursery.spawn(self.config, environment)
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()
        return self


class MakeNode(Protocol):
    """Makes nodes; the fixture `node`. Further options are those of `DaemonProcess`."""

    def __call__(
        self,
        broker: Mosquitto,
        name: str = "n1",
        sections: Sections | None = None,
        *,
        port: int | None = None,
        forked: bool = True,
        **options: Any,
    ) -> DaemonProcess:
        """A node that has not started; `port` is where it finds the broker, should a proxy stand between."""


# the nursery process ------------------------------------------------------------------------------------


def serve(line: socket.socket) -> None:
    """Fork a daemon for each line, report each end, end when the test closes its side."""
    line.settimeout(0.02)
    while True:
        try:
            order, fds, _, _ = socket.recv_fds(line, LINE_BYTES, 1)
        except TimeoutError:
            order = None
        if order == b"":
            return
        if order:
            pid = os.fork()
            if pid == 0:
                line.close()
                become_daemon(json.loads(order), fds[0])
            os.close(fds[0])
            line.send(json.dumps({"started": pid}).encode())
        _reap(line)


def _reap(line: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        line.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def become_daemon(order: dict[str, Any], stderr: int) -> NoReturn:
    """Be what `python -m scripted_daemon` is."""
    os.dup2(stderr, 2)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(order["environment"])
    if SHIFT in os.environ:
        shift_wall_clock(Path(os.environ[SHIFT]))
    loaded = settings.load(Path(order["config"]))
    logs.configure(loaded.log.level, loaded.log.format)
    code = 70
    try:
        code = daemon.run(loaded, engine=ENGINE)
    finally:
        sys.stderr.flush()
        os._exit(code)


def shift_wall_clock(file: Path) -> None:
    """Set Python's wall clock wrong; monotonic clocks go on, as they do with clock_settime(2)."""
    right = time.time
    time.time = lambda: right() + float(file.read_text(encoding="ascii"))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
