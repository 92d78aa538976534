"""The journal over time: deadlines, clocks that jump, pruning by age and size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from journals import Clock, answer, desk, row

from edged.core.records import (
    PUBLISHES_MAX,
    Instant,
    Publish,
    deadline_in,
    remaining_s,
)

if TYPE_CHECKING:
    from pathlib import Path

YEAR_S = 365 * 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a place whose folder does not exist yet."""
    return tmp_path / "state" / "journal.db"


def test_deadline_runs_within_a_boot(path: Path) -> None:
    """A restart of the daemon costs the question the time that passed."""
    clock = Clock()
    with desk(path, clock) as d:
        d.accepted(row("a", deadline=deadline_in(60.0, clock.now)))
    clock.advance(25.0)
    with desk(path, clock) as d:
        clock.advance(5.0)
        assert remaining_s(d.recovered.jobs[0].row, clock.now.boot_id, clock.now.monotonic_s) == 30.0
        clock.advance(31.0)
        assert remaining_s(d.recovered.jobs[0].row, clock.now.boot_id, clock.now.monotonic_s) == -1.0


def test_deadline_survives_reboots(path: Path) -> None:
    """Over a reboot the last recorded rest counts; it shrinks with each boot and never by the time between."""
    clock = Clock()
    with desk(path, clock) as d:
        number = d.accepted(row("a", deadline=deadline_in(60.0, clock.now)))
        clock.advance(10.0)
        d.attempt(number)
    clock.reboot("boot-2")
    with desk(path, clock) as d:
        recovered = d.recovered.jobs[0].row
        assert remaining_s(recovered, clock.now.boot_id, clock.now.monotonic_s) == 50.0
        clock.advance(20.0)
    clock.reboot("boot-3")
    with desk(path, clock) as d:
        recovered = d.recovered.jobs[0].row
        assert remaining_s(recovered, clock.now.boot_id, clock.now.monotonic_s) == 30.0


def test_a_boot_that_is_older_than_the_last_one_was() -> None:
    """Asked in the first minute of a boot that ended in it, and found later in the next: it has its time still."""
    question = row("a", deadline=deadline_in(60.0, Instant("short", 5.0)))
    assert remaining_s(question, "long", 500.0) == 60.0


def test_remaining_never_grows() -> None:
    """A monotonic clock that stands lower than recorded (a restored container) gives no extra time."""
    question = row("a", deadline=deadline_in(60.0, Instant("b", 1000.0)))
    assert remaining_s(question, "b", 0.0) == 60.0
    assert remaining_s(row("a"), "b", 0.0) == float("inf")


def test_prunes_by_age_in_journal_time(path: Path) -> None:
    """Finished questions go when the journal has been in use for longer than their age allows."""
    clock = Clock()
    with desk(path, clock, max_age_s=100.0) as d:
        for i in range(200):
            d.finish(d.accepted(row(f"old{i}")), ())
        unfinished = d.accepted(row("unfinished"))
        owed = d.finish(d.accepted(row("owed")), answer("yes")).outbox
        clock.advance(101.0)
    with desk(path, clock, max_age_s=100.0) as d:
        for i in range(4):  # in steps, with the commits of finished questions
            d.finish(d.accepted(row(f"new{i}")), ())
        assert {d.status(f"old{i}").state for i in range(200)} == {None}
        assert d.status("unfinished").number == unfinished
        assert d.recovered.outbox == owed
        assert d.status("owed").state == "finished"
        assert [d.status(f"new{i}").state for i in range(4)] == ["finished"] * 4


def test_reboot_and_clock_jump_prune_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a reboot nor a wall clock a year ahead or in 1970 ages a stored answer or a deadline."""
    clock = Clock()
    with desk(path, clock, max_age_s=100.0) as d:
        d.finish(d.accepted(row("a")), ())
        d.accepted(row("b", deadline=deadline_in(60.0, clock.now)))
    for boot, wall_s in (("boot-2", time.time() + YEAR_S), ("boot-3", 0.0)):
        monkeypatch.setattr(time, "time", lambda at=wall_s: at)
        clock.reboot(boot)
        with desk(path, clock, max_age_s=100.0) as d:
            d.finish(d.accepted(row(f"late-{boot}")), ())
            assert d.status("a").state == "finished"
            left_s = remaining_s(d.recovered.jobs[0].row, clock.now.boot_id, clock.now.monotonic_s)
            assert left_s == 60.0


def test_prunes_by_bytes(path: Path) -> None:
    """The file stays within its bound; the oldest finished questions go, the newest stay."""
    bound = 512 * 1024
    with desk(path, max_bytes=bound) as d:
        unfinished = d.accepted(row("unfinished"))
        for i in range(300):
            finished = d.finish(d.accepted(row(str(i), text="q" * 500)), answer("x" * 2000))
            for outbox_id, _ in finished.outbox:
                d.journal.clear(outbox_id)
        states = [d.status(str(i)).state for i in range(300)]
        assert states[0] is None
        assert states[250:] == ["finished"] * 50
        assert states == sorted(states, key=lambda state: state is not None)
        assert d.status("unfinished").number == unfinished
    assert path.stat().st_size < bound * 1.25


@pytest.mark.parametrize(("max_age_s", "max_bytes"), [(1e6, 256 * 1024), (100.0, 2**30)], ids=["size", "age"])
def test_what_goes_goes_together(path: Path, max_age_s: float, max_bytes: int) -> None:
    """One old question deleted with each new one wrote a seventh more to the card, for as long as a node lives."""
    clock, gone, times = Clock(), 0, 0
    with desk(path, clock, max_age_s=max_age_s, max_bytes=max_bytes) as d:
        for i in range(400):
            clock.advance(0.5)
            for outbox_id, _ in d.finish(d.accepted(row(str(i), text="q" * 500)), answer("x" * 500)).outbox:
                d.journal.clear(outbox_id)
            before = gone
            while d.status(str(gone)).state is None:
                gone += 1
            times += gone > before
    assert gone > 100
    assert 4 * times <= gone


def test_free_pages_are_given_back(path: Path) -> None:
    """When a large part of the file has become free, it shrinks."""
    clock = Clock()
    with desk(path, clock, max_age_s=100.0) as d:
        for i in range(100):
            d.finish(d.accepted(row(str(i))), ())
            d.finish(d.accepted(row(f"big{i}")), (Publish("t", b"x" * 20_000),))
        for job in range(1, 201):
            d.journal.clear(job * PUBLISHES_MAX)
    before = path.stat().st_size
    clock.advance(101.0)
    with desk(path, clock, max_age_s=100.0) as d:
        deadline = time.monotonic() + 5
        while d.status("99").state is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
    assert path.stat().st_size < before / 4
