"""Commands that draw while they work, ended from elsewhere: the terminal behind them is as it was."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
"""The cursor, as xterm has it."""


@pytest.fixture
def config(small_model: Path, tmp_path: Path) -> Iterator[Path]:
    """Settings with the small model and a broker that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        file = tmp_path / "edged.toml"
        file.write_text(f'model.path = "{small_model}"\npaths.state = "{tmp_path}"\nmqtt.port = {port}\n')
        yield file


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("doctor", "--quick"), b"looking at the broker"),
        (("calibrate", "--quick", "--anyway"), b"loading the model"),
        (("bench", "--anyway"), b"reading memory"),
    ],
)
def test_the_cursor_is_back(config: Path, command: tuple[str, ...], word: bytes) -> None:
    """By `timeout` or a script: it stayed hidden in the shell behind."""
    near, far = pty.openpty()
    words = [sys.executable, "-m", "edged", *command, "--config", str(config)]
    with subprocess.Popen(words, cwd=ROOT, stderr=far, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(far)
        shown = b""
        while word not in shown:
            shown += os.read(near, 4096)
        process.send_signal(signal.SIGTERM)
        with suppress(OSError):  # EIO: it has ended
            while more := os.read(near, 4096):
                shown += more
    os.close(near)
    assert process.returncode == 128 + signal.SIGTERM
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
