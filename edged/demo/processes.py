"""Starts and ends the demo's processes, each by its own id, each with a log of its own. Runs in the main thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edged.errors import EdgedError

NODE = "demo"
CONFIG = Path(__file__).parents[2] / "configs" / "demo.toml"
"""There in a checkout; an installed package does without, for all that matters stands in the environment below."""
BROKER_START_S = 15.0
STOP_S = 15.0
"""The daemon gives running answers 5 s and ends within 10."""
TAIL_LINES = 12


class DemoError(EdgedError):
    """A part of the demo did not come up or went down; the text says which, with the end of its log."""


@dataclass(frozen=True)
class Part:
    """A child process.

    Attributes:
        name: for people.
        log: file with all it says.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """See that it lives.

        Raises:
            DemoError: it does not.
        """
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"the {self.name} ended with {code}; its log ends so:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (empty)"

    def stop(self) -> None:
        """End it in good order, by force if it takes too long; no matter if it has ended."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A broker on a free loopback port, which is yielded."""
    for _attempt in range(3):  # another process may take a free port before we do
        port = _free_port()
        part = _start("broker", ["edged.demo.broker", str(folder), str(port)], folder, dict(os.environ))
        try:
            if _listens(part, port):
                yield port
                return
        finally:
            part.stop()
    raise DemoError(f"the broker did not start; its log ends so:\n{part.tail()}")


@contextmanager
def daemon(folder: Path, port: int, model: Path) -> Iterator[Part]:
    """The daemon, started but maybe not ready."""
    config = ["--config", str(CONFIG)] if CONFIG.is_file() else []
    environment = environment_of(os.environ, folder, port, model)
    part = _start("daemon", ["edged.demo.child", "run", *config], folder, environment)
    try:
        yield part
    finally:
        part.stop()


def environment_of(
    own: dict[str, str] | os._Environ[str], folder: Path, port: int, model: Path
) -> dict[str, str]:
    """The daemon's environment; of the user's settings those for the engine and the places of the board count."""
    kept = ("EDGED_ENGINE__", "EDGED_PATHS__")
    others = {
        name: value for name, value in own.items() if not name.startswith("EDGED_") or name.startswith(kept)
    }
    # Defaults first, then the user's, then what must be as it is.
    return {
        "EDGED_ENGINE__DELTA_INTERVAL_MS": "20",
        "EDGED_HEALTH__INTERVAL_S": "2",
        "EDGED_MODEL__SYSTEM_PROMPT": "Answer in one short sentence.",  # what a model this small does best
        **others,
        "EDGED_NODE__ID": NODE,
        "EDGED_MQTT__HOST": "127.0.0.1",
        "EDGED_MQTT__PORT": str(port),
        "EDGED_MODEL__PATH": str(model),
        "EDGED_MODEL__NAME": "SmolLM2-135M-Instruct",
        "EDGED_LOG__LEVEL": "info",
        "EDGED_LOG__FORMAT": "json",
        "EDGED_PATHS__STATE": str(folder),
    }


def _start(name: str, module: list[str], folder: Path, environment: dict[str, str]) -> Part:
    log = folder / f"{name}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is the demo's: it cancels an answer
        )
    return Part(name, process, log)


def _listens(part: Part, port: int) -> bool:
    def accepts() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
        except OSError:
            return False
        return True

    return (
        until(lambda: part.process.poll() is not None or accepts(), BROKER_START_S)
        and part.process.poll() is None
    )


def until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Look ten times a second whether it is true; False if it is not in time."""
    end_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.1)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
