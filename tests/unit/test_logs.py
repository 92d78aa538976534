"""The log: one event a line whatever is in it, the same pipeline for libraries, no secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from edged import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import logging, pathlib, sys, structlog
from edged import logs
logs.configure("info", sys.argv[1], journal_socket=pathlib.Path(sys.argv[2]))
log = structlog.get_logger()
log.info("job_finished", job_id="c1-1", tokens=12, duration_s=1.23456789)
log.debug("never_seen")
logging.getLogger("paho").warning("broker %s", "gone")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("engine_broke", why="two\\nlines\\x1b[2J")
"""


class Log:
    """A log in memory."""

    def __init__(self) -> None:
        self.file = io.BytesIO()

    def lines(self) -> list[str]:
        """The lines so far, taken out."""
        text = self.file.getvalue().decode()
        self.file.seek(0)
        self.file.truncate()
        assert text.endswith("\n") or not text
        return text.split("\n")[:-1]

    def records(self) -> list[dict[str, Any]]:
        """The JSON objects so far, taken out."""
        return [json.loads(line) for line in self.lines()]


@pytest.fixture(name="log")
def _log() -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = Log()
    yield log
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


def run(form: str, stderr: int, socket: str = "/nonexistent", **environment: str) -> None:
    """Runs the program above in a process of its own with its standard error and the journal's socket at these."""
    bare = {name: value for name, value in os.environ.items() if name not in {"JOURNAL_STREAM", "NO_COLOR"}}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, form, socket],
        stderr=stderr,
        env=bare | environment,
        check=True,
        timeout=60,
    )


def test_json_line(log: Log) -> None:
    """An event is one JSON object: time, severity, event, then its fields in their order."""
    logs.configure("info", "json", file=log.file)
    structlog.get_logger().info("job_finished", job_id="c1-1", tokens=12, level="warm", thinking=None)
    [record] = log.records()
    assert list(record) == ["timestamp", "severity", "event", "job_id", "tokens", "level", "thinking"]
    assert (record["severity"], record["event"], record["level"]) == ("info", "job_finished", "warm")
    assert record["timestamp"].endswith("Z")


def test_level(log: Log) -> None:
    """Events below the level are not written, ours and the libraries' alike."""
    logs.configure("warning", "json", file=log.file)
    structlog.get_logger().info("quiet")
    logging.getLogger("paho").info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("paho").error("loud")
    assert [record["severity"] for record in log.records()] == ["warning", "error"]


