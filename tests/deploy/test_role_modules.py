"""The role's own modules on made-up boards and against servers that do not do as they should."""

from __future__ import annotations

from pathlib import Path

import boards
import pytest
from ansible_rig import module
from boards import tree

# which boards may be touched ------------------------------------------------------------------------------------


def hot(folder: Path, root: Path) -> list[str]:
    """What speaks against a board for its heat."""
    told: list[str] = module(
        folder, "edged_board", home=str(folder / "opt"), model="small.gguf", sys=str(root / "sys")
    )["hot"]
    return told


def rock_with_a_fan(root: Path) -> Path:
    """A ROCK 5B whose fan starts at 55 C (mainline's rk3588-rock-5b.dts, trips package_fan0 and package_fan1)."""
    boards.rk3588_mainline(root)
    fan: tree.Trips = [("critical", 115000, 0), ("active", 55000, 2000), ("active", 65000, 2000)]
    tree.zone(root, 0, "package-thermal", 52350, fan)
    return root


@pytest.mark.parametrize(
    "build", [boards.pi4, boards.pi5, boards.rk3588_mainline, boards.rk3588_vendor, rock_with_a_fan]
)
def test_a_cool_board_is_not_too_hot(tmp_path: Path, build: tree.Builder) -> None:
    """Also where a fan starts, or turns, far below where the board brakes."""
    assert hot(tmp_path, build(tmp_path / "board")) == []


@pytest.mark.parametrize(
    ("build", "zone", "temp_c", "said"),
    [
        (boards.pi4, "cpu-thermal", 78.0, "cpu-thermal at 78.0 C, it brakes at 85 C"),
        (boards.pi5, "cpu-thermal", 78.0, "cpu-thermal at 78.0 C, it brakes at 85 C"),
        (boards.rk3588_mainline, "bigcore0-thermal", 78.0, "bigcore0-thermal at 78.0 C, it brakes at 85 C"),
        (boards.rk3588_vendor, "soc-thermal", 68.0, "soc-thermal at 68.0 C, it brakes at 75 C"),
    ],
)
def test_a_hot_board(tmp_path: Path, build: tree.Builder, zone: str, temp_c: float, said: str) -> None:
    """A Raspberry Pi 5's one trip that is no fan's is where it switches off, at 110 C; it brakes long before."""
    root = build(tmp_path / "board")
    boards.set_temp_c(root, zone, temp_c)
    assert hot(tmp_path, root) == [said]
