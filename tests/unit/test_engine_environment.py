"""How long the engine's threads look for each other before they sleep: bounded, and the operator's word stays."""

from __future__ import annotations

import os
import platform

import pytest

from edged.engine.environment import SPINCOUNT, SPINS, WAIT_POLICY, environment

OURS = SPINS.get(platform.machine())


def test_waiting_is_bounded() -> None:
    """Where a look takes long; elsewhere libgomp's number is left."""
    assert environment({}).get(SPINCOUNT) == (None if OURS is None else str(OURS))


@pytest.mark.parametrize("present", [{SPINCOUNT: "7"}, {WAIT_POLICY: "passive"}, {WAIT_POLICY: "active"}])
def test_what_the_operator_says_of_waiting_stays(present: dict[str, str]) -> None:
    """Neither is changed, nor is the one set beside the other."""
    assert environment(present).items() >= present.items()
    assert environment(present).get(SPINCOUNT) == present.get(SPINCOUNT)


def test_the_daemon_s_own_is_left_alone() -> None:
    """What is made for the engine is a copy."""
    before = dict(os.environ)
    environment(os.environ)
    assert dict(os.environ) == before