def test_libraries(log: Log) -> None:
    """What libraries log, and Python's warnings, become events with the library's name and text."""
    logs.configure("debug", "json", file=log.file)
    logging.getLogger("paho.mqtt").debug("sent %d to %s", 3, "broker")
    logging.getLogger("paho.mqtt").critical("arguments that do not fit %d", "x")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    first, second, third = log.records()
    assert (first["event"], first["logger"], first["severity"]) == ("library_message", "paho.mqtt", "debug")
    assert first["message"] == "sent 3 to broker"
    assert (second["severity"], second["message"]) == ("critical", "arguments that do not fit %d")
    assert third["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in third["message"]


def test_library_exception(log: Log) -> None:
    """A library's traceback stays with its line."""
    logs.configure("info", "json", file=log.file)
    try:
        int("x")
    except ValueError:
        logging.getLogger("paho").exception("in callback")
    [record] = log.records()
    assert "ValueError: invalid literal" in record["exception"]


def test_floats_are_short(log: Log) -> None:
    """Floats keep three decimals, or three digits below one; what JSON cannot hold becomes null."""
    logs.configure("info", "json", file=log.file)
    structlog.get_logger().info(
        "x", a=12.3456789, b=0.000123456, c=float("nan"), d=[1.23456], e=10**30, f=0.0
    )
    [record] = log.records()
    assert [record[key] for key in "abcdef"] == [12.346, 0.000123, None, [1.235], hex(10**30), 0]


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "mqtt_password",
        "secret",
        "clientSecret",
        "api_key",
        "key",
        "token",
        "access-token",
        "Authorization",
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_masked(log: Log, name: str, form: logs.Format) -> None:
    """A text in a field with a secret's name is masked, however deep it stands."""
    logs.configure("info", form, file=log.file)
    structlog.get_logger().info("x", **{name: "hunter2"}, nested={"list": [{name: ["hunter2"]}]})
    [line] = log.lines()
    assert "hunter2" not in line
    assert line.count("***") == 2


def test_what_is_no_secret(log: Log) -> None:
    """Model tokens are numbers, and the name of a password's file is no password."""
    logs.configure("info", "json", file=log.file)
    structlog.get_logger().info("x", token=151643, tokens=3, password_file="/etc/p", monkey="m")  # noqa: S106
    [record] = log.records()
    assert (record["token"], record["tokens"]) == (151643, 3)
    assert (record["password_file"], record["monkey"]) == ("/etc/p", "m")


def test_long_text_is_cut_and_says_so(log: Log) -> None:
    """A text too long for the journal's lines is cut, a long list too; the line tells their true length."""
    logs.configure("info", "json", file=log.file)
    structlog.get_logger().info("x", prompt="a" * 100_000, numbers=list(range(1000)))
    [record] = log.records()
    assert len(record["prompt"]) < 5000
    assert record["prompt"].endswith("… (100000 characters)")
    assert record["numbers"][-1] == "… (1000 items)"


def test_odd_values(log: Log) -> None:
    """Bytes, sets, exceptions, nested and foreign values are written as text, never an error."""
    logs.configure("info", "json", file=log.file)
    loop: list[Any] = []
    loop.append(loop)
    structlog.get_logger().info("x", a=b"\xff", b={1}, c=ValueError("v"), d=loop, e={1: 2}, f=object)
    [record] = log.records()
    assert (record["a"], record["b"], record["c"], record["e"]) == ("b'\\xff'", [1], "v", {"1": 2})


@given(text=st.text(), name=st.text(min_size=1))
@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_breaks_a_line(form: logs.Format, text: str, name: str) -> None:
    """Whatever stands in an event, a field's name or value, exactly one line without control characters."""
    log = Log()
    logs.configure("info", form, file=log.file)
    try:
        structlog.get_logger().info(text, **{f"a{name}": text, "b": [text, {text: text}]})
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(capture=False)
        logging.getLogger().handlers[:] = []
    [line] = log.lines()
    assert line.splitlines() == [line]
    assert not set(line) & {"\x1b", "\x00", "\x07", "\u202e"}


def test_threads_write_whole_lines(log: Log) -> None:
    """Lines of many threads do not mix."""
    logs.configure("info", "json", file=log.file)

    def work() -> None:
        for number in range(50):
            structlog.get_logger().info("x", text="y" * 500, number=number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.records()) == 200


def test_a_log_that_cannot_be_written(log: Log) -> None:
    """A closed log is no reason to stop working."""
    logs.configure("info", "json", file=log.file)
    log.file.close()
    structlog.get_logger().info("unheard")


def test_pipe_gets_json_without_priorities(tmp_path: Path) -> None:
    """Away from a terminal and the journal, `auto` writes JSON lines that start with the object."""
    with (tmp_path / "log").open("wb") as file:
        run("auto", file.fileno())
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [record["event"] for record in records] == ["job_finished", "library_message", "engine_broke"]
    assert records[0]["duration_s"] == 1.235
    assert "ZeroDivisionError" in records[2]["exception"]


def test_journal_gets_priorities(tmp_path: Path) -> None:
    """Where standard error is the journal's and its socket is not there, each line starts with its priority."""
    with (tmp_path / "log").open("wb") as file:
        stat = os.fstat(file.fileno())
        run("auto", file.fileno(), JOURNAL_STREAM=f"{stat.st_dev}:{stat.st_ino}")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line[:4] for line in lines] == ["<6>{", "<4>{", "<3>{"]
    assert all(isinstance(json.loads(line[3:]), dict) for line in lines)


def test_foreign_journal_stream(tmp_path: Path) -> None:
    """A $JOURNAL_STREAM inherited from elsewhere, or broken, does not count."""
    with (tmp_path / "log").open("wb") as file:
        assert not logs.under_journal({"JOURNAL_STREAM": "1:1"}, file.fileno())
        assert not logs.under_journal({"JOURNAL_STREAM": "nonsense"}, file.fileno())
        assert not logs.under_journal({}, file.fileno())


@pytest.mark.parametrize(("environment", "coloured"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)])
def test_terminal_is_readable(environment: dict[str, str], coloured: bool) -> None:  # noqa: FBT001 - a table
    """On a terminal a line has time, severity, event and key=value; a traceback stands below, indented."""
    reader, writer = pty.openpty()
    run("auto", writer, **environment)
    os.close(writer)
    text = os.read(reader, 65536).decode().replace("\r\n", "\n")
    os.close(reader)
    assert ("\x1b[32m" in text) is coloured
    for code in ("0", "1", "2", "31", "32", "33", "36"):
        text = text.replace(f"\x1b[{code}m", "")
    first, second, third, *below = text.splitlines()
    assert first[8:] == " info     job_finished job_id=c1-1 tokens=12 duration_s=1.235"
    assert second[8:] == ' warning  library_message logger=paho message="broker gone"'
    assert third.endswith(r"engine_broke why=two\nlines\x1b[2J")
    assert below[0] == "    Traceback (most recent call last):"
    assert below[-1] == "    ZeroDivisionError: division by zero"
