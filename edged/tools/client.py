"""The daemon's handle on the process of the tools: a thread that runs one call after the other, each with a limit.

The thread alone talks to the process. A call that takes too long, or ends the process, is told to the model as an
error; the process is ended, with all that it has started, and the next call starts another one. A call that nobody
waits for any more is not made: where a tool is slow, those of questions that have ended would pile up before it.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import structlog

from edged.core.tools import Call, Tool
from edged.engine import exit_code
from edged.engine.channel import Channel
from edged.errors import EngineError, NotNowError, SettingsError
from edged.tools.messages import Ask, Frame, Loaded, Told

START_S = 30.0
"""Longest time for the import of the tools; a board under load takes seconds."""
EXIT_S = 0.5
"""Longest time from a process's last word, the end of its socket, to its exit code."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ToolsRan:
    """The calls of one round are done: a text for each, in their order. `run` names the round to its owner."""

    number: int
    run: int
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Round:
    number: int
    run: int
    calls: tuple[Call, ...]
    node: str
    vitals: dict[str, Any]


class Toolbox:
    """The node's own tools.

    Args:
        names: which are switched on.
        limit_s: longest time of one call.
        emit: takes `ToolsRan`, from our thread.

    Attributes:
        tools: what they are, by name; known after `start`.
    """

    def __init__(self, names: Sequence[str], limit_s: float, emit: Callable[[ToolsRan], None]) -> None:
        self._names = tuple(names)
        self._limit_s = limit_s
        self._emit = emit
        self._line: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._rounds: dict[int, _Round] = {}  # those that somebody waits for
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.tools: dict[str, Tool] = {}

    def start(self) -> None:
        """Load the tools, if any is switched on.

        Raises:
            SettingsError: one is not installed, or does not load.
            NotNowError: they do not load in time.
        """
        if not self._names:
            return
        loaded = self._begin()
        if loaded is None:
            why = self._why_not_loaded()
            self._end()
            raise NotNowError(f"tools.enabled: {why}")
        if loaded.problem:
            self._end()
            raise SettingsError(f"tools.enabled: {loaded.problem}")
        self.tools = {tool.name: tool for tool in loaded.tools}
        self._thread = threading.Thread(target=self._serve, name="tools", daemon=True)
        self._thread.start()

    def run(self, number: int, run: int, calls: tuple[Call, ...], node: str, vitals: dict[str, Any]) -> None:
        """Run some calls; `ToolsRan` follows, unless they are given up."""
        self._rounds[run] = _Round(number, run, calls, node, vitals)
        self._line.put(run)

    def give_up(self, run: int) -> None:
        """Nobody waits for these calls any more: those that have not begun are not made."""
        self._rounds.pop(run, None)

    def stop(self, timeout_s: float) -> None:
        """End the process, whatever it does, and the thread."""
        self._rounds.clear()
        self._line.put(None)
        process = self._process
        if process is not None:
            _kill(process)
        if self._thread is not None:
            self._thread.join(timeout_s)
        if process is not None:
            with suppress(subprocess.TimeoutExpired):  # one that waits for a disk that hangs
                process.wait(timeout_s)

    def _begin(self) -> Loaded | None:
        """Start the process; None where it does not load the tools in time."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edged.tools", str(theirs.fileno()), *self._names],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours
        told = self._receive(START_S)
        return told if isinstance(told, Loaded) else None

    def _receive(self, limit_s: float) -> Frame | None:
        """The process's next word; None when it says none in time, or is gone."""
        if self._socket is None:
            return None
        self._socket.settimeout(limit_s)
        channel: Channel[Frame, Frame] = Channel(self._socket, cast("Any", Loaded | Told))
        try:
            return next(iter(channel.receive()), None)
        except EngineError:
            return None

    def _end(self) -> None:
        if self._process is not None:
            _kill(self._process)
            self._process.wait()
            self._process = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # our thread -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while (run := self._line.get()) is not None:
            if (work := self._rounds.get(run)) is None:
                continue
            results = [self._call(work, call) for call in work.calls if run in self._rounds]
            if self._rounds.pop(run, None) is not None:
                self._emit(ToolsRan(work.number, run, tuple(results)))
        self._end()

    def _call(self, work: _Round, call: Call) -> str:
        begun = time.monotonic()
        told = self._ask(Ask(call.name, call.arguments, work.node, work.vitals))
        log.info(
            "tool_ran", tool=call.name, failed=told.failed, duration_s=round(time.monotonic() - begun, 3)
        )
        return f"error: {told.text}" if told.failed else told.text

    def _ask(self, ask: Ask) -> Told:
        if self._process is None or self._process.poll() is not None:
            self._end()
            try:
                loaded = self._begin()
                problem = self._why_not_loaded() if loaded is None else loaded.problem
            except OSError as error:  # no memory, no file descriptor left: that passes
                problem = f"the process cannot be started: {error.strerror or error}"
            if problem:
                self._end()
                log.error("tools_failed", reason=problem)
                return Told("the node's tools cannot be started now", failed=True)
        told = self._answer(ask)
        if isinstance(told, Told):
            return told
        text = self._why_none(ask.name)
        self._end()
        return Told(text, failed=True)

    def _answer(self, ask: Ask) -> Frame | None:
        if self._socket is None:
            return None
        channel: Channel[Frame, Frame] = Channel(self._socket, cast("Any", Loaded | Told))
        try:
            channel.send(ask)
        except OSError:
            return None
        return self._receive(self._limit_s)

    def _why_none(self, name: str) -> str:
        """Why there is no result: the tool ended its process, as `os._exit` does, or takes too long."""
        how = self._how_ended()
        if how is None:
            return f"{name} gave no result within {self._limit_s:g} s"
        return f"{name} gave no result but ended its process with {how}; the next call gets a new process"

    def _why_not_loaded(self) -> str:
        """Why there is no word of what they are: an import ended the process, or takes too long."""
        how = self._how_ended()
        if how is None:
            return f"the tools did not load within {START_S:g} s"
        return f"the tools ended their process with {how} as they were loaded"

    def _how_ended(self) -> str | None:
        """How the process ended, in words; None while it lives."""
        try:
            code = self._process.wait(EXIT_S) if self._process is not None else None
        except subprocess.TimeoutExpired:
            return None
        return None if code is None else exit_code.words(code)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process with all that its tools have started: it leads a group of its own."""
    if process.returncode is None:  # else its number may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
