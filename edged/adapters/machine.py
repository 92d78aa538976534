"""The machine around the node, for `edged doctor`: clock, disk, systemd's view of the service.

Looks only, but for a file of one byte in the state folder. Nothing raises: what cannot be told is absent.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from edged.core.checks.node import Folder, Unit

SERVICE = "edged.service"
SYSTEMD_S = 10.0

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex has 208 on 64-bit machines
_PROPERTIES = (
    "LoadState,ActiveState,SubState,NRestarts,NeedDaemonReload,FragmentPath,DropInPaths,MainPID"
    ",PrivateDevices,UnitFileState"
)
_MEMORY = {"tmpfs", "ramfs"}
_EXPOSURE = re.compile(r"exposure level for \S+: ([0-9.]+)")


def clock_synchronised() -> bool | None:
    """What the kernel knows of its clock; a time daemon of any kind tells it."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def folder(path: Path) -> Folder:
    """The state folder, or the place where it would be."""
    try:
        exists = path.is_dir() or os.path.lexists(path)  # a file, or a link to a disk that is not mounted
    except PermissionError:
        return Folder(str(path), exists=True, writable=False, free_bytes=None, closed=True)
    if not exists:
        return Folder(str(path), exists=False, writable=False, free_bytes=None)
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as file:
            file.write(b"1")
            file.flush()
        writable = True
    except OSError:
        writable = False
    try:
        free: int | None = shutil.disk_usage(path).free
    except OSError:
        free = None
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace")
    except OSError:
        mounts = ""
    gone = in_memory(path.resolve(), mounts)
    return Folder(str(path), exists=True, writable=writable, free_bytes=free, in_memory=gone)


def in_memory(path: Path, mounts: str) -> bool:
    """Whether what is written below an absolute path is in memory alone; `mounts` as in /proc/self/mounts.

    An overlay is where its upper layer is. Where that one is not to be seen (a container's), False.
    """
    kind, options = _mounted(path, mounts)
    if kind == "overlay":
        upper = re.search(r"(?:^|,)upperdir=([^,]+)", options)
        kind, _ = ("", "") if upper is None else _mounted(Path(upper[1]), mounts)
    return kind in _MEMORY


def _mounted(path: Path, mounts: str) -> tuple[str, str]:
    """Type and options of the file system that a path stands on: the innermost, of several the last one."""
    found = [(at, kind, options) for _, at, kind, options, *_ in map(str.split, mounts.splitlines())]
    above = [one for one in found if path.is_relative_to(one[0].encode().decode("unicode_escape"))]
    _, kind, options = max(reversed(above), key=lambda one: len(one[0]), default=("", "", ""))
    return kind, options


def journal_holder(state: Path) -> tuple[int | None, bool]:
    """The process that has the journal in this folder open, and whether there are some we may not look into."""
    try:
        journal = (state / "journal.db").stat()
    except PermissionError:
        return None, True
    except OSError:
        return None, False
    unsure = False
    for process in Path("/proc").glob("[0-9]*"):
        try:
            descriptors = list((process / "fd").iterdir())
        except PermissionError:
            unsure = True
            continue
        except OSError:
            continue  # it has just ended
        for descriptor in descriptors:
            try:
                if os.path.samestat(journal, descriptor.stat()):
                    return int(process.name), False
            except OSError:
                continue
    return None, unsure


def unit() -> Unit | None:
    """The service as systemd knows it; None where systemd does not run."""
    if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
        return None
    shown = _output("systemctl", "show", SERVICE, f"--property={_PROPERTIES}")
    if shown is None:
        return None
    properties = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    exposure = None
    if properties.get("LoadState") == "loaded":
        match = _EXPOSURE.search(_output("systemd-analyze", "security", "--no-pager", SERVICE) or "")
        exposure = float(match[1]) if match else None
    return Unit(properties, exposure)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=SYSTEMD_S,
            check=False,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.stdout else None
