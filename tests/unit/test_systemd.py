"""What reaches systemd's socket, on a real socket."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from edged.adapters.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket bound as systemd binds its own, and what stands in NOTIFY_SOCKET for it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edged-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        bound.settimeout(5)
        yield name, bound


def test_each_call_is_one_datagram(systemd: tuple[str, socket.socket]) -> None:
    """The words of sd_notify(3), on path and abstract sockets alike."""
    name, bound = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert [
        notifier.ready(),
        notifier.status("2 questions\nwaiting"),
        notifier.watchdog(),
        notifier.stopping(),
        notifier.extend_start(1.5),
    ] == [True] * 5
    assert [bound.recv(4096) for _ in range(5)] == [
        b"READY=1",
        b"STATUS=2 questions waiting",
        b"WATCHDOG=1",
        b"STOPPING=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
    ]


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1"])
def test_without_a_unix_socket_nothing_happens(name: str) -> None:
    """On a terminal, or with an address of a kind that boards do not have, calls are no-ops."""
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert not notifier.ready()


def test_a_socket_that_is_gone_or_full_is_no_error(tmp_path: Path) -> None:
    """The daemon neither falls nor hangs with its supervisor."""
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).watchdog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "full"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "full")})
        assert not all(notifier.watchdog() for _ in range(10_000))


@pytest.mark.parametrize(
    ("names", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(names: dict[str, str], interval_s: float | None) -> None:
    """Half of systemd's limit, and only for the process it is meant for."""
    assert Notifier(names).watchdog_interval_s == interval_s


def test_reloading_carries_the_clock(systemd: tuple[str, socket.socket]) -> None:
    """Systemd wants to know when the reload began, by CLOCK_MONOTONIC, in the same datagram."""
    name, bound = systemd
    before_us = time.monotonic_ns() // 1000
    assert Notifier({"NOTIFY_SOCKET": name}).reloading()
    word, clock = bound.recv(4096).split(b"\n")
    assert word == b"RELOADING=1"
    assert before_us <= int(clock.removeprefix(b"MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
