"""What a question is promised before it is in line: its place and its time, or that it comes too late."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from scripted import ScriptedModel, say, submit
from scripted_rig import Rig

from edged.core.batching import CHUNK_S, PATIENCE_S
from edged.core.question import Message
from edged.engine.messages import Ended
from edged.engine.sequence import Sequence
from edged.engine.slots import COPY_MIN, Stored
from edged.errors import Refusal


def measured(slots: int = 1) -> Rig:
    """A rig whose rates are measured: a millisecond a row, answers of ten tokens on average."""
    rig = Rig(ScriptedModel(say("0123456789" * 4), streams=slots, context=512, batch_tokens=64))
    for number in range(100, 103):
        rig.ask(number, "x" * 100)
        rig.run()
    rig.reports.clear()
    return rig


def test_an_idle_engine_refuses_no_sensible_deadline() -> None:
    """Whatever can begin in time is taken, and nothing is refused before the rates are measured."""
    rig = measured()
    now = rig.clock()
    for text in ("hi", "word " * 20):
        for left_s in (0.2, 1.0, 600.0):
            sequence = rig.preparation.prepare(submit(1, Message("user", text), deadline=now + left_s), now)
            assert rig.scheduler.promises.refusal(sequence, now) is None
    sequence = rig.preparation.prepare(submit(1, Message("user", "x"), deadline=None), now)
    assert rig.scheduler.promises.refusal(sequence, now) is None
    fresh = Rig(ScriptedModel(say("yes")))
    fresh.scheduler.counters.rates.expect(9.0, 9.0)
    sequence = fresh.preparation.prepare(submit(1, Message("user", "x"), deadline=now + 0.1), now)
    assert fresh.scheduler.promises.refusal(sequence, now) is None


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("alike", [True, False])
def test_what_a_fleet_is_told_is_what_it_takes(slots: int, alike: bool) -> None:  # noqa: FBT001 - a table
    """Twelve at once: a beginning in common was counted for each of them, and prompts as if read side by side."""
    rig = Rig(ScriptedModel(say("0123456789" * 4), streams=slots, context=512, batch_tokens=64))
    passes = rig.model.passes
    passes.during = lambda: rig.clock.advance(0.01 + 0.002 * max(0, passes.rows_of[-1] - 4))
    for number in range(100, 104):
        rig.ask(number, "x" * 300)
        rig.run()
    told: dict[int, float] = {}
    for number in range(1, 13):
        text = ("a hall with pumps " if alike else f"{number} hall with pumps ") * 10
        due = rig.clock() + 60.0
        messages = Message("system", text), Message("user", f"{number}?")
        order = submit(number, *messages, client=f"c{number}", deadline=due, max_tokens=40)
        sequence = rig.measure(order)
        assert rig.scheduler.promises.refusal(sequence, rig.clock()) is None
        told[number] = rig.scheduler.promises.estimate(sequence)[1]
        rig.put_in_line(sequence)
    begun, took = rig.clock(), dict[int, float]()
    while rig.scheduler.step():
        for report in rig.reports:
            if isinstance(report, Ended):
                took[report.number] = rig.clock() - begun
        rig.reports.clear()
    for number, eta_s in told.items():
        assert eta_s < 1.7 * took[number]
        assert eta_s > 0.6 * took[number] or number <= slots  # the first know nothing of those to come


def test_who_goes_first_is_told_so() -> None:
    """An alarm was told to stand behind thirty reports, of which none goes before it, and a time as if they did."""
    rig = measured(slots=2)
    for number in range(1, 31):
        rig.ask(number, "z" * 100, priority="background", client="reports")
    rig.scheduler.step()
    asked = submit(50, Message("user", "now?"), priority="interactive", max_tokens=40)
    sequence = rig.measure(asked)
    place, eta_s = rig.scheduler.promises.estimate(sequence)
    rig.put_in_line(sequence)
    begun = rig.clock()
    while not any(isinstance(report, Ended) and report.number == 50 for report in rig.reports):
        rig.scheduler.step()
    assert place <= 1
    assert eta_s < 2 * (rig.clock() - begun)


def test_a_next_round_goes_before_what_its_client_asked_later() -> None:
    """It was refused as busy for twelve that go behind it; those of a client that was served less do count."""
    for client, place in (("c", 1), ("other", 13)):
        rig = measured()
        rig.ask(3, "z" * 100, client="c", max_tokens=40)
        rig.scheduler.step()
        for number in range(4, 16):
            rig.ask(number, "z" * 100, client=client, max_tokens=40)
        sequence = rig.measure(submit(2, Message("user", "z" * 100), client="c", deadline=rig.clock() + 0.5))
        assert rig.scheduler.promises.estimate(sequence)[0] == place
        assert (rig.scheduler.promises.refusal(sequence, rig.clock()) is None) == (client == "c")
        rig.put_in_line(sequence)
        rig.run()
        ends = [report.number for report in rig.reports if isinstance(report, Ended)]
        assert (ends.index(2) == 1) == (client == "c")


def test_a_prompt_too_long_for_its_deadline() -> None:
    """300 tokens at a millisecond each cannot be read in 50: that is said at once, with the time it would take."""
    rig = measured()
    now = rig.clock()
    asked = submit(1, Message("user", "y" * 300), deadline=now + 0.05)
    refusal = rig.scheduler.promises.refusal(rig.preparation.prepare(asked, now), now)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_ms) == ("expired", None)
    assert refusal.details["eta_ms"] > 300
    assert refusal.details["deadline_ms"] == 50


NUMBERS = itertools.count(1000)


def _refused(rig: Rig, text: str, left_s: float) -> bool:
    """Ask as an engine's intake does; True where it is refused at once, else it has run to its end."""
    now = rig.clock()
    sequence = rig.measure(submit(next(NUMBERS), Message("user", text), deadline=now + left_s, max_tokens=4))
    refused = rig.scheduler.promises.refusal(sequence, now) is not None
    if not refused:
        rig.put_in_line(sequence)
        rig.run()
    return refused


