"""With engine.lock_memory the weights stay in memory, or the log says what to change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import MakeDevice

TRY = "from edged.engine.locked import lock_memory; print(lock_memory(), end='')"
UNPRIVILEGED = (
    *("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--"),
    *("prlimit", "--memlock=65536:65536", "--"),
)
"""What an account without rights has: 64 KiB, prlimit(1)."""


def locked(process: int) -> int:
    """Bytes of a process that may not be swapped out: proc(5), of all its mappings the lines `Locked`."""
    smaps = Path(f"/proc/{process}/smaps").read_text()
    return 1024 * sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Locked:"))


def node(daemon: MakeDaemon, broker: Mosquitto, model: Path, wrapper: tuple[str, ...] = ()) -> DaemonProcess:
    """A node on the small model that is to lock it."""
    sections: dict[str, dict[str, Any]] = {
        "model": {"path": str(model)},
        "engine": {"lock_memory": True, "context_max": 512, "context_min": 256},
    }
    return daemon(broker, sections, wrapper=wrapper).start()


def test_the_weights_are_locked(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> None:
    """All of them, also those that llama.cpp has copied to suit the CPU; where this account may not, it is told."""
    running = node(daemon, broker, small_model)
    told = [line for line in running.lines if line["event"] == "memory_not_locked"]
    ours = subprocess.run([sys.executable, "-c", TRY], check=True, capture_output=True, text=True).stdout
    assert bool(told) == bool(ours), ours
    if not told:
        assert locked(running.engine_pid()) > small_model.stat().st_size


def test_an_account_that_may_not(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path
) -> None:
    """It answers, and the log names what to change."""
    running = node(daemon, broker, small_model, UNPRIVILEGED)
    asking = device(broker, "d1")
    assert asking.answer(asking.ask("What is the capital of France?", max_tokens=4)).last["type"] == "done"
    (told,) = (line for line in running.lines if line["event"] == "memory_not_locked")
    assert told["severity"] == "warning"
    assert "LimitMEMLOCK=infinity" in told["reason"]
