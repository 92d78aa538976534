"""The socket for orders from this machine, where files are scarce or its folder has changed."""

from __future__ import annotations

import os
import queue
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

from edged.adapters.local_socket import LocalSocket


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


def test_a_folder_that_lets_nothing_go(tmp_path: Path) -> None:
    """As on a card that has become read-only: the daemon's end goes on behind it."""
    (tmp_path / "folder").mkdir()
    local = LocalSocket(tmp_path / "folder" / "s", lambda _payload, _answer: None)
    local.start()
    (tmp_path / "folder").rename(tmp_path / "away")
    (tmp_path / "folder").touch()  # ENOTDIR, which root gets as well
    local.stop()
