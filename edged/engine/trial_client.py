"""The handle on a process that times a model: start it, ask one thing after the other, end it.

For `edged calibrate` and `edged bench`; blocks the thread that asks. Never imports llama.cpp.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

from edged.engine import exit_code
from edged.engine.channel import Channel
from edged.engine.environment import environment
from edged.engine.trial_messages import (
    Describe,
    Failed,
    Loaded,
    LoadTrial,
    Ran,
    ReadMemory,
    RunPasses,
    TrialOrder,
    TrialReport,
)
from edged.errors import EngineError

COMMAND = (sys.executable, "-m", "edged.engine.trial_process")
END_S = 5.0


class Trials:
    """A process with one model. Use it in a `with` statement.

    Args:
        setup: what to load; `Describe` loads no model.

    Raises:
        EngineError: the model cannot be used, or the process broke; from every method too.
    """

    def __init__(self, setup: LoadTrial | Describe, command: Sequence[str] = COMMAND) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=environment(os.environ),
            )
        self._channel: Channel[Any, Any] = Channel(ours, cast("Any", TrialReport))
        self._reports: Iterator[Any] = self._channel.receive()
        try:
            report = self._ask(setup)
        except BaseException:
            self.close()
            raise
        if not isinstance(report, Loaded):
            self.close()
            raise EngineError("the process spoke nonsense")
        self.loaded = report

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def passes(self, order: RunPasses) -> Ran:
        """Time tokens."""
        return self._timed(order)

    def memory(self, order: ReadMemory) -> Ran:
        """Time reading of memory."""
        return self._timed(order)

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._process.poll() is None:
            self._process.kill()  # it may be deep inside a trial
        self.close()

    def _timed(self, order: TrialOrder) -> Ran:
        report = self._ask(order)
        if not isinstance(report, Ran) or report.amount <= 0 or report.seconds <= 0:
            raise EngineError("the process spoke nonsense")
        return report

    def _ask(self, order: TrialOrder) -> object:
        try:
            self._channel.send(order)
        except OSError as error:
            raise EngineError(self._how_it_ended()) from error
        report = next(self._reports, None)
        if report is None:
            raise EngineError(self._how_it_ended())
        if isinstance(report, Failed):
            raise EngineError(report.reason)
        return report

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return "the measuring process closed its line"
        return f"the measuring process ended with {exit_code.words(code)}"


def used_sets(system_info: str) -> tuple[str, ...]:
    """The instruction sets that llama.cpp says it uses: `CPU : NEON = 1 | SVE = 0 | DOTPROD = 1 |`."""
    parts = [part.rpartition(":")[2].split("=") for part in system_info.split("|")]
    return tuple(part[0].strip() for part in parts if len(part) == 2 and part[1].strip() == "1")  # noqa: PLR2004 - a pair


def describe() -> Loaded:
    """What this build of llama.cpp uses of this processor, and of GPUs.

    Raises:
        EngineError: it cannot be loaded; `SIGILL` in the text where the processor lacks what it wants.
    """
    with Trials(Describe()) as trials:
        return trials.loaded
