"""Who is blamed for a crash, what a new life does with what it finds, and answers that are no JSON."""

from __future__ import annotations

import msgspec
import pytest
from desk_rig import Rig, ended

from edged.core import reply
from edged.core.job import State
from edged.core.question import Message
from edged.core.records import JobRow, Recovered, RecoveredJob
from edged.engine.messages import Started


def test_who_is_blamed_for_a_crash() -> None:
    """Those that ran, and the one that was being measured: the first of those that were not."""
    rig = Rig()
    jobs = {number: rig.ask(number) for number in range(1, 6)}
    rig.measured(1, 2)
    rig.desk.started(Started(1))
    rig.crash()
    assert {number: job.crashes for number, job in jobs.items()} == {1: 1, 2: 0, 3: 1, 4: 0, 5: 0}
    assert rig.engine.submitted[5:] == [1, 2, 4, 5], "those who are suspected go one at a time"


def test_poison_before_it_ran() -> None:
    """A question that crashes the engine each time that it is measured is not tried for ever."""
    rig = Rig()
    bad, good = rig.ask(1), rig.ask(2)
    for _ in range(3):
        rig.crash()
    assert (bad.state, rig.journal.finished[1]["code"]) == (State.FINISHING, "poison")
    assert (good.state, good.crashes) == (State.WAITING, 0)


@pytest.mark.parametrize(
    ("attempts", "stopped", "code"), [(9, False, None), (10, False, "poison"), (10, True, None)]
)
def test_begun_too_often(attempts: int, stopped: bool, code: str | None) -> None:  # noqa: FBT001 - a table
    """What takes the whole board down each time is poison; a life that ended in order was not ended by it."""
    rig = Rig()
    asked = rig.ask(99).question
    row = JobRow(
        "d", "q1", b"d" * 32, msgspec.msgpack.encode(msgspec.structs.replace(asked, client="d")), 0.0
    )
    rig.desk.recover(Recovered(jobs=(RecoveredJob(1, attempts, row),), stopped=stopped), "boot", 0.0)
    assert rig.journal.finished.get(1, {}).get("code") == code
    assert (1 in rig.engine.submitted) == (code is None)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"client": 7})])
def test_a_question_that_cannot_be_read(body: bytes) -> None:
    """Another version of this node wrote it down: it ends, and the node starts."""
    rig = Rig()
    row = JobRow("c", "q1", b"d" * 32, body, 0.0)
    rig.desk.recover(Recovered(jobs=(RecoveredJob(1, 0, row),)), "boot", 0.0)
    assert rig.journal.finished[1]["code"] == "interrupted"
    assert rig.engine.submitted == []


def test_an_answer_that_is_no_json_is_an_error_each_time() -> None:
    """A schema's number beyond all floats: also for the next who asks the same."""
    rig = Rig()
    for number in (1, 2):
        rig.ask(number, messages=(Message("user", "x"),), temperature=0.0, schema='{"type": "number"}')
        assert rig.engine.submitted == [number]
        rig.measured(number)
        rig.desk.started(Started(number))
        rig.desk.ended(ended(number, "1e999"))
        assert rig.journal.finished[number]["code"] == "bad_request"
    assert reply.parsed("1e99") == 1e99
