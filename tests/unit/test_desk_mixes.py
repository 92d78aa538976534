"""Random mixes of all that can happen to questions in the daemon: each ends once, as it would alone, and is told.

The seed is the test's id: `-k "mix[7]"` runs one mix again. `--soak` runs EDGED_SOAK times as many.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from desk_mix import Mix
from faults.record import soak_factor
from mix_checks import check_all

MIXES = 200


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each seed."""
    metafunc.parametrize("seed", range(MIXES * soak_factor(soak=metafunc.config.getoption("--soak"))))


def test_mix(seed: int, tmp_path: Path) -> None:
    """Copies, cancels, deadlines, sessions, tools, crashes, kills, a full disk, a larger server: one sound end."""
    mix = Mix(seed, tmp_path / "journal.db")
    try:
        mix.run()
        check_all(mix)
    finally:
        mix.journal.kill()
