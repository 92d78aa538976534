"""What can break the HTTP face while it runs, done to a real daemon: its socket, its files, its places."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from broker import Mosquitto, free_port
from certificates import Authority
from daemon_process import DaemonProcess, MakeDaemon
from device import WAIT_S, MakeDevice

from edged.adapters.http.patience import HEAD_S, READ_S
from edged.adapters.http.server import RETRY_S

PIDFD_GETFD = 438  # pidfd_getfd(2), the same number on x86-64 and arm64
PLACES = 8
UPGRADE = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Faced:
    """A scripted node with an HTTP face of a few places."""

    def __init__(self, node: DaemonProcess, port: int) -> None:
        self.node, self.port = node, port

    def get(self) -> int:
        """Status of its `/health`."""
        return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=WAIT_S).status_code

    def wait_answers(self) -> None:
        """Until it answers again."""
        end = time.monotonic() + WAIT_S
        while True:
            try:
                if self.get() == httpx.codes.OK:
                    return
            except httpx.TransportError:
                assert time.monotonic() < end
            time.sleep(0.05)

    def break_socket(self) -> None:
        """Shut the listening socket down, through a copy of its descriptor."""
        process = psutil.Process(self.node.pid)
        [fd] = [
            one.fd
            for one in process.net_connections("inet")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == self.port
        ]
        pidfd = os.pidfd_open(self.node.pid)
        copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, fd, 0)
        os.close(pidfd)
        assert copy >= 0, os.strerror(ctypes.get_errno())
        with socket.socket(fileno=copy) as listening:
            listening.shutdown(socket.SHUT_RDWR)

    def files(self) -> int:
        """How many the daemon has open."""
        return int(psutil.Process(self.node.pid).num_fds())

    def files_at_rest(self) -> int:
        """The same once the connection of the last answer is gone: the fewest within a second."""
        found = []
        for _ in range(20):
            found.append(self.files())
            time.sleep(0.05)
        return min(found)

    def crowd(self, within_s: float) -> None:
        """Twenty times as many connections as there are places say nothing: all but a few are closed in time."""
        before = self.files_at_rest()
        silent = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(20 * PLACES)]
        end = time.monotonic() + within_s
        while sum(_closed(one) for one in silent) < 18 * PLACES:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert self.files() <= before + 2 * PLACES
        for one in silent:
            one.close()


@pytest.fixture
def faced(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> Faced:
    """Started, and answering."""
    port = free_port()
    http: dict[str, Any] = {"enabled": True, "port": port, "connections": PLACES}
    sections = {
        "http": http,
        "metrics": {"textfile": str(tmp_path / "edged.prom")},
        "node": {"pools": ["hall"]},
    }
    made = Faced(daemon(broker, sections, scripted=True).start(), port)
    made.wait_answers()
    return made


def test_its_socket_breaks(faced: Faced, broker: Mosquitto, device: MakeDevice, tmp_path: Path) -> None:
    """One line and an orderly end with code 70, for systemd to start it again; what ran then runs again."""
    textfile = tmp_path / "edged.prom"
    node = faced.node
    press = device(broker, "press")
    job = press.ask("tokens=60 step_ms=50")
    press.wait_reply(job, "delta")
    lines = len(node.raw)
    assert textfile.exists()
    since = node.watcher.mark
    faced.break_socket()
    assert node.wait_end() == 70
    node.wait_offline(since)  # it may never come back
    changes = re.findall(r"Received (\w*SUBSCRIBE) from edged-n1\n.*\$share/hall/", broker.log())
    assert changes[-1] == "UNSUBSCRIBE", "the broker would deal it the pool's questions"
    [died] = node.log("died")
    assert died["reason"].startswith("the http thread ended: its socket no longer listens")
    assert node.log("stopped")
    assert not textfile.exists(), "its numbers would look like those of a node that lives"
    assert len(node.raw) - lines < 20, "no flood of lines"
    node.start()
    faced.wait_answers()
    answer = press.answer(job)
    assert (answer.last["type"], answer.last["attempt"]) == ("done", 2)


def test_a_port_that_is_taken(daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice) -> None:
    """The face waits for it, says so once, and is there when it is free; devices are answered meanwhile."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        node = daemon(broker, {"http": {"enabled": True, "port": port}}, scripted=True).start()
        press = device(broker, "press")
        press.answer(press.ask("tokens=2")).check()
        assert f"127.0.0.1:{port}: Address already in use" in node.wait_log("http_waits")["reason"]
        time.sleep(1.5 * RETRY_S)
    node.wait_log("http_listens")
    Faced(node, port).wait_answers()
    assert len(node.log("http_waits")) == 1