def test_one_pass_that_stood_still_refuses_nobody() -> None:
    """Weights came back from the swap for a minute: after that every question with a short deadline was refused."""
    rig = measured()
    quick, stalls = rig.model.passes.during, [60.0]

    def once() -> None:
        rig.clock.advance(stalls.pop() if stalls else 0.0)
        quick()

    rig.model.passes.during = once
    rig.ask(1, "y" * 40)
    rig.run()
    assert not stalls
    assert rig.scheduler.counters.rates.read_s > 0.1, "the average is far off"
    assert not _refused(rig, "z" * 80, 2.0)


def test_a_board_that_was_slow_for_long_is_tried_again() -> None:
    """Nothing was read any more once all was refused, so nothing told that the neighbours were gone."""
    rig = measured()
    quick = rig.model.passes.during
    rig.model.passes.during = lambda: rig.clock.advance(0.1 * rig.model.passes.rows_of[-1])
    for number in range(1, 5):
        rig.ask(number, f"{number}" * 100)
        rig.run()
    rig.model.passes.during = quick
    refused = []
    for number in range(9):
        refused.append(_refused(rig, f"{number} " * 30, 2.0))
        rig.clock.advance(10.0)
    assert refused == [True, True, True, False, True, True, True, False, False]


def test_a_line_too_long_for_its_deadline() -> None:
    """Behind many questions a short deadline is hopeless, for an interactive one before them it is not."""
    rig = measured()
    for number in range(1, 31):
        rig.ask(number, "z" * 100, priority="normal", client="same")
    rig.scheduler.step()
    now = rig.clock()

    def outlook(left_s: float, priority: str, **changes: Any) -> str | None:
        asked = submit(
            50, Message("user", "hi"), deadline=now + left_s, priority=priority, client="same", **changes
        )
        refusal = rig.scheduler.promises.refusal(rig.preparation.prepare(asked, now), now)
        if refusal is not None:
            assert refusal.retry_after_ms
            assert refusal.details["eta_ms"] > 1000 * left_s
        return None if refusal is None else refusal.code

    assert outlook(1.0, "normal") == "busy"
    assert outlook(1.0, "background") == "busy"
    assert outlook(1.0, "interactive") is None
    assert outlook(60.0, "normal") is None
    assert outlook(1.0, "normal", context=100) is None  # its next round: it was taken on
    for _ in range(3):  # what goes first will tell how fast the board is: there is nothing to try
        rig.clock.advance(40.0)
        now = rig.clock()
        assert outlook(1.0, "normal") == "busy"
    rig.run()


def _asked(rig: Rig, text: str, left_s: float, **changes: Any) -> tuple[Sequence, Refusal | None]:
    """A question and how its deadline is looked at as it comes in."""
    now = rig.clock()
    order = submit(next(NUMBERS), Message("user", text), deadline=now + left_s, max_tokens=4, **changes)
    sequence = rig.measure(order)
    return sequence, rig.scheduler.promises.refusal(sequence, now)


def test_a_prompt_that_is_known_needs_no_time_to_read() -> None:
    """One that wants all computed anew was let in by what the cache holds, read for seconds and told nothing."""
    rig = measured()
    rig.ask(1, "y" * 300)
    rig.run()
    _, again = _asked(rig, "y" * 300, 0.05)
    assert again is None
    _, anew = _asked(rig, "y" * 300, 0.05, reuse=False)
    assert anew is not None
    assert anew.code == "expired"


