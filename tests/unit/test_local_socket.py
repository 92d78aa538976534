"""The socket for orders from this machine, where files are scarce or its folder has changed."""

from __future__ import annotations

import os
import queue
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edged.adapters.local_socket import NO_SOCKET, LocalSocket
from edged.client.local import NoDaemonError, order

MORE_THAN_THERE_IS = 1 << 46
"""Bytes of a thread's stack: half of the address space of a process."""


def test_out_of_files(tmp_path: Path) -> None:
    """Who asks then waits, and is answered once there is one again."""
    answers: queue.SimpleQueue[Callable[[bytes], None]] = queue.SimpleQueue()
    local = LocalSocket(tmp_path / "s", lambda _payload, answer: answers.put(answer))
    local.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        free = os.dup(first.fileno())
        os.close(free)
        # accept(2) takes its descriptor before it waits: the first comes in by that one, or after all.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            for asking in (first, second):
                asking.settimeout(30)
                asking.connect(str(tmp_path / "s"))
                asking.sendall(b"status\n")
            time.sleep(0.3)  # nothing is told by a thread that ends, or one that waits
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for answer in [answers.get(timeout=30) for _ in range(2)]:
            answer(b"ok")
        assert [asking.recv(100) for asking in (first, second)] == [b"ok\n"] * 2
    local.stop()


def test_out_of_threads(tmp_path: Path) -> None:
    """The same: the socket's thread ended then, and no order came in until the next start."""
    local = LocalSocket(tmp_path / "s", lambda _payload, answer: answer(b"ok"))
    local.start()
    with socket.socket(socket.AF_UNIX) as asking, capture_logs() as told:
        asking.settimeout(30)
        threading.stack_size(MORE_THAN_THERE_IS)
        try:
            asking.connect(str(tmp_path / "s"))
            asking.sendall(b"status\n")
            while not told:
                time.sleep(0.01)
        finally:
            threading.stack_size(0)
        assert asking.recv(100) == b"ok\n"
    local.stop()
    assert {(one["event"], one["reason"]) for one in told} == {
        ("local_socket_waits", "can't start new thread")
    }


@pytest.mark.parametrize("kind", ["file", "device", "folder", "link"])
def test_what_is_no_socket_stays(kind: str, tmp_path: Path) -> None:
    """Root's daemon took /dev/null off the machine, named as the place to have no socket."""
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("of somebody")
    elif kind == "device":
        os.mkfifo(place)  # a node as any other, and nobody's but ours
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    before = place.lstat()
    local = LocalSocket(place, lambda _payload, _answer: None)
    with capture_logs() as told:
        local.start()
    local.stop()
    assert os.path.samestat(place.lstat(), before)
    assert [(one["event"], one["reason"]) for one in told] == [("local_socket_failed", NO_SOCKET)]


def test_the_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path) -> None:
    """It lies there, and nobody listens."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    local = LocalSocket(tmp_path / "s", lambda _payload, answer: answer(b"ok"))
    local.start()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(tmp_path / "s"))
        asking.sendall(b"status\n")
        assert asking.recv(100) == b"ok\n"
    local.stop()


def test_a_folder_that_lets_nothing_go(tmp_path: Path) -> None:
    """As on a card that has become read-only: the daemon's end goes on behind it."""
    (tmp_path / "folder").mkdir()
    local = LocalSocket(tmp_path / "folder" / "s", lambda _payload, _answer: None)
    local.start()
    (tmp_path / "folder").rename(tmp_path / "away")
    (tmp_path / "folder").touch()  # ENOTDIR, which root gets as well
    local.stop()


@pytest.mark.parametrize("said", [b"", b'{"transaction": "t", "sta'])
def test_who_ends_before_it_has_answered(tmp_path: Path, said: bytes) -> None:
    """As a daemon does that is stopped while a model loads: its operator heard of input data that was truncated."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def end() -> None:
            with listening.accept()[0] as asking:
                asking.recv(1000)
                asking.sendall(said)

        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(NoDaemonError, match="closed the connection before it had answered; start edged"):
            order(tmp_path / "s", "model", path="b.gguf")
        ending.join()
