"""What a node makes of its larger server's failures."""

from __future__ import annotations

import pytest
from desk_rig import Server
from scripted import Clock

from edged.adapters.judge import Judge
from edged.core.question import Message, Question
from edged.core.upstream import Broke, Policy
from edged.node.away import Away

ASKED = Question("c", "q", made_id=False, plain=False, messages=(Message("user", "x"),), reply_to="t")


@pytest.mark.parametrize(
    ("ours", "hasty", "state"), [(False, False, "open"), (True, False, "closed"), (False, True, "closed")]
)
def test_who_is_to_blame(ours: bool, hasty: bool, state: str) -> None:  # noqa: FBT001 - a table
    """Three failures of the server, and it is left alone; what it is not to blame for counts for nothing."""
    away = Away(Server(), Policy("h", "m", frozenset({"asked"})), Clock(), Judge())
    for number in range(3):
        away.send(number, ASKED, ASKED.messages, None)
        assert away.told(Broke(number, "why", ours=ours, hasty=hasty))
    assert away.breaker.state == state
    assert away.failed == 3