def test_of_a_file_counts_what_the_prompt_begins_with() -> None:
    """What lies on disk may be longer than the part in common: the rest of it saves no reading."""
    rig = measured()
    now = rig.clock()
    sequence = rig.measure(submit(1, Message("user", "y" * 300), deadline=now + 0.05, max_tokens=4))
    whole, half = sequence.tokens.copy(), [*sequence.tokens[:100], *[7] * 250]
    sequence.stored = Stored(half, bytearray(), lambda: None)
    refusal = rig.scheduler.promises.refusal(sequence, now)
    assert refusal is not None
    assert refusal.code == "expired"
    sequence.stored = Stored(whole, bytearray(), lambda: None)
    assert rig.scheduler.promises.refusal(sequence, now) is None


def test_a_free_slot_is_no_line() -> None:
    """Beside an answer that takes long a question may begin at once; where each slot has one it may not."""
    rig = measured(slots=2)
    for number, refused in ((1, False), (2, False), (3, True)):
        _, refusal = _asked(rig, "hi", 0.025)
        assert (refusal is not None) == refused, number
        rig.ask(number, "hi")
        rig.scheduler.step()
        rig.scheduler.step()


def test_one_at_a_time_tries_a_slow_board() -> None:
    """While all else is refused for what reading takes, the one that is let in is not joined by others."""
    rig = measured(slots=4)
    rig.scheduler.counters.rates.cores_changed(0.001)
    assert _asked(rig, "z" * 100, 1.0)[1] is not None
    rig.clock.advance(31.0)
    assert [_asked(rig, "z" * 100, 1.0)[1] is None for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("own", "other", "alike", "rewinds", "saved"),
    [
        (True, True, 200, True, 200),
        (True, True, COPY_MIN, True, COPY_MIN),
        (True, True, COPY_MIN - 1, True, 0),
        (False, True, 200, True, 0),
        (True, False, 200, True, 0),
        (True, True, 200, False, 0),
    ],
)
def test_a_beginning_in_common_is_read_once(
    own: bool,  # noqa: FBT001 - a table
    other: bool,  # noqa: FBT001
    alike: int,
    rewinds: bool,  # noqa: FBT001
    saved: int,
) -> None:
    """Not where either wants its prompt read anew, nor where the cache cannot go back to the common part."""
    rig = Rig(ScriptedModel(say("yes"), streams=2, context=512))
    rig.model.passes.cuts = rewinds
    first = rig.measure(submit(1, Message("user", "y" * 300), reuse=other))
    second = rig.measure(submit(2, Message("user", "z" * 300), reuse=own))
    second.tokens[:alike] = first.tokens[:alike]
    assert second.tokens[alike] != first.tokens[alike]
    rig.put_in_line(first)
    rig.scheduler.promises.estimate(second)
    assert second.foreseen == saved


def test_a_beginning_is_not_waited_for_where_it_is_less_urgent() -> None:
    """Of that one no more is foreseen than was read."""
    rig = Rig(ScriptedModel(say("yes"), streams=2, context=512, batch_tokens=64))
    rig.submit(submit(1, Message("user", "y" * 300), priority="background"))
    rig.scheduler.step()
    second = rig.measure(submit(2, Message("user", "y" * 299 + "z"), priority="interactive"))
    rig.scheduler.promises.estimate(second)
    assert second.foreseen == 64


@pytest.mark.parametrize("priority", ["interactive", "normal", "background"])
@pytest.mark.parametrize("size", [4, 100, 200])
def test_told_beside_a_long_prompt_is_what_it_takes(priority: str, size: int) -> None:
    """It lets shorter and more urgent ones pass, and is read before what is less urgent."""
    rig = measured(slots=2)
    rig.scheduler.counters.rates.expect(0.05, 0.05)
    rig.model.passes.during = lambda: rig.clock.advance(0.05 * rig.model.passes.rows_of[-1])
    rig.ask(1, "y" * 420, max_tokens=4)
    rig.scheduler.step()
    sequence = rig.measure(submit(2, Message("user", "z" * size), priority=priority, max_tokens=4))
    eta_s = rig.scheduler.promises.estimate(sequence)[1]
    rig.put_in_line(sequence)
    begun = rig.clock()
    while not any(isinstance(report, Ended) and report.number == 2 for report in rig.reports):
        rig.scheduler.step()
    more_s = rig.clock() - begun - eta_s
    assert -0.1 < more_s < PATIENCE_S + 2 * CHUNK_S  # for so long its answer waits for the other prompt
