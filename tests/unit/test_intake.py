"""While the disk takes nothing: of copies that come few are kept, and what waits has its line in the log."""

from __future__ import annotations

import msgspec
import pytest
import structlog
from desk_rig import TOPICS, ended
from way_in import DEADLINE_S, WayIn

from edged.core import parsing
from edged.core.link import JSON, Delivered
from edged.core.records import Accepted, Depth, Failed, Finished, NotKnown, Publish
from edged.engine.messages import Started
from edged.node.disk_watch import DiskWatch
from edged.node.refusing import LOOKS_MAX
from edged.node.unstored import RETRY_S

COPIES = 500


@pytest.mark.parametrize("first", [0, 1])
def test_copies_while_the_question_is_not_stored(first: int) -> None:
    """Of those with QoS 0 none is kept: one refusal goes for all of them when the deadline has passed."""
    way = WayIn()
    way.copies(first, *[0] * COPIES, 1, 1)
    (job,) = way.disk.asked
    way.intake.failed(Failed(job, "SQLITE_FULL"))
    way.rig.clock.now += DEADLINE_S + RETRY_S
    way.intake.tick(way.rig.clock())
    told = [msgspec.json.decode(message.payload)["code"] for message in way.rig.line.published]
    assert told == ["expired"] * 3


def test_copies_while_the_answer_is_not_stored() -> None:
    """One waits for the answer, the others are acknowledged: their question stands in the journal."""
    way = WayIn()
    way.copies(1)
    (job,) = way.disk.asked
    way.intake.accepted(Accepted(job, 1))
    way.rig.desk.hearing.engine_said(Started(1))
    way.rig.desk.hearing.engine_said(ended(1, "an answer"))
    way.rig.line.acknowledged.clear()
    way.copies(*[0] * COPIES, 1, 1, 1)
    assert [one.mid for one in way.rig.line.acknowledged if one.qos] == [COPIES + 1, COPIES + 2]
    way.disk.asked.clear()
    way.rig.desk.kept(Finished(1, ()))
    way.intake.unpark()
    assert len(way.disk.asked) == 1, "the latest asks for all"


@pytest.mark.parametrize("full", [False, True])
def test_an_answer_that_can_be_read_is_given(full: bool) -> None:  # noqa: FBT001 - a table
    """To a device that asks again: it needs no room, and its question is acknowledged once the broker has it."""
    way = WayIn(full=full)
    with structlog.testing.capture_logs() as lines:
        way.copies(1)
        ticket = way.disk.asked.pop()
        text = Publish("edged/v1/client/c/text", b"yes", {"content_type": "text/plain"})
        end = Publish("elsewhere", b'{"type": "done"}', {"content_type": JSON})
        way.intake.failed(Failed(ticket, "SQLITE_FULL", (end, text)))
    told = way.rig.line.published
    assert [(one.topic, one.payload) for one in told] == [
        (TOPICS.answer("c", "q"), end.payload),
        (text.topic, text.payload),
    ]
    assert (way.rig.line.acknowledged, way.tried(RETRY_S)) == ([], [])
    way.rig.desk.outbox.delivered_one(Delivered(told[0].token))
    assert [one.mid for one in way.rig.line.acknowledged] == [1]
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == []
    assert way.rig.desk.roster.named == {}


def test_a_question_that_waits_has_one_line() -> None:
    """It is tried every second, for as long as the disk is full: the log would fill it as well."""
    way = WayIn()
    way.copies(1)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            (job,) = way.disk.asked
            way.disk.asked.clear()
            way.intake.failed(Failed(job, "SQLITE_FULL"))
            way.rig.clock.now += RETRY_S
            way.intake.tick(way.rig.clock())
    assert [(line["event"], line["reason"]) for line in lines] == [("journal_failed", "SQLITE_FULL")]


def test_the_journal_is_tried_with_one_in_turn() -> None:
    """One that does not fit fails alone, and the first that is stored brings all others along, in their order."""
    way = WayIn()
    for name in ("large", "small", "other"):
        way.copies(1, name=name)
    assert way.tried() == ["large", "small", "other"]
    for job in way.jobs.values():
        way.intake.failed(Failed(job, "SQLITE_FULL"))
    assert way.tried() == []
    first = way.tried(RETRY_S)
    assert way.tried() == [], "it is not told yet what became of that one"
    way.intake.failed(Failed(way.jobs[first[0]], "SQLITE_FULL"))
    second = way.tried(RETRY_S)
    assert len(first) == len(second) == 1
    assert first != second
    way.intake.accepted(Accepted(way.jobs[second[0]], 1))
    assert way.tried() == [name for name in ("large", "small", "other") if name not in second]


