"""The role's own modules on made-up boards and against servers that do not do as they should."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boards
import pytest
from ansible_rig import module
from boards import tree

# which boards may be touched ------------------------------------------------------------------------------------


def hot(folder: Path, root: Path) -> list[str]:
    """What speaks against a board for its heat."""
    told: list[str] = module(
        folder, "edged_board", home=str(folder / "opt"), model="small.gguf", sys=str(root / "sys")
    )["hot"]
    return told


def rock_with_a_fan(root: Path) -> Path:
    """A ROCK 5B whose fan starts at 55 C (mainline's rk3588-rock-5b.dts, trips package_fan0 and package_fan1)."""
    boards.rk3588_mainline(root)
    fan: tree.Trips = [("critical", 115000, 0), ("active", 55000, 2000), ("active", 65000, 2000)]
    tree.zone(root, 0, "package-thermal", 52350, fan)
    return root


@pytest.mark.parametrize(
    "build", [boards.pi4, boards.pi5, boards.rk3588_mainline, boards.rk3588_vendor, rock_with_a_fan]
)
def test_a_cool_board_is_not_too_hot(tmp_path: Path, build: tree.Builder) -> None:
    """Also where a fan starts, or turns, far below where the board brakes."""
    assert hot(tmp_path, build(tmp_path / "board")) == []


@pytest.mark.parametrize(
    ("build", "zone", "temp_c", "said"),
    [
        (boards.pi4, "cpu-thermal", 78.0, "cpu-thermal at 78.0 C, it brakes at 85 C"),
        (boards.pi5, "cpu-thermal", 78.0, "cpu-thermal at 78.0 C, it brakes at 85 C"),
        (boards.rk3588_mainline, "bigcore0-thermal", 78.0, "bigcore0-thermal at 78.0 C, it brakes at 85 C"),
        (boards.rk3588_vendor, "soc-thermal", 68.0, "soc-thermal at 68.0 C, it brakes at 75 C"),
    ],
)
def test_a_hot_board(tmp_path: Path, build: tree.Builder, zone: str, temp_c: float, said: str) -> None:
    """A Raspberry Pi 5's one trip that is no fan's is where it switches off, at 110 C; it brakes long before."""
    root = build(tmp_path / "board")
    boards.set_temp_c(root, zone, temp_c)
    assert hot(tmp_path, root) == [said]


def test_releases_of_another_python(tmp_path: Path) -> None:
    """After an upgrade of the system they cannot be run: the role installs anew, and goes back to none."""
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for version, python in (("0.1.0", "python3.2"), ("0.2.0", ours), ("0.3.0", None)):
        release = tmp_path / "opt/releases" / version
        (release / "lib" / (python or ours)).mkdir(parents=True)
        if python is not None:
            (release / ".complete").write_text("sum\n")
    told = module(tmp_path, "edged_board", home=str(tmp_path / "opt"), model="small.gguf", sys=str(tmp_path))
    assert (told["releases"], told["stale"]) == ({"0.2.0": "sum"}, ["0.1.0"])


def test_a_second_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release is installed with `python3`; Ansible runs its modules with the newest Python that it finds."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text("#!/bin/sh\necho 3.2\n")
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    release = tmp_path / "opt/releases/0.1.0"
    (release / "lib/python3.2").mkdir(parents=True)
    (release / ".complete").write_text("sum\n")
    told = module(tmp_path, "edged_board", home=str(tmp_path / "opt"), model="small.gguf", sys=str(tmp_path))
    assert (told["python"], told["releases"], told["stale"]) == ("3.2", {"0.1.0": "sum"}, [])


# a model from a server that breaks off ----------------------------------------------------------------------------

WEIGHTS = bytes(range(256)) * 4096


class Breaking(BaseHTTPRequestHandler):
    """Sends the weights in two chunks, without a length (RFC 9112, 7.1); the first time it breaks off."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        """Send them."""
        Breaking.asked += 1
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (WEIGHTS[:500_000], WEIGHTS[500_000:]):
            self.wfile.write(b"%x\r\n" % len(part))
            if Breaking.asked == 1 and part == WEIGHTS[500_000:]:
                self.wfile.write(part[:1000])
                self.close_connection = True
                return
            self.wfile.write(part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing: tests are quiet."""


def fetched(folder: Path, behaving: type[BaseHTTPRequestHandler], **more: Any) -> dict[str, Any]:
    """What the module says of fetching small.gguf from a server that behaves so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), behaving)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        return module(
            folder,
            "edged_model",
            path=str(folder / "small.gguf"),
            sha256=hashlib.sha256(WEIGHTS).hexdigest(),
            url=f"http://127.0.0.1:{server.server_address[1]}/small.gguf",
            **more,
        )
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_breaks_off_in_a_chunk(tmp_path: Path) -> None:
    """It is asked again in the same run, as one that tells a length is."""
    told = fetched(tmp_path, Breaking)
    assert told.get("have"), told
    assert (tmp_path / "small.gguf").read_bytes() == WEIGHTS
    assert Breaking.asked == 2


@pytest.mark.parametrize("chunked", [False, True])
def test_a_server_that_would_fill_the_disk(tmp_path: Path, *, chunked: bool) -> None:
    """Whether it tells a length or not: the journal of the node that runs there needs the rest."""

    class Endless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header(
                *(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(10**16)))
            )
            self.end_headers()
            self.wfile.write(b"%x\r\n%b" % (len(WEIGHTS), WEIGHTS) if chunked else WEIGHTS)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: tests are quiet."""

    free_mb = shutil.disk_usage(tmp_path).free // 10**6
    told = fetched(tmp_path, Endless, spare_mb=free_mb + 10_000 if chunked else 0)
    assert "MB are needed for what is to come and the journal" in told["msg"], told
    assert (tmp_path / "small.gguf.part").stat().st_size == 0


def test_a_part_of_another_file_is_begun_anew(tmp_path: Path) -> None:
    """As after a new SHA-256 for the same name: the end of one behind the other ended the play, once."""

    class Ranges(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", "many" if wanted is None else str(len(WEIGHTS) - begin))
            self.end_headers()
            self.wfile.write(WEIGHTS[begin:])

        def log_message(self, *_: object) -> None:
            """Nothing: tests are quiet."""

    (tmp_path / "small.gguf.part").write_bytes(b"another" * 100)
    told = fetched(tmp_path, Ranges)
    assert told.get("have"), told
    assert (tmp_path / "small.gguf").read_bytes() == WEIGHTS