def test_no_files_are_left(faced: Faced, broker: Mosquitto, device: MakeDevice) -> None:
    """The face waits, says so, and goes on when there are some; questions over MQTT are answered meanwhile."""
    process = psutil.Process(faced.node.pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    press = device(broker, "press")
    press.answer(press.ask("tokens=2")).check()
    process.rlimit(psutil.RLIMIT_NOFILE, (faced.files(), limits[1]))
    with socket.create_connection(("127.0.0.1", faced.port)):
        assert "Too many open files" in faced.node.wait_log("http_out_of_files")["reason"]
        assert press.answer(press.ask("tokens=3")).check().text == "w0 w1 w2 "
        since = faced.node.watcher.mark
        faced.node.wait_health(since=since)
    process.rlimit(psutil.RLIMIT_NOFILE, limits)
    faced.wait_answers()
    assert not faced.node.log("died")


def test_many_that_say_nothing(faced: Faced) -> None:
    """Of connections without a request no more than twice the places are held open, whoever comes."""
    faced.crowd(WAIT_S)
    faced.wait_answers()


def test_many_that_never_shake_hands(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """Over TLS the same: each would hold a file, and with none left no sensor can be read."""
    pair = Authority(tmp_path).server()
    port = free_port()
    sections: dict[str, dict[str, Any]] = {
        "http": {"enabled": True, "port": port, "connections": PLACES},
        "http.tls": {"cert": str(pair.cert), "key": str(pair.key)},
    }
    Faced(daemon(broker, sections, scripted=True).start(), port).crowd(
        HEAD_S / 2
    )  # before time alone closes them


def test_what_is_no_http_leaves_no_lines(faced: Faced) -> None:
    """Without a key, in a loop: each try was a warning, and a scan of the port pushed all else out of the log."""
    for sent in (b"\x16\x03\x01 hello over TLS\r\n\r\n", UPGRADE) * 50:
        with socket.create_connection(("127.0.0.1", faced.port)) as one:
            one.settimeout(WAIT_S)
            one.sendall(sent)
            assert one.recv(1 << 16).startswith(b"HTTP/1.1 ")
    assert faced.node.log("library_message") == []


def test_each_place_is_one(faced: Faced) -> None:
    """As many connections as there are places are served; one more is told so, and takes no place from them.

    It hears it in its own words, as of any other error, and when to come again.
    """
    face = f"http://127.0.0.1:{faced.port}"
    url = f"{face}/health"
    placed = [httpx.Client(timeout=WAIT_S) for _ in range(PLACES)]
    assert [one.get(url).status_code for one in placed] == [200] * PLACES
    with socket.create_connection(("127.0.0.1", faced.port)):
        assert faced.get() == 503
        full = httpx.post(f"{face}/v1/chat/completions", json={}), httpx.post(f"{face}/api/chat", json={})
        assert [(one.status_code, one.headers["retry-after"]) for one in full] == [(503, "1")] * 2
        assert full[0].json()["error"]["code"] == "busy"
        assert "http.connections" in full[0].json()["error"]["message"] == full[1].json()["error"]
        assert [one.get(url).status_code for one in placed] == [200] * PLACES
    for one in placed:
        one.close()
    faced.wait_answers()


def test_many_that_read_nothing(faced: Faced) -> None:
    """Clients that ask and ask and read none of it hold their places for a while, not for ever."""
    before = faced.files_at_rest()
    deaf = [socket.socket() for _ in range(PLACES)]
    for one in deaf:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        one.connect(("127.0.0.1", faced.port))
        one.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1000)
    began = time.monotonic()
    end = began + WAIT_S
    while faced.files() < before + PLACES:
        assert time.monotonic() < end
        time.sleep(0.05)
    while faced.files() > before:
        assert time.monotonic() - began < 2 * READ_S, "they hold their places still"
        time.sleep(0.5)
    assert time.monotonic() - began > 0.9 * READ_S, "they were no test: the kernel took all of it"
    faced.wait_answers()
    for one in deaf:
        one.close()


def test_a_connection_in_use_is_kept(faced: Faced) -> None:
    """One that goes on asking is not closed because it was opened a while ago, least of all under a request."""
    head, said = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", b"edged is running"

    def whole(line: socket.socket) -> bool:
        heard = b""
        while not heard.endswith(said) and (more := line.recv(4096)):
            heard += more
        return heard.endswith(said)

    with socket.create_connection(("127.0.0.1", faced.port), HEAD_S + WAIT_S) as line:
        opened = time.monotonic()
        while time.monotonic() < opened + HEAD_S - 1:
            line.sendall(head)
            assert whole(line)
            time.sleep(0.2)
        line.sendall(head[:20])
        time.sleep(2)
        line.sendall(head[20:])
        assert whole(line), "closed under a request that had begun a second before"
        line.sendall(head[:20])
        begun = time.monotonic()
        assert not whole(line), "half a head holds no place for ever"
        assert HEAD_S - 1 < time.monotonic() - begun < HEAD_S + 2


def _closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
