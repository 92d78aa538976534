"""Journals that edged wrote on earlier days, kept as SQL: whoever updates a node loses nothing that stands there.

Each was made by the daemon of its day with the scripted engine, the broker killed in mid-answer and the daemon
five seconds later. The client press-7 had asked, in this order: `answered`; the turns of the session `line`;
`owed`, which was finished without a broker; `begun` (in that session, with a day's deadline); a question in plain
text; `queued`.
A format that is to hold from some day on gets a file of its own here; none is ever changed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from broker import Mosquitto
    from daemon_process import MakeDaemon
    from device import MakeDevice

JOURNALS = sorted((Path(__file__).parents[1] / "journals").glob("*.sql"))
TURNS = (("The valve is called Berta. tokens=4", 4), ("And the pump is Carl. tokens=2", 2))
"""What was asked in `line`, and how many words were answered."""
SAME_QUESTION = "2026-12-01"
"""From then on a question that is asked again under its id is known again; before, another hash stood there."""


def restore(kept: Path, state: Path) -> None:
    """Make the journal of a state folder from what was kept."""
    state.mkdir(mode=0o700)
    with closing(sqlite3.connect(state / "journal.db")) as connection:
        connection.executescript(
            "PRAGMA page_size = 2048; PRAGMA auto_vacuum = INCREMENTAL;" + kept.read_text()
        )


@pytest.mark.parametrize("kept", JOURNALS, ids=lambda kept: kept.stem)
def test_a_kept_journal(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, kept: Path) -> None:
    """What was owed is delivered, what was begun or waiting is answered, and the conversation goes on."""
    node = daemon(broker, scripted=True)
    restore(kept, node.config.parent / "state")
    asking = device(broker, "press-7")
    node.start()

    owed = asking.answer("owed")
    assert [reply["type"] for reply in owed.replies] == ["done"]  # stored, not computed anew
    assert owed.text == "".join(f"w{number} " for number in range(10))
    assert asking.answer("queued").text == "w0 w1 w2 w3 w4 w5 "
    assert asking.wait(asking.texts) == ["w0 w1 w2 w3 w4 "]
    begun = asking.answer("begun")
    assert len(begun.text.split()) == 40
    assert begun.last["attempt"] == 2
    with_sessions = "session_turns" in kept.read_text()
    said = sum(len(asked.split()) + answered for asked, answered in TURNS) if with_sessions else 0
    assert begun.last["usage"]["prompt_tokens"] == said + 3

    if with_sessions:
        goes_on = asking.answer(asking.ask("tokens=1", session="line"))
        assert goes_on.replies[0]["history"] == 2 * len(TURNS) + 2
    if kept.stem >= SAME_QUESTION:
        asking.ask("tokens=3", id="answered")
        assert asking.answer("answered").replies[-1]["text"] == "w0 w1 w2 "
    asking.control("status", "answered")
    state = asking.wait(
        lambda: [h.json for h in asking.heard if b'"status"' in h.payload and h.json["id"] == "answered"]
    )
    assert state[0]["state"] == "finished", state
    assert not list((node.config.parent / "state").glob("*corrupt*"))
    assert node.wait_health(lambda health: health["journal"]["unfinished"] == 0)
