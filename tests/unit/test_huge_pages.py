"""Huge pages: where the engine asks for them, where there is a choice, what is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.core.huge_pages import Measured, wanted
from edged.engine.environment import TUNABLES, environment, stands_in_huge_pages

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


@pytest.mark.parametrize(
    ("mode", "present", "choice"),
    [
        ("always [madvise] never\n", {}, True),
        ("always [madvise] never\n", {TUNABLES: "glibc.malloc.hugetlb=0"}, False),
        ("[always] madvise never\n", {TUNABLES: "glibc.malloc.hugetlb=0"}, True),
        ("always madvise [never]\n", {}, False),
        ("garbage", {}, False),
    ],
)
def test_where_there_is_a_choice(tmp_path: Path, mode: str, present: dict[str, str], choice: bool) -> None:  # noqa: FBT001 - a table
    """Only where the engine would have them is it worth while to load a model without."""
    sysfs = tree(tmp_path, mode, "2097152\n")
    assert stands_in_huge_pages(environment(present, sysfs), sysfs) is choice


@pytest.mark.parametrize(
    ("setting", "rates", "taken"),
    [
        ("auto", None, True),
        ("auto", ((10.0, 10.0), (12.0, 12.2)), False),
        ("auto", ((10.0, 11.5, 10.2), (11.4, 12.0, 11.3)), False),  # it grew faster meanwhile
        ("auto", ((10.0, 10.2), (10.3, 10.4)), True),  # as much differs between two processes
        ("auto", ((12.0,), (10.0,)), True),
        ("auto", ((10.0, 2.0, 3.0), (9.0, 9.5, 4.0)), True),  # somebody else computed now and then
        ("on", ((10.0,), (12.0,)), True),
        ("off", ((12.0,), (10.0,)), False),
        ("off", None, False),
    ],
)
def test_what_is_chosen(setting: str, rates: tuple[tuple[float, ...], ...] | None, taken: bool) -> None:  # noqa: FBT001 - a table
    """As set, else as measured where that is clear, else in huge pages."""
    assert wanted(setting, None if rates is None else Measured(*rates)) is taken


def _huge_kib(code: str) -> int:
    """Of a process that fills 64 MiB, what stands in huge pages."""
    code += (
        "data = bytearray(b'x') * (64 << 20); print(next(int(line.split()[1]) for line in "
        "open('/proc/self/smaps_rollup') if line.startswith('AnonHugePages')))"
    )
    given = environment(os.environ)
    ran = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, check=True, text=True)
    return int(ran.stdout)


@pytest.mark.skipif("[madvise]" not in MODE, reason="this kernel gives huge pages unasked, or none")
def test_the_kernel_gives_them() -> None:
    """A large block of a process with that environment stands in huge pages."""
    if stands_in_huge_pages(environment(os.environ), Path("/sys")):
        assert _huge_kib("") > 0


def test_the_kernel_gives_none_to_whoever_says_no() -> None:
    """Whether they come on request or unasked."""
    assert _huge_kib("from edged.child import do_without_huge_pages; do_without_huge_pages(); ") == 0
