"""What the tests on the emulated board make of this code: they run seldom, and it changes often."""

from __future__ import annotations

import ast

from ansible_rig import ROOT
from board_rig import ends_at_once


def test_a_release_that_ends_at_its_start() -> None:
    """It can be made of the present command, and is Python."""
    command = (ROOT / "edged/cli/run.py").read_text("utf-8")
    broken = ends_at_once(command)
    assert len(ast.parse(broken).body) == len(ast.parse(command).body)
    assert broken != command
