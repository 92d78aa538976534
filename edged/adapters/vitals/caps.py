"""Reads and writes the highest clocks that cores may have: `scaling_max_freq` of cpufreq's policies.

The only thing that edged ever writes to a board. What to write is `edged.core.heat.clocks`; whose right it is to
write, the unit's (`systemd/edged.service`). Runs in the dispatcher thread; only the claim outlives a call.

Where things stand: Linux, Documentation/admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import fcntl
import os
import stat
import weakref
from collections.abc import Collection
from pathlib import Path

from ...core.heat.clocks import Found
from . import files

PLAUSIBLE_HZ = (10_000_000, 20_000_000_000)
OFFERED_MAX = 64

_SYS = Path("/sys")


class Caps:
    """The policies below a root.

    Args:
        sys: where sysfs is mounted, or a tree that looks like it.
    """

    def __init__(self, sys: Path = _SYS) -> None:
        self._sys = sys
        self._folder = sys / "devices/system/cpu/cpufreq"
        self._claimed = False

    def look(self, cores: Collection[int]) -> tuple[Found, ...]:
        """The policies of these cores; what is off-line, or tells its limits in no usable way, is left out."""
        held = any(state > 0 for state in files.cpu_cooling(self._sys))
        found = []
        for _, directory in files.numbered(self._folder, "policy"):
            listed = files.core_list(files.text(directory / "affected_cpus") or "")
            cap_hz = _hertz(directory / "scaling_max_freq")
            highest_hz = _hertz(directory / "cpuinfo_max_freq")
            if not set(listed) & set(cores) or cap_hz is None or highest_hz is None:
                continue
            lowest_hz = min(_hertz(directory / "cpuinfo_min_freq") or highest_hz, highest_hz)
            found.append(
                Found(
                    name=directory.name,
                    cores=listed,
                    cap_hz=cap_hz,
                    lowest_hz=lowest_hz,
                    highest_hz=highest_hz,
                    offered_hz=_offered(directory / "scaling_available_frequencies", lowest_hz, highest_hz),
                    writable=os.access(directory / "scaling_max_freq", os.W_OK),
                    held=held,
                )
            )
        return tuple(found)

    def claim(self) -> bool:
        """Whether the caps are this object's to lower: False while another process has claimed them.

        Two daemons on one board would each take the other's caps for their owner's, and leave the last ones behind.
        The claim is a lock on the folder, which ends with this object or its process, however that ends.
        """
        if self._claimed:
            return True
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            pass  # a sandbox without such locks
        weakref.finalize(self, os.close, descriptor)
        self._claimed = True
        return True

    def there(self, name: str) -> bool:
        """Whether the kernel has a policy of this name; it goes with the cores that are switched off."""
        return (self._folder / name / "scaling_max_freq").exists()

    def given(self, name: str) -> bool:
        """Whether a group may write a policy's cap, as the unit has it for the service while that runs."""
        try:
            return bool((self._folder / name / "scaling_max_freq").stat().st_mode & stat.S_IWGRP)
        except OSError:
            return False

    def write(self, name: str, hz: int) -> str:
        """Set a policy's cap; returns why that failed, in words, or nothing."""
        path = self._folder / name / "scaling_max_freq"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_TRUNC)
            try:
                os.write(descriptor, f"{hz // 1000}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            return f"{path}: {error.strerror}"
        return ""

    def right(self, name: str) -> str:
        """The command that lets this account write a policy's cap."""
        return f"sudo chown {os.geteuid()} {self._folder / name / 'scaling_max_freq'}"


def _hertz(path: Path) -> int | None:
    hz = files.hertz(path)
    return hz if hz is not None and PLAUSIBLE_HZ[0] <= hz <= PLAUSIBLE_HZ[1] else None


def _offered(path: Path, lowest_hz: int, highest_hz: int) -> tuple[int, ...]:
    """Clocks that the kernel lists, ascending; those outside of the hardware's own limits are no clocks."""
    words = (files.text(path) or "").split()
    listed = {int(word) * 1000 for word in words if word.isascii() and word.isdigit() and len(word) <= 9}  # noqa: PLR2004 - digits of kHz
    return tuple(sorted(hz for hz in listed if lowest_hz <= hz <= highest_hz))[-OFFERED_MAX:]
