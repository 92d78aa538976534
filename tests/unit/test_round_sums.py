"""A question in rounds: to its device it is one question, whatever its model called meanwhile."""

from __future__ import annotations

import pytest

from edged.core.reply import Timings, Usage
from edged.core.rounds import Progress, added, answered, called, enough, kept, left, mode, thinking_left
from edged.core.tools import Call, Offer

CALL = Call("c1", "clock", "{}")


def looked_up() -> Progress:
    """One round in which the model said something, thought, and called a tool, which has answered."""
    first = added(Progress(), "I look. ", "Time?", Usage(100, 20, 11, 4), Timings(5, 40, 100))
    return answered(called(kept(Progress(), first), "I look. ", (CALL,), 1), ["noon"])


def test_all_rounds_are_added_up() -> None:
    """Texts, tokens and times; rates are of all rounds, whose first tokens came with their prompts."""
    whole = added(looked_up(), "Noon.", " Noon.", Usage(150, 120, 21, 6), Timings(1, 10, 200))
    assert whole == (
        "I look. Noon.",
        "Time? Noon.",
        Usage(250, 140, 32, 10),
        Timings(6, 50, 300, prefill_tokens_per_s=2200.0, decode_tokens_per_s=100.0),
    )


def test_the_next_round_reads_calls_and_results() -> None:
    """As the messages that the model would have had of a device's tools."""
    call, result = looked_up().turns
    assert (call.role, call.content, call.tool_calls) == ("assistant", "I look. ", [CALL.shape()])
    assert (result.role, result.content, result.tool_call_id) == ("tool", "noon", "c1")
    assert called(Progress(), "", (CALL,), 1).turns[0].content is None


@pytest.mark.parametrize(("most", "expected"), [(None, None), (30, 19), (11, 1), (5, 1)])
def test_max_tokens_hold_for_all_rounds(most: int | None, expected: int | None) -> None:
    """Eleven are written; an answer has at least one."""
    assert left(most, looked_up()) == expected


@pytest.mark.parametrize(("budget", "expected"), [(None, None), (0, 0), (30, 26), (5, 1), (4, 1), (3, 1)])
def test_a_budget_holds_for_all_rounds(budget: int | None, expected: int | None) -> None:
    """Four are thought. Of one that is used up a token is left, for none at all would be another prompt."""
    assert thinking_left(budget, looked_up()) == expected


@pytest.mark.parametrize(("budget", "expected"), [(None, 1), (0, 0), (30, 1)])
def test_enough_of_the_thinking_is_enough_for_all_rounds(budget: int | None, expected: int | None) -> None:
    """From the next round on: the one that runs is told itself, and before the first one nothing is cut."""
    assert thinking_left(budget, enough(looked_up())) == expected
    assert thinking_left(budget, enough(Progress())) == budget


def test_what_had_to_be_called_is_called_once() -> None:
    """Then the model may; behind the last round there is only an answer left."""
    offer = Offer(mode="required", named="clock")
    assert [mode(offer, number, 2) for number in (0, 1, 2)] == [
        ("required", "clock"),
        ("auto", None),
        ("none", None),
    ]
