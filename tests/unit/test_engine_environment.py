"""The engine asks for huge pages where the kernel gives them on request, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.engine.environment import TUNABLES, environment

ASKED = "glibc.malloc.hugetlb=1"
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MODE = SYSTEM.read_text(encoding="ascii") if SYSTEM.exists() else ""


def tree(path: Path, mode: str, size: str) -> Path:
    """A sysfs with these settings."""
    folder = path / "kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text(mode, encoding="ascii")
    (folder / "hpage_pmd_size").write_text(size, encoding="ascii")
    return path


@pytest.mark.parametrize(
    ("mode", "size", "asks"),
    [
        ("always [madvise] never\n", "2097152\n", True),
        ("always [madvise] never\n", "33554432\n", False),
        ("[always] madvise never\n", "2097152\n", False),
        ("always madvise [never]\n", "2097152\n", False),
        ("always [madvise] never\n", "garbage\n", False),
    ],
)
def test_where_it_asks(tmp_path: Path, mode: str, size: str, asks: bool) -> None:  # noqa: FBT001 - a table
    """Not where they come unasked, never come, or are so large that the heap would swell."""
    assert environment({}, tree(tmp_path, mode, size)).get(TUNABLES) == (ASKED if asks else None)


def test_a_kernel_without_them(tmp_path: Path) -> None:
    """Nothing is asked for."""
    assert TUNABLES not in environment({}, tmp_path)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("glibc.malloc.check=0", f"glibc.malloc.check=0:{ASKED}"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_what_the_operator_says_stays(tmp_path: Path, present: str, expected: str) -> None:
    """Other tunables are kept, and whoever switches huge pages off has none."""
    sysfs = tree(tmp_path, "always [madvise] never\n", "2097152\n")
    assert environment({TUNABLES: present}, sysfs)[TUNABLES] == expected


@pytest.mark.skipif("[madvise]" not in MODE, reason="this kernel gives huge pages unasked, or none")
def test_the_kernel_gives_them() -> None:
    """A large block of a process with that environment stands in huge pages."""
    code = (
        "data = bytearray(b'x') * (64 << 20); print(next(int(line.split()[1]) for line in "
        "open('/proc/self/smaps_rollup') if line.startswith('AnonHugePages')))"
    )
    given = environment(os.environ)
    ran = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, check=True, text=True)
    if TUNABLES in given:
        assert int(ran.stdout) > 0
