"""The board: booted once for all files here, which go on with it in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_rig import BROKEN, FIRST, FOLDER, KEPT, NEXT, Board, release


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests here their marker and their patience."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(7200))


@pytest.fixture(scope="session")
def board(small_model: Path) -> Iterator[Board]:
    """A pristine board, booted, with the releases made; a kept one as it is."""
    assert "EDGED_BOARD" in os.environ, "set EDGED_BOARD to the program that boots a board"
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = Board(small_model)
    if not KEPT:
        (FOLDER / "ran.md").unlink(missing_ok=True)
    with made.step("three releases packed"):
        release(FIRST)
        release(NEXT)
        release(BROKEN, broken=True)
    made.order("build", timeout_s=1800)
    if not (KEPT and made.running()):
        with made.step("board booted"):
            made.order("up", *(("--keep",) if KEPT else ()))
    made.serve_files()
    yield made
    if not KEPT:
        made.order("down")


@pytest.fixture
def installed(board: Board) -> Board:
    """The board with a release in use, whichever it is."""
    if not board.version():
        ended = board.play("site.yml", FIRST)
        assert ended.code == 0, ended.text
    return board
