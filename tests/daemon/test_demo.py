"""`edged demo` as a person runs it: its own broker, the daemon, the real small model, and nothing left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest
from boards import rk3588_mainline
from rich.console import Console

from edged.client import Client
from edged.demo import board, processes
from edged.demo.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


ONE_THREAD = {"EDGED_ENGINE__DECODE_THREADS": "1", "EDGED_ENGINE__PREFILL_THREADS": "1"}
"""Threads that wait by spinning crawl on a busy machine."""


class Start(Protocol):
    """Starts the demo."""

    def __call__(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start it with its temporary folder in the test's."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """The demo as a process; what the test leaves running is ended."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    own |= ONE_THREAD | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:

        def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "edged", "demo", *arguments],
                    env=own | environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield run


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process(process.pid).children(recursive=True)


def gone(those: list[psutil.Process]) -> bool:
    """Whether none of them lives."""
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in those)


@pytest.mark.usefixtures("small_model")
def test_once(start: Start, tmp_path: Path) -> None:
    """The answer alone stands on standard output; no folder stays."""
    demo = start("--once", "What is the capital of France?")
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, err
    assert "Paris" in out
    assert "tokens/s" not in out
    assert "tokens/s" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_model")
def test_an_engine_that_breaks_in_mid_answer(start: Start) -> None:
    """The answer stands there once: what came of it before was printed again, in front of the whole."""
    demo = start("--once", "Write a long story about the sea.")
    assert demo.stdout is not None
    head = demo.stdout.read(40)
    (engine,) = (one for one in family(demo) if "edged.engine" in one.cmdline())
    engine.kill()
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, err
    assert (head + out).count(head) == 1


@pytest.mark.usefixtures("small_model")
def test_whole(start: Start, tmp_path: Path) -> None:
    """Without a terminal: question, answer, telemetry, lines to try, then questions from standard input."""
    root = rk3588_mainline(tmp_path / "board")
    demo = start(EDGED_PATHS__SYS=str(root / "sys"), EDGED_ENGINE__CORES="0")
    head = read_until(demo, "daemon's log")
    those = family(demo)
    assert [one for one in those if "edged.demo.broker" in one.cmdline()]
    out, err = demo.communicate("Is water wet?\n", timeout=60)
    assert demo.returncode == 0, err
    for words in (
        "Why should a CPU",
        "tokens/s",
        "bigcore0-thermal",
        "passive 85 C",
        "ROCK 5B",
        "mosquitto_pub",
    ):
        assert words in head
    assert out.count("tokens/s") == 1
    assert gone(those)


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda one: one.name)
def test_ends_everything(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    """However the demo is ended, broker, daemon and engine end too; in good order the folder goes as well."""
    demo = start()
    read_until(demo, "daemon's log")
    those = family(demo)
    assert len(those) == 3
    demo.send_signal(how)
    demo.communicate(timeout=30)
    assert processes.until(lambda: gone(those), 20)
    if how is not signal.SIGKILL:
        assert demo.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[how]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_model")
def test_a_line_that_is_no_utf_8(start: Start) -> None:
    """It is told, and the next one asked: a character pasted in Latin-1 ended the demo with a traceback."""
    demo = start(PYTHONIOENCODING="utf-8:strict")
    read_until(demo, "daemon's log")
    assert isinstance(demo.stdin, io.TextIOWrapper)
    demo.stdin.buffer.write(b"Is caf\xe9 warm?\nIs water wet?\n")
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, err
    assert "the question is not UTF-8: see its character 7" in out
    assert out.count("tokens/s") == 1


def test_model_cannot_be_had(start: Start) -> None:
    """Without a model the demo ends with one line and exit code 1."""
    demo = start("--once", "Hello?", XDG_CACHE_HOME="/proc/nowhere")
    out, err = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert out == ""
    assert err.splitlines()[-1].startswith("edged demo: demo model:")


@pytest.mark.usefixtures("small_model")
def test_daemon_dies(start: Start, tmp_path: Path) -> None:
    """A daemon that does not come up is told with the end of its log, which stays."""
    demo = start("--once", "Hello?", EDGED_ENGINE__CORES="4000")
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert out.strip() == ""
    assert "the daemon ended with 78" in err
    assert "4000" in err
    assert list(tmp_path.glob("edged-demo-*/daemon.log"))


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The demo's broker."""
    with processes.broker(tmp_path) as one:
        yield one


def test_broker_listens_on_loopback_alone(tmp_path: Path) -> None:
    """Nobody outside this machine reaches the demo's broker."""
    with processes.broker(tmp_path) as port:
        mine = [
            connection.laddr
            for child in psutil.Process().children()
            if "edged.demo.broker" in child.cmdline()
            for connection in child.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    assert [(address.ip, address.port) for address in mine] == [("127.0.0.1", port)]


def test_broker_takes_what_a_node_takes(port: int) -> None:
    """A message of 64 KiB, the largest question, passes the demo's broker, and comes retained to a late reader."""
    payload = b'{"x": "' + b"x" * 65_000 + b'"}'
    with Client(port=port, node="n") as one:
        one._line._paho.publish("edged/v1/node/n/info", payload, qos=1, retain=True)  # noqa: SLF001 - as a node does
        assert one.info() == {"x": "x" * 65_000}
    with Client(port=port, node="n") as late:
        assert late.info() == {"x": "x" * 65_000}


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What it prints up to the line with these words."""
    assert process.stdout is not None
    end_s = time.monotonic() + 60
    text = ""
    while words not in text and time.monotonic() < end_s:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(text + (process.stderr.read() if process.stderr else ""))
        text += line
    return text


def test_table_of_a_bare_machine() -> None:
    """What a machine does not tell is left out, and the lack of a thermal sensor is said in words."""
    shown = {
        name: value.plain for name, value in board.rows({"node": "n"}, {"level": "cool", "reason": "none"})
    }
    assert shown["temperature"] == "no thermal sensor on this machine"
    assert "clocks" not in shown
    assert "power" not in shown


def test_flow_breaks_at_words() -> None:
    """Pieces of words are put together, lines break between words and begin with the margin."""
    with io.StringIO() as screen:
        flow = Flow(Console(width=24, force_terminal=True, color_system=None, file=screen))
        for piece in ("A temp", "erature sen", "sor meas", "ures\nheat", " and cold"):
            flow.put(piece)
        flow.end()
        lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert lines == ["  A temperature sensor", "  measures", "  heat and cold"]
