"""The log: structlog set up once, everything on standard error, one event a line.

`configure` is called once at the start of each process; after it, `structlog.get_logger()` and the standard
library's loggers (paho's, asyncio's) end in the same pipeline. Any thread may log: a line is written whole,
under a lock. An event is a snake_case name with fields, never a sentence. The severity of a line is its field
`severity`, because `level` is the board's heat. What is worth a line is not decided here, and the configuration is
not read here: the caller brings level and format.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec

# structlog brings in rich where it finds it, for a renderer that is not ours: 4 MB of the daemon.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
import structlog  # noqa: E402 - under the line above

if sys.modules["rich"] is None:
    del sys.modules["rich"]

from edged import journald  # noqa: E402 - likewise
from edged.log_fields import tidy  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

    from structlog.typing import EventDict, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
PRIORITIES: Mapping[str, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Severity to the kernel's levels that journald takes from a line's start, sd-daemon(3)."""

STDERR = 2

_COLOURS: Mapping[str, str] = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


class Stream:
    """Writes whole lines to a file of bytes. A log that cannot be written never stops the work."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write one event, which ends in a newline; nothing happens where the file is closed or full."""
        if not line:
            return  # the journal has it
        with self._lock, suppress(OSError, ValueError):
            self._file.write(line)
            self._file.flush()

    debug = info = warning = warn = error = critical = fatal = exception = log = msg = write
    """structlog calls the method named like the severity, with the rendered line."""


class Bridge(logging.Handler):
    """Brings what libraries log through the standard library into our pipeline: event `library_message`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record` again, in whichever thread the library logged it."""
        severity = next((name for name, number in LEVELS.items() if record.levelno <= number), "critical")
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # the library's arguments do not fit its own text
            text = str(record.msg)
        fields: dict[str, Any] = {"logger": record.name, "message": text}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc_info"] = record.exc_info
        getattr(structlog.get_logger(), severity)("library_message", **fields)


def configure(
    level: Level = "info",
    format: Format = "auto",  # noqa: A002 - the setting's name
    *,
    file: IO[bytes] | None = None,
    journal_socket: Path = journald.SOCKET,
) -> None:
    """Set the log up for this process; a second call replaces the first.

    Args:
        level: least severity written, for our events and the libraries'.
        format: `json` one object a line; `console` for people; `auto` console on a terminal and in the journal,
            JSON elsewhere.
        file: where to write instead of standard error; never taken for the journal or a terminal.
        journal_socket: where standard error is the journal, events go there with their fields; those that it
            does not take go to standard error, each line with its priority.
    """
    journal = file is None and under_journal(os.environ, STDERR)
    terminal = file is None and not journal and sys.stderr.isatty()
    renderer: structlog.typing.Processor
    if format == "console" or (format == "auto" and terminal):
        colour = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
        renderer = Console(colour=colour, priority=journal)
    else:
        renderer = Json(priority=journal)
    if journal and journal_socket.exists():
        renderer = Native(renderer, journal_socket, text=format != "json")
    stream = Stream(sys.stderr.buffer if file is None else file)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_severity,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.ExceptionRenderer(),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            tidy,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_names: stream,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[Bridge()], level=LEVELS[level], force=True)


def under_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """Whether `descriptor` is the journal's: `$JOURNAL_STREAM` is its device and inode, systemd.exec(5)."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(descriptor)
        return (int(device), int(inode)) == (stat.st_dev, stat.st_ino)
    except (OSError, ValueError):
        return False


def add_severity(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add `severity` from the method that was called; `level` stays free for the board's heat."""
    event["severity"] = {"exception": "error", "warn": "warning", "fatal": "critical"}.get(method, method)
    return event


class Json:
    """Renders an event as one JSON object on one line: time, severity, event, then the fields as given."""

    def __init__(self, *, priority: bool) -> None:
        self._priority = priority

    def __call__(self, _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> bytes:
        """The line, ending in a newline."""
        head = {name: event.pop(name) for name in ("timestamp", "severity", "event") if name in event}
        line = msgspec.json.encode(head | dict(event)) + b"\n"
        return _prefix(head["severity"]) + line if self._priority else line


class Native:
    """Hands an event to the journal with its fields; renders it for standard error where that fails.

    That is a socket of the journal as well: while it hangs both fill up, and what neither takes at once is left
    out, for a line would wait under the lock until the watchdog ends the daemon. How many is told afterwards.

    Args:
        fallback: the renderer for standard error.
        path: the journal's socket.
        text: whether people read a line of `key=value`, else the object as JSON.
    """

    def __init__(self, fallback: structlog.typing.Processor, path: Path, *, text: bool) -> None:
        self._fallback = fallback
        self._path = path
        self._left_out = 0
        self._render = Console(colour=False, priority=False, bare=True) if text else Json(priority=False)

    def __call__(self, logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> bytes:
        """Empty where the journal took it, or nobody does, else the line."""
        message = self._render(logger, method, dict(event)).decode().rstrip("\n")
        fields = {name: value for name, value in event.items() if name not in {"timestamp", "severity"}}
        if self._send(message, event["severity"], fields):
            if left_out := self._left_out:
                self._left_out = 0
                told = {"event": "log_lines_left_out", "count": left_out}
                self._send(f"log_lines_left_out count={left_out}", "warning", told)
            return b""
        if not _takes(STDERR):
            self._left_out += 1
            return b""
        line = self._fallback(logger, method, event)
        return line if isinstance(line, bytes) else b""

    def _send(self, message: str, severity: str, fields: Mapping[str, object]) -> bool:
        return journald.send(journald.datagram(message, PRIORITIES[severity], fields), self._path)


class Console:
    """Renders an event for people: time of day, severity, event, `key=value`; a traceback below, indented."""

    def __init__(self, *, colour: bool, priority: bool, bare: bool = False) -> None:
        self._colour = colour
        self._priority = priority
        self._bare = bare  # without time and severity: the journal has both

    def __call__(self, _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> bytes:
        """The line, ending in a newline."""
        time = str(event.pop("timestamp", ""))[11:19]
        severity = event.pop("severity")
        name = event.pop("event", "")
        below = [str(event.pop(key)) for key in ("stack", "exception") if key in event]
        parts = (
            [] if self._bare else [self._paint("2", time), self._paint(_COLOURS[severity], f"{severity:<8}")]
        )
        parts.append(self._paint("1", str(name)))
        parts += [f"{self._paint('36', key)}={_word(value)}" for key, value in event.items()]
        text = " ".join(parts) + "\n"
        text += "".join(f"    {line}\n" for block in below for line in block.split("\n"))
        line = text.encode()
        return _prefix(severity) + line if self._priority else line

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _takes(descriptor: int) -> bool:
    """Whether a line can be written there without waiting."""
    try:
        return bool(select.select([], [descriptor], [], 0)[1])
    except (OSError, ValueError):
        return False  # it is closed


def _prefix(severity: str) -> bytes:
    return b"<%d>" % PRIORITIES[severity]


def _word(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[^\s=\"']+", value):
        return value
    return msgspec.json.encode(value).decode()
