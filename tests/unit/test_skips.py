"""The rules of conftest.py about skipped tests, seen from outside: pytest runs on a small file of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PLAIN_SKIP = "import pytest\ndef test_it(): pytest.skip('no such sensor')\n"
FILE_SKIP = "import pytest\npytest.skip('not today', allow_module_level=True)\n"
SOAK = "import pytest\n@pytest.mark.soak\ndef test_it(): pass\n"
SOAK_SKIP = "import pytest\n@pytest.mark.soak\ndef test_it(): pytest.skip('no such sensor')\n"
XFAIL = "import pytest\n@pytest.mark.xfail\ndef test_it(): assert 0\n"


@pytest.mark.parametrize(
    ("text", "ci", "flags", "expected"),
    [
        (PLAIN_SKIP, "", [], (0, "1 skipped")),
        (PLAIN_SKIP, "true", [], (1, "skipped in CI: Skipped: no such sensor")),
        (FILE_SKIP, "true", [], (2, "skipped in CI: Skipped: not today")),
        (SOAK, "true", [], (0, "long; runs with --soak only")),
        (SOAK, "true", ["--soak"], (0, "1 passed")),
        (SOAK_SKIP, "true", ["--soak"], (1, "skipped in CI")),
        (XFAIL, "true", [], (0, "1 xfailed")),
    ],
    ids=["plain", "plain in CI", "whole file", "soak", "soak with flag", "soak that skips itself", "xfail"],
)
def test_skips(tmp_path: Path, text: str, ci: str, flags: list[str], expected: tuple[int, str]) -> None:
    """CI fails on a skip, unless the test lacks the flag that it needs."""
    (tmp_path / "test_small.py").write_text(text)
    options = [
        "-rsx",
        "-c",
        os.devnull,
        "--rootdir",
        str(tmp_path),
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *flags, "test_small.py"],
        env=os.environ | {"CI": ci, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == expected[0], ended.stdout
    assert expected[1] in ended.stdout
