"""Reads the small files of sysfs and procfs, bounded and without raising.

Here live the ways in which such a file can be broken; which file holds what is the reader's. Any thread.
Every function returns None (or nothing) for a file that is missing, unreadable, too long or not what was
asked for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...core.topology import parse_cores

ATTRIBUTE_BYTES_MAX = 4096
"""A sysfs attribute is at most a page; /proc/meminfo stays below 2 KiB."""
CPUINFO_BYTES_MAX = 1 << 20
"""An x86 core takes about 1.5 KiB of /proc/cpuinfo."""
STATUS_BYTES_MAX = 16 * 1024
NAME_CHARACTERS_MAX = 128

_ALLOWED = re.compile(r"^Cpus_allowed_list:\s*([0-9,-]{1,4000})\s*$", re.MULTILINE | re.ASCII)
_PROCESS = re.compile(r"[0-9]{1,10}", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_CPU_COOLING = re.compile(r"processor|.*cpufreq.*", re.IGNORECASE)
"""`type` of cooling devices that slow a CPU down: ACPI's `Processor`, the kernel's `cpufreq-cpu0` and older
`thermal-cpufreq-0`. Fans are cooling devices too."""
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", re.ASCII)


def text(path: Path, limit: int = ATTRIBUTE_BYTES_MAX) -> str | None:
    """Return the whole file as text, or None where it is no UTF-8 or longer than `limit` bytes."""
    content = _content(path, limit)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def printable(name: str) -> str | None:
    """Return a name fit for logs and payloads: one printable line of 1 to 128 characters."""
    name = name.rstrip("\0").strip()  # device-tree strings end in NUL
    return name if name.isprintable() and 0 < len(name) <= NAME_CHARACTERS_MAX else None


def label(path: Path) -> str | None:
    """Return the name that a file holds."""
    return printable(text(path) or "")


def integer(path: Path) -> int | None:
    """Return the integer that a file holds, of 15 digits at most."""
    word = (text(path) or "").strip()
    return int(word) if _INTEGER.fullmatch(word) else None


def positive(path: Path) -> int | None:
    """Return the integer that a file holds if it is above 0."""
    number = integer(path)
    return number if number is not None and number > 0 else None


def hertz(path: Path) -> int | None:
    """Return a clock; cpufreq writes kilohertz."""
    kilohertz = positive(path)
    return None if kilohertz is None else kilohertz * 1000


def celsius(path: Path) -> float | None:
    """Return a temperature; the thermal class writes thousandths of a degree."""
    millidegrees = integer(path)
    return None if millidegrees is None else millidegrees / 1000


def first_decimal(path: Path) -> float | None:
    """Return the first word of a file if it is a number, 0 or more."""
    word = next(iter((text(path) or "").split()), "")
    return float(word) if _DECIMAL.fullmatch(word) else None


def core_list(listed: str) -> tuple[int, ...]:
    """Return the cores of a kernel list, `0-3,6` or `0 1 2`; none where it is no such list."""
    try:
        return parse_cores(",".join(listed.split()))
    except ValueError:
        return ()


def allowed_cores(process: Path) -> tuple[int, ...]:
    """Return the cores that a process may use, by its folder in procfs; none where that is not told."""
    match = _ALLOWED.search(text(process / "status", STATUS_BYTES_MAX) or "")
    return core_list(match[1]) if match else ()


def numbered(directory: Path, prefix: str, suffix: str = "") -> list[tuple[int, Path]]:
    """List the entries `prefix<number>suffix` by number; nothing where there is no such directory."""
    pattern = re.compile(re.escape(prefix) + r"([0-9]{1,4})" + re.escape(suffix), re.ASCII)
    try:
        entries = list(directory.iterdir())
    except OSError:
        return []
    return sorted((int(match[1]), entry) for entry in entries if (match := pattern.fullmatch(entry.name)))


def numbered_processes(proc: Path) -> list[tuple[int, Path]]:
    """List the processes of procfs by id."""
    try:
        entries = list(proc.iterdir())
    except OSError:
        return []
    return sorted((int(entry.name), entry) for entry in entries if _PROCESS.fullmatch(entry.name))


def cpu_cooling(sys: Path) -> list[int]:
    """States of the kernel's cooling devices that slow cores down; above 0 one does."""
    states = []
    for _, directory in numbered(sys / "class/thermal", "cooling_device"):
        # The type first: a fan's state may stand behind a slow bus, and the dispatcher asks here too.
        if not _CPU_COOLING.fullmatch(label(directory / "type") or ""):
            continue
        state = integer(directory / "cur_state")
        if state is not None:
            states.append(state)
    return states


def _content(path: Path, limit: int) -> bytes | None:
    """Read by file descriptor: EAGAIN, a sensor's "not ready", is an empty read to file objects.

    Non-blocking: something else than a plain file in its place must not hold the caller up.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    content = bytearray()
    try:
        while len(content) <= limit and (piece := os.read(descriptor, limit + 1 - len(content))):
            content += piece
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return bytes(content) if len(content) <= limit else None