def test_one_session_keeps_its_order() -> None:
    """What goes on with a question that waits for the disk waits behind it, also where there is room meanwhile."""
    way = WayIn()
    way.copies(1, name="before", session="s")
    way.tried()
    way.intake.failed(Failed(way.jobs["before"], "SQLITE_FULL"))
    way.copies(1, name="behind", session="s")
    way.copies(1, name="another", session="t")
    assert way.tried() == ["another"]
    for _ in range(3):
        assert way.tried(RETRY_S) == ["before"]
        way.intake.failed(Failed(way.jobs["before"], "SQLITE_FULL"))
    way.tried(RETRY_S)
    way.intake.accepted(Accepted(way.jobs["before"], 1))
    assert way.tried() == ["behind"]


def test_a_disk_that_hangs_is_told() -> None:
    """It refuses nothing; a write that takes so long is the only sign, in health as in the log."""
    depth = iter(Depth(1, 0, 0, 0, 1, None, writing_s=seconds) for seconds in (0.0, 4.0, 12.0, 27.0, 0.0))
    watch = DiskWatch(lambda: next(depth))
    with structlog.testing.capture_logs() as lines:
        told = [watch().failing for _ in range(5)]
    hangs = "the disk has not answered for"
    assert told == [None, None, f"{hangs} 12 s", f"{hangs} 27 s", None]
    assert [line["event"] for line in lines] == ["journal_failing", "journal_writes_again"]
    assert lines[0]["reason"] == f"{hangs} 12 s"


def test_a_disk_that_refuses_is_told() -> None:
    """Also where an answer alone waits for it, of which nobody else says a word; once, and when it is over."""
    found = [Depth(0, 0, 0, 0, 0, None), Depth(1, 0, 0, 0, 1, "SQLITE_FULL: full")]
    depth = iter([*found[:1], *found[1:] * 2, *found[:1] * 2])
    watch = DiskWatch(lambda: next(depth))
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            watch()
    assert [line["event"] for line in lines] == ["journal_failing", "journal_writes_again"]
    assert (lines[0]["reason"], lines[0]["owed"]) == ("SQLITE_FULL: full", 1)


def test_looks_for_loose_questions_are_bounded() -> None:
    """A full node looks up so many with QoS 0 at once and refuses more unseen, until one is looked up."""
    way = WayIn(full=True)
    way.copies(*[0] * (LOOKS_MAX + 1))
    assert len(way.disk.asked) == LOOKS_MAX
    (refused,) = way.rig.line.published
    assert msgspec.json.decode(refused.payload)["code"] == "busy"
    way.intake.not_known(NotKnown(way.disk.asked.pop()))
    way.copies(0, 0)
    assert len(way.disk.asked) == LOOKS_MAX
    way.copies(1)
    assert len(way.disk.asked) == LOOKS_MAX + 1, "one with QoS 1 is held back by the broker instead"


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("prompt", ["?", "another"])
def test_a_copy_that_is_looked_up_is_older_than_one_that_was_taken_on(prompt: str, stored: bool) -> None:  # noqa: FBT001 - a table
    """The node had no room for it and has some by now: its device listens where it asked from last."""
    way = WayIn(full=True)
    way.copies(1, reply_to="edged/v1/client/c/before")
    (look,) = way.disk.asked
    way.disk.asked.clear()
    way.full = False
    way.copies(1, prompt=prompt, reply_to="edged/v1/client/c/now")
    (job,) = way.disk.asked
    if stored:
        way.intake.accepted(Accepted(job, 1))
    way.intake.not_known(NotKnown(look))
    assert [one.question.reply_to for one in way.rig.desk.roster.named.values()] == ["edged/v1/client/c/now"]
    told = [(one.topic, msgspec.json.decode(one.payload)["code"]) for one in way.rig.line.published]
    assert told == ([] if prompt == "?" else [("edged/v1/client/c/before", "bad_request")])
    if not stored:
        way.intake.accepted(Accepted(job, 1))
    assert len(way.rig.line.acknowledged) == 2 - len(told), "what is refused waits for the broker"


def test_a_defect_of_ours_ends_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reading it raises: it would end the daemon, and again each time that the broker brings it."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("quotes the prompt")

    monkeypatch.setattr(parsing, "_complete", broken)
    way = WayIn()
    with structlog.testing.capture_logs() as lines:
        way.copies(1)
    (told,) = way.rig.line.published
    assert (told.topic, msgspec.json.decode(told.payload)["code"]) == (TOPICS.answer("c", "q"), "internal")
    (line,) = [line for line in lines if line["event"] == "question_not_read"]
    assert (line["log_level"], line["client"]) == ("error", "c")
    assert line["reason"].startswith("ValueError in broken, test_intake.py:")
    assert way.disk.asked == []
