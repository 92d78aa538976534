"""The same disk in another board: four equal Cortex-A72, which have no dotprod, as in a Raspberry Pi 4."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from board_rig import Board

pytestmark = pytest.mark.board


@pytest.fixture
def pi4(installed: Board) -> Iterator[Board]:
    """The installed disk, booted there."""
    installed.order("down")
    with installed.step("the same disk booted as a Pi 4 look-alike (Cortex-A72, no little cores)"):
        installed.order("up", "--keep", "--little", "0", "--cpu", "cortex-a72")
    yield installed
    installed.order("down")


def test_a_pi_4_runs_code_for_it(pi4: Board) -> None:
    """The engine loads the plug-in without dotprod, on this boot, and answers."""
    with pi4.step("Pi 4 look-alike: answers with the code for a Cortex-A72"):
        pi4.asked()
        assert pi4.engine_code() == "armv8.0_1"
        assert "asimddp" not in pi4.ssh("grep -m 1 Features /proc/cpuinfo")
