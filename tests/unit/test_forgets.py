"""Sessions that are to be forgotten, more than the journal can look for at once: the questions of others go on."""

from __future__ import annotations

import msgspec
from way_in import WayIn

from edged.core.records import Failed, SessionForgotten
from edged.node.controls import FORGETS_MAX


def test_a_flood() -> None:
    """A few at once; who asks for one more hears when to order it again, and may as soon as one is done."""
    way = WayIn()
    for number in range(FORGETS_MAX + 2):
        way.forget(f"s{number}")
    assert len(way.disk.asked) == FORGETS_MAX
    told = [msgspec.json.decode(message.payload) for message in way.rig.line.published]
    assert [(one["code"], one["retry_after_ms"] > 0) for one in told] == [("busy", True)] * 2
    done, refused = way.disk.asked[:2]
    way.intake.controls.found(SessionForgotten(done, known=True))
    way.intake.failed(Failed(refused, "SQLITE_FULL"))
    for number in range(3):
        way.forget(f"t{number}")
    assert len(way.disk.asked) == FORGETS_MAX + 2
