"""Who else computes on this machine: engines of edged, and how busy cores are.

Reads /proc without raising; a process that ends meanwhile is left out. proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...core.proc_stat import busy_ticks
from . import files

STAT_BYTES_MAX = 1 << 20
COMMAND_BYTES_MAX = 8192
ENGINE_MODULE = "edged.engine"

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """An engine process of some edged node: its cores, and the CPU time it has used, in seconds."""

    pid: int
    cores: tuple[int, ...]
    cpu_s: float


def engines(proc: Path = _PROC) -> tuple[EngineProcess, ...]:
    """Engine processes on this machine, by process id."""
    found = []
    for pid, folder in files.numbered_processes(proc):
        words = (files.text(folder / "cmdline", COMMAND_BYTES_MAX) or "").split("\0")
        if ENGINE_MODULE not in words or words[words.index(ENGINE_MODULE) - 1] != "-m":
            continue
        cores, used_s = files.allowed_cores(folder), cpu_s(pid, proc)
        if cores and used_s is not None:
            found.append(EngineProcess(pid, cores, used_s))
    return tuple(found)


def cpu_s(pid: int, proc: Path = _PROC) -> float | None:
    """CPU time that a process has used, its threads together; None where it is gone."""
    line = files.text(proc / str(pid) / "stat") or ""
    words = line.rpartition(")")[2].split()  # the command's name, in brackets, may hold anything
    try:
        return (int(words[11]) + int(words[12])) / _TICKS_PER_S
    except (IndexError, ValueError):
        return None


def busy_s(cores: Iterable[int], proc: Path = _PROC) -> float | None:
    """Seconds that these cores were busy since boot, together, stolen time included; None where it is not told."""
    ticks = busy_ticks(files.text(proc / "stat", STAT_BYTES_MAX) or "", cores)
    return None if ticks is None else ticks / _TICKS_PER_S
