"""The daemon as a subprocess: its settings file, its log, its engine child, its end.

Runs `edged run`, or the same with the scripted engine. Every process of it carries a mark in its environment,
so that the end can be checked: nothing may be left over. Processes are ended by their ids only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, Self

import psutil
from broker import Mosquitto
from device import WAIT_S, Heard, Listener

MARK = "DAEMON_PROCESS_MARK"
TESTS = Path(__file__).parent
GONE_S = 2.0
"""An engine must have ended so long after its daemon."""

Sections = Mapping[str, Mapping[str, Any]]


class DaemonProcess:
    """One node. It may be started again and again on the same state.

    Args:
        folder: for the settings file and the state; existing and empty.
        host, port: the broker, which need not be there.
        sections: settings over those of `_defaults`, by section.
        scripted: with the scripted engine instead of llama.cpp.
        environment: variables for daemon and engine.
        wrapper: a program that starts it, with arguments, such as setpriv(1).
    """

    def __init__(
        self,
        folder: Path,
        host: str,
        port: int,
        sections: Sections | None = None,
        *,
        scripted: bool = False,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._scripted = scripted
        self._wrapper = wrapper
        self._mark = uuid.uuid4().hex
        paths = [str(TESTS), str(TESTS.parent)] if scripted else [str(TESTS.parent)]
        paths += filter(None, [(environment or {}).get("PYTHONPATH")])
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("EDGED_")},
            **(environment or {}),
            MARK: self._mark,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        merged = _merged(self._defaults(folder, host, port), sections or {})
        self.node = str(merged["node"]["id"])
        self.config = folder / "edged.toml"
        self.config.write_text(_toml(merged))
        topics = (f"edged/v1/node/{self.node}/+",)
        self.watcher = Listener(host, port, topics, name=f"watch-{self._mark[:8]}")

    def _defaults(self, folder: Path, host: str, port: int) -> dict[str, dict[str, Any]]:
        return {
            "node": {"id": "n1"},
            "mqtt": {"host": host, "port": port},
            "model": {"path": str(folder / "model.gguf")},
            # One thread: several wait for each other in every layer, which on a busy machine takes for ever.
            "engine": {"slots": 2, "decode_threads": 1, "prefill_threads": 1},
            "health": {"interval_s": 1.0},
            "log": {"level": "info", "format": "json"},
            "paths": {"state": str(folder / "state")},
        }

    # life -----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Process id of the running daemon."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> Self:
        """Start it and return at once."""
        assert not self.running, "it runs already"
        program = ["scripted_daemon"] if self._scripted else ["edged", "run", "--config"]
        self._process = subprocess.Popen(
            [*self._wrapper, sys.executable, "-m", *program, str(self.config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment,
        )
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        return self

    def start(self, *, engine: str = "ready", timeout_s: float = 60.0) -> Self:
        """Start it; returns once it is `online` and `info` shows its engine in this phase."""
        if not self.watcher.listening:
            self.watcher.start()
        since = self.watcher.mark
        self.launch()
        self.wait_online(since, timeout_s)
        self.wait_info(lambda info: info["engine"] == engine, since=since, timeout_s=timeout_s)
        return self

    def terminate(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        return self.end(signal.SIGTERM, timeout_s)

    def kill(self) -> int:
        """SIGKILL; returns the exit code."""
        return self.end(signal.SIGKILL, 10.0)

    def end(self, how: signal.Signals, timeout_s: float) -> int:
        """Send a signal and wait for the end of process and log."""
        assert self._process is not None
        self._process.send_signal(how)
        return self.wait_end(timeout_s)

    def wait_end(self, timeout_s: float = WAIT_S) -> int:
        """Wait for it to end by itself; returns the exit code."""
        assert self._process is not None
        code = self._process.wait(timeout_s)
        if self._reader is not None:
            self._reader.join(GONE_S)
        return code

    def close(self) -> list[int]:
        """End whatever is left; returns the processes that were left over though the daemon had ended."""
        if self._process is not None and self.running:
            self.kill()
        strays = self.strays()
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
        if self.watcher.listening:
            self.watcher.stop()
        return strays

    def strays(self, timeout_s: float = GONE_S) -> list[int]:
        """Processes of this node beside the daemon that still run after `timeout_s`."""
        end = time.monotonic() + timeout_s
        while (left := self.marked()) and time.monotonic() < end:
            psutil.wait_procs(left, timeout=0.1)
        return [process.pid for process in left]

    def marked(self) -> list[psutil.Process]:
        """Living processes with our mark, the daemon left out."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == self._mark
                if ours and process.status() != psutil.STATUS_ZOMBIE and not self._is_daemon(process.pid):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _is_daemon(self, pid: int) -> bool:
        return self.running and pid == self.pid

    def engine_pid(self, *, other_than: int | None = None) -> int:
        """Process id of the engine, once there is one (that is not `other_than`)."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            children = [child.pid for child in psutil.Process(self.pid).children()]
            if fresh := [pid for pid in children if pid != other_than and psutil.pid_exists(pid)]:
                return fresh[-1]
            with self._changed:
                self._changed.wait(0.05)
        raise AssertionError("there is no engine process")

    # what it says ---------------------------------------------------------------------------------------

    def wait_online(self, since: int = 0, timeout_s: float = WAIT_S) -> Heard:
        """Its word on the status topic."""
        return self.watcher.wait_for(
            "/status", lambda h: h.payload == b"online", since=since, timeout_s=timeout_s
        )

    def wait_offline(self, since: int = 0, timeout_s: float = WAIT_S) -> Heard:
        """Its last word, or its last will."""
        return self.watcher.wait_for(
            "/status", lambda h: h.payload == b"offline", since=since, timeout_s=timeout_s
        )

    def wait_info(
        self,
        test: Callable[[Any], object] = lambda info: info["engine"] == "ready",
        *,
        since: int = 0,
        timeout_s: float = WAIT_S,
    ) -> Any:
        """An `info` that passes `test`."""
        return self.watcher.wait_for("/info", lambda h: test(h.json), since=since, timeout_s=timeout_s).json

    def wait_health(
        self, test: Callable[[Any], object] = lambda _: True, *, since: int = 0, timeout_s: float = WAIT_S
    ) -> Any:
        """A `health` that passes `test`."""
        return self.watcher.wait_for("/health", lambda h: test(h.json), since=since, timeout_s=timeout_s).json

    def wait_event(self, name: str, *, since: int = 0, timeout_s: float = WAIT_S) -> Any:
        """A message on the event topic."""
        return self.watcher.wait_for(
            "/event", lambda h: h.json["event"] == name, since=since, timeout_s=timeout_s
        ).json

    def log(self, event: str) -> list[dict[str, Any]]:
        """Log lines of this event, over all its starts."""
        with self._changed:
            return [line for line in self.lines if line["event"] == event]

    def wait_log(
        self,
        event: str,
        test: Callable[[dict[str, Any]], object] = lambda _: True,
        *,
        timeout_s: float = WAIT_S,
    ) -> dict[str, Any]:
        """A log line of this event that passes `test`."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.lines:
                    if line["event"] == event and test(line):
                        return line
                left = end - time.monotonic()
                assert left > 0, f"no {event} in the log within {timeout_s:g} s; last: {self.raw[-5:]}"
                self._changed.wait(left)

    def _read(self, file: IO[bytes]) -> None:
        with file:
            for line in file:
                parsed = _parsed(line)
                with self._changed:
                    self.raw.append(line)
                    if parsed is not None:
                        self.lines.append(parsed)
                    self._changed.notify_all()


class MakeDaemon(Protocol):
    """Makes nodes of a test's own; the fixture `daemon`."""

    def __call__(
        self,
        broker: Mosquitto,
        sections: Sections | None = None,
        *,
        scripted: bool = False,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> DaemonProcess:
        """A node that is not started yet."""


def close_all(made: Iterable[DaemonProcess]) -> None:
    """End nodes: none may have left a process behind, and none may have told of a defect."""
    strays = [pid for process in made for pid in process.close()]
    assert strays == [], "an engine outlived its daemon"
    for process in made:
        tracebacks = [line for line in process.raw if line.startswith(b"Traceback")]
        assert tracebacks == [], b"".join(process.raw[-60:]).decode(errors="replace")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A log line; None for what is none, such as a traceback."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _merged(defaults: dict[str, dict[str, Any]], sections: Sections) -> dict[str, dict[str, Any]]:
    names = [*defaults, *(name for name in sections if name not in defaults)]
    return {name: {**defaults.get(name, {}), **sections.get(name, {})} for name in names}


def _toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of plain values; JSON's strings, numbers, truth values and lists are TOML's too."""
    lines: list[str] = []
    for name, values in sections.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
