"""Reads what a board is made of beside its vitals: cooling devices, device clocks, cores and time it may use.

As in the reader, every file that tells nothing usable makes its item absent, and nothing raises. Where things
stand: Linux, Documentation/ABI/testing/sysfs-class-thermal and sysfs-class-devfreq,
Documentation/admin-guide/cgroup-v2.rst; proc(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...core.board import Cooling, Devfreq, Rest
from . import files

CGROUP_LEVELS_MAX = 32

_PROC = Path("/proc")
_FEATURES = re.compile(r"^(?:Features|flags)[ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_CGROUP = re.compile(r"^0::(/[^\n]{0,2000})$", re.MULTILINE)
_QUOTA = re.compile(r"([0-9]{1,12}) ([1-9][0-9]{0,11})\s*", re.ASCII)
_DEVFREQ_ADDRESS = re.compile(r"^[0-9a-f]{4,16}\.", re.ASCII)


def read_rest(sys: Path, proc: Path) -> Rest:
    """Read it all, below the two roots."""
    cpu = sys / "devices/system/cpu"
    return Rest(
        present=files.core_list(files.text(cpu / "present") or files.text(cpu / "possible") or ""),
        allowed=_allowed(sys, proc),
        cpu_quota=cpu_quota(sys, proc),
        features=_features(proc),
        drivers=_drivers(cpu),
        cooling=_cooling(sys),
        devfreq=_devfreq(sys),
    )


def _features(proc: Path) -> frozenset[str]:
    """Instruction sets that every core names: llama.cpp's threads may run on any of them."""
    lines = _FEATURES.findall(files.text(proc / "cpuinfo", files.CPUINFO_BYTES_MAX) or "")
    sets = [frozenset(line.split()) for line in lines]
    return frozenset.intersection(*sets) if sets else frozenset()


def _drivers(cpu: Path) -> dict[int, str]:
    found = {}
    for number, directory in files.numbered(cpu / "cpufreq", "policy"):
        if driver := files.label(directory / "scaling_driver"):
            found[number] = driver
    return found


def _cooling(sys: Path) -> tuple[Cooling, ...]:
    found = []
    for number, directory in files.numbered(sys / "class/thermal", "cooling_device"):
        state, state_max = (files.integer(directory / name) for name in ("cur_state", "max_state"))
        name = files.label(directory / "type")
        if name is None and state is None:
            continue
        found.append(
            Cooling(
                name or f"cooling_device{number}",
                state if state is not None and state >= 0 else None,
                state_max if state_max is not None and state_max >= 0 else None,
            )
        )
    return tuple(found)


def _devfreq(sys: Path) -> tuple[Devfreq, ...]:
    """Device clocks; devfreq writes hertz where cpufreq writes kilohertz, and names begin with an address."""
    try:
        entries = sorted((sys / "class/devfreq").iterdir())
    except OSError:
        return ()
    found = []
    for entry in entries:
        name = files.printable(_DEVFREQ_ADDRESS.sub("", entry.name))
        clock = Devfreq(
            name or "device",
            files.positive(entry / "cur_freq"),
            files.positive(entry / "max_freq"),
            files.label(entry / "governor"),
        )
        if clock.now_hz or clock.max_hz:
            found.append(clock)
    return tuple(found)


def _allowed(sys: Path, proc: Path) -> tuple[int, ...]:
    """Cores this process may use: of the machine itself the kernel's answer, of a fixture tree its files.

    The kernel cuts a cgroup's cpuset out of every affinity mask in it, so `Cpus_allowed_list` has both; the
    cgroup's own file counts where the first is missing.
    """
    if proc == _PROC:
        return tuple(sorted(os.sched_getaffinity(0)))
    if listed := files.allowed_cores(proc / "self"):
        return listed
    for folder in _cgroups(sys, proc):
        if cores := files.core_list(files.text(folder / "cpuset.cpus.effective") or ""):
            return cores
    return ()


def cpu_quota(sys: Path, proc: Path) -> float | None:
    """The tightest `cpu.max` of the cgroup and those above it, in cores."""
    told = (_QUOTA.fullmatch(files.text(folder / "cpu.max") or "") for folder in _cgroups(sys, proc))
    return min((int(match[1]) / int(match[2]) for match in told if match), default=None)


def _cgroups(sys: Path, proc: Path) -> list[Path]:
    """This process's cgroup (version 2) and those above it, innermost first."""
    match = _CGROUP.search(files.text(proc / "self/cgroup") or "")
    if match is None:
        return []
    names = [name for name in match[1].split("/") if name][:CGROUP_LEVELS_MAX]
    if ".." in names:  # a cgroup outside of our namespace: its files cannot be seen from here
        return []
    root = sys / "fs/cgroup"
    return [root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]
