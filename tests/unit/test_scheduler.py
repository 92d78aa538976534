"""The scheduler over a scripted model that checks every row: one end for each question, whatever happens."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from scripted import PLAIN, SYSTEM, TAGGED, THINKING, USER, ScriptedModel, Story, say, submit
from scripted_constraints import Fixed, Free, ScriptedConstraints
from scripted_rig import DECODE, PREFILL, Rig

from edged.core.question import Message
from edged.core.tools import Call, Tool
from edged.engine.calls import OURS
from edged.engine.constraint import Constraint
from edged.engine.messages import Ended, Piece, Refused, SetLimits, Started
from edged.engine.runner import LONG_PASS_ROWS
from edged.engine.scheduler import TEMPERATURE, TOP_P
from edged.engine.slots import Stored
from edged.errors import EngineError, Refusal


def rig(answer: str = "yes", thinking: str = "", template: str = PLAIN, **shape: Any) -> Rig:
    """A rig whose model says one thing."""
    return Rig(ScriptedModel(say(answer, thinking), **shape), template)


def slow_rig(answer: str, *, row_s: float = 0.05, **shape: Any) -> Rig:
    """One whose passes take their time, so many seconds a row."""
    one = rig(answer, **shape)
    one.model.passes.during = lambda: one.clock.advance(row_s * one.model.passes.rows_of[-1])
    return one


# one question ---------------------------------------------------------------------------------------------


def test_answer() -> None:
    """A question starts, its answer comes in pieces, and it ends with all of it and the right counts."""
    one = rig("yes é🙂")
    one.ask(1)
    one.run()
    assert one.reports[0] == Started(1)
    assert [piece.text for piece in one.reports[1:-1] if isinstance(piece, Piece)] == list("yes é🙂")
    ended = one.ended(1)
    assert (ended.outcome, ended.text, ended.reasoning) == ("stop", "yes é🙂", "")
    assert (ended.usage.prompt_tokens, ended.usage.completion_tokens) == (4, len("yes é🙂".encode()))
    assert (ended.usage.cached_tokens, ended.usage.reasoning_tokens, ended.trimmed) == (0, 0, 0)
    one.check_idle()
    assert not one.scheduler.step()


def test_empty_answer() -> None:
    """A model that has nothing to say ends with nothing."""
    one = rig("")
    one.ask(1)
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", "")
    assert one.ended(1).usage.completion_tokens == 0


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_max_tokens(wanted: int) -> None:
    """The device's bound ends the answer, exactly there."""
    one = rig("abcdef")
    one.ask(1, max_tokens=wanted)
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("length", "abcdef"[:wanted])
    assert one.ended(1).usage.completion_tokens == wanted
    one.check_idle()


def test_context_ends_the_answer() -> None:
    """Without a bound of its own an answer ends where the context does."""
    one = rig("a" * 500, context=64)
    one.ask(1)
    one.run()
    usage = one.ended(1).usage
    assert one.ended(1).outcome == "length"
    assert usage.prompt_tokens + usage.completion_tokens == 64
    one.check_idle()


def test_stop_string() -> None:
    """A stop string over several tokens ends the answer and shows nowhere."""
    one = rig("one STOP two")
    one.ask(1, stop=("STOP",))
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", "one ")
    assert one.pieces(1) == "one "
    assert one.ended(1).usage.completion_tokens == len("one STOP")


def test_no_stream() -> None:
    """A device that wants no deltas gets none, and the whole answer at the end."""
    one = rig("yes")
    one.ask(1, stream=False)
    one.run()
    assert one.pieces(1) == ""
    assert one.ended(1).text == "yes"


def test_sampling() -> None:
    """The device's numbers reach the sampler, zeros too; the node's stand in where there are none."""
    one = rig()
    one.ask(1, temperature=0.0, top_p=0.5, seed=0)
    one.ask(2, seed=None)
    one.run()
    assert one.model.asked[0] == {"temperature": 0.0, "top_p": 0.5, "seed": 0}
    assert (one.model.asked[1]["temperature"], one.model.asked[1]["top_p"]) == (TEMPERATURE, TOP_P)
    assert 0 <= one.model.asked[1]["seed"] < 2**31


def test_threads() -> None:
    """Reading has its own number of threads."""
    one = rig("abc")
    one.ask(1)
    one.run()
    assert one.model.passes.threads == [PREFILL, DECODE, DECODE, DECODE]


def test_timings() -> None:
    """Waiting, reading and writing are told apart."""
    one = rig("a" * 11, streams=1)
    one.ask(1)
    one.ask(2, "b" * 40)
    one.run()
    assert one.ended(1).timings.queue_ms == 0
    assert (one.ended(1).timings.prefill_ms, one.ended(1).timings.decode_ms) == (4, 11)
    second = one.ended(2).timings
    assert (second.queue_ms, second.prefill_ms, second.decode_ms) == (
        15,
        41,
        11,
    )  # the mark before the text is shared
    assert second.prefill_tokens_per_s == 1000
    assert second.decode_tokens_per_s == pytest.approx(10 / 0.011, rel=0.01)


def test_gathered_deltas() -> None:
    """Deltas are gathered over the interval, and all of them come before the end."""
    one = Rig(ScriptedModel(say("a" * 50)), delta_interval_s=0.01)
    one.ask(1)
    one.run()
    assert 1 < sum(isinstance(report, Piece) for report in one.reports) <= 7
    assert one.pieces(1) == "a" * 50
    assert isinstance(one.reports[-1], Ended)


def test_failure() -> None:
    """A pass that fails for good is no answer: the engine gives up."""
    one = rig()
    one.model.passes.fail = {0: -3}
    one.ask(1)
    with pytest.raises(EngineError, match="-3"):
        one.run()


# thinking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "text", "reasoning"),
    [
        ("separate", "yes", "hm hm"),
        ("hide", "yes", ""),
        ("inline", "<think>hm hm</think>\n\nyes", ""),
    ],
)
def test_reasoning_modes(mode: str, text: str, reasoning: str) -> None:
    """The thinking is sent apart, hidden, or left in the text; deltas and end agree."""
    one = rig("yes", "hm hm", THINKING)
    one.ask(1, reasoning_mode=mode)
    one.run()
    ended = one.ended(1)
    assert (ended.outcome, ended.text, ended.reasoning) == ("stop", text, reasoning)
    assert one.pieces(1) == text
    assert one.pieces(1, "reasoning") == reasoning
    assert ended.usage.reasoning_tokens == len("hm hm") + 1
    assert ended.usage.completion_tokens == len("hm hm") + 1 + len("\n\nyes")


@pytest.mark.parametrize("template", [PLAIN, TAGGED])
def test_inline_without_a_thinking(template: str) -> None:
    """A model that does not think has no tags in its text."""
    one = rig("yes", "", template)
    one.ask(1, reasoning_mode="inline")
    one.run()
    assert one.ended(1).text == one.pieces(1) == "yes"


def test_budget_closes_the_thinking() -> None:
    """A model that thinks for ever is told to answer when its budget is spent."""
    one = rig("yes", "hm " * 200, THINKING)
    sequence = one.ask(1, reasoning_budget=10)
    one.run()
    ended = one.ended(1)
    assert (ended.outcome, ended.text) == ("stop", "yes")
    assert ended.reasoning == ("hm " * 4)[:10] + "\n"
    assert ended.usage.reasoning_tokens == 10 + len(sequence.closing)
    assert one.pieces(1, "reasoning") == ended.reasoning


@pytest.mark.parametrize(
    ("context", "bound", "thinks", "hurried"),
    [
        (300, None, 90, False),  # cool: a third of the context is enough
        (150, None, 90, True),  # warm: less context, so its thinking is cut
        (300, 64, 90, True),  # hot: no thinking is longer
        (300, 0, 90, True),  # critical: it may not even begin
        (150, 64, 9, False),  # heat took some of the budget, and nothing of this answer
    ],
)
def test_what_heat_cut_is_told(context: int, bound: int | None, thinks: int, hurried: bool) -> None:  # noqa: FBT001 - a table
    """An answer that a cool board would have thought longer about."""
    one = rig("yes", "h" * thinks, THINKING, context=300)
    one.preparation.context, one.preparation.reasoning_max = context, bound
    one.ask(1)
    one.run()
    assert (one.ended(1).text, one.ended(1).hurried) == ("yes", hurried)


@pytest.mark.parametrize("budget", [4, 5, 6, 7])
def test_a_character_that_the_budget_cuts_is_no_text(budget: int) -> None:
    """Where we close the thinking within a character, whole ones are shown, and no mark of a broken one."""
    one = rig("yes", "🙂" * 40, THINKING)
    one.ask(1, reasoning_budget=budget)
    one.run()
    assert one.ended(1).reasoning == one.pieces(1, "reasoning") == "🙂\n"
    assert one.ended(1).text == "yes"


def test_default_budget() -> None:
    """Without any budget named an answer comes all the same, within the context."""
    one = rig("yes", "hm " * 200, THINKING, context=96)
    one.ask(1)
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", "yes")


def test_no_thinking_at_all() -> None:
    """A budget of nothing goes straight to the answer."""
    one = rig("yes", "hm", THINKING)
    one.ask(1, reasoning_budget=0)
    one.run()
    assert (one.ended(1).text, one.ended(1).reasoning) == ("yes", "")
    assert one.ended(1).usage.reasoning_tokens == 0


def test_end_inside_the_thinking() -> None:
    """A model that stops inside its thinking is made to answer."""
    one = Rig(ScriptedModel(lambda _: Story(b"yes", b"hm", closes=False)), THINKING)
    one.ask(1)
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", "yes")
    assert one.ended(1).reasoning == "hm\n"


@pytest.mark.parametrize("after", [0, 1, 2, 6])
def test_end_reasoning(after: int) -> None:
    """The device may end the thinking: in line, while its prompt is read, or in the middle."""
    one = rig("yes", "hm " * 20, THINKING, batch_tokens=8)
    one.ask(1, "hello" * 3)
    for _ in range(after):
        one.scheduler.step()
    one.scheduler.end_reasoning(1)
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", "yes")
    assert len(one.ended(1).reasoning) <= 1 + max(1, after)
    one.check_idle()


def test_end_reasoning_of_others() -> None:
    """Ending the thinking of a question that does not think, is over, or never was, does nothing."""
    one = rig("yes")
    one.ask(1)
    one.scheduler.end_reasoning(1)
    one.scheduler.step()
    one.scheduler.end_reasoning(1)
    one.scheduler.end_reasoning(7)
    one.run()
    one.scheduler.end_reasoning(1)
    assert one.ended(1).text == "yes"


def test_end_reasoning_after_the_thinking() -> None:
    """Once the answer has begun there is no thinking to end."""
    one = rig("yes and no", "hm", THINKING)
    one.ask(1)
    while not one.pieces(1):
        one.scheduler.step()
    one.scheduler.end_reasoning(1)
    one.run()
    assert one.ended(1).text == "yes and no"


@pytest.mark.parametrize("max_tokens", range(1, 9))
def test_no_room_to_close(max_tokens: int) -> None:
    """A model that opens its thinking itself stays within max_tokens, where closing it has no room as well."""
    one = Rig(ScriptedModel(lambda _: Story(b"yes", b"hm", opens=True)), TAGGED)
    sequence = one.ask(1, max_tokens=max_tokens)
    one.run()
    usage = one.ended(1).usage
    assert usage.completion_tokens == (max_tokens if max_tokens > 1 + len(sequence.closing) else 1)
    assert usage.reasoning_tokens <= usage.completion_tokens
    assert "<think>" not in one.ended(1).text
    assert isinstance(one.reports[-1], Ended)
    one.check_idle()


def test_model_that_opens_its_thinking() -> None:
    """The opening tag of the model's own is no text."""
    one = Rig(ScriptedModel(lambda _: Story(b"yes", b"hm", opens=True)), TAGGED)
    one.ask(1)
    one.run()
    assert (one.ended(1).text, one.ended(1).reasoning) == ("yes", "\nhm")


def test_control_tokens_are_not_shown() -> None:
    """A control token in an answer has no text."""
    one = Rig(ScriptedModel(lambda _: Story((*b"ab", USER, *b"c"))))
    one.ask(1)
    one.run()
    assert one.ended(1).text == "abc"
    assert one.ended(1).usage.completion_tokens == 4


def test_control_tokens_of_a_model_that_thinks_are_not_shown() -> None:
    """Only the tags themselves are looked at, in the thinking and where one might begin, beside tools too."""
    opened = Rig(
        ScriptedModel(lambda _: Story(b"yes", (*b"h", USER, *b"m")), context=1024),
        THINKING,
        make_constraints=lambda: ScriptedConstraints(b"{}", b"{}"),
    )
    may_open = Rig(ScriptedModel(lambda _: Story((USER, *b"yes"))), TAGGED)
    opened.ask(1, tools=(Tool("f"),))
    may_open.ask(1)
    for one in (opened, may_open):
        one.run()
        assert one.ended(1).text == "yes"
    assert opened.ended(1).reasoning == "hm"


@pytest.mark.parametrize(
    ("template", "prompt", "bound"),
    [(THINKING, 150, None), (PLAIN, 2, 0)],
    ids=["long prompt", "no thinking"],
)
def test_what_heat_did_not_cut(template: str, prompt: int, bound: int | None) -> None:
    """A long prompt leaves less to think with on any board; a model that does not think loses nothing."""
    one = rig("yes", "h" * 90 if template == THINKING else "", template, context=300)
    one.preparation.reasoning_max = bound
    one.ask(1, "?" * prompt)
    one.run()
    assert (one.ended(1).text, one.ended(1).hurried) == ("yes", False)


# cancel, deadlines, aborts --------------------------------------------------------------------------------


def test_cancel_in_line() -> None:
    """A question that waits is taken back without having run."""
    one = rig(streams=1)
    one.ask(1)
    one.ask(2)
    one.scheduler.step()
    one.scheduler.cancel(2)
    assert one.reports[-1] == one.ended(2)
    assert (one.ended(2).outcome, one.ended(2).text) == ("cancelled", "")
    assert one.ended(2).usage.completion_tokens == 0
    one.run()
    assert one.started() == [1]


def test_cancel_running() -> None:
    """A running question ends at once with what there is of its answer, also what was held back."""
    one = rig("one ST and more")
    one.ask(1, stop=("STOP",))
    while one.pieces(1) != "one ":
        one.scheduler.step()
    one.scheduler.step()
    one.scheduler.step()
    one.scheduler.cancel(1)
    assert (one.ended(1).outcome, one.ended(1).text) == ("cancelled", "one ST")
    assert one.pieces(1) == "one ST"
    one.check_idle()


def test_cancel_what_is_over() -> None:
    """Cancelling twice, or what never was, says nothing."""
    one = rig()
    one.ask(1)
    one.run()
    told = len(one.reports)
    one.scheduler.cancel(1)
    one.scheduler.cancel(7)
    assert len(one.reports) == told


def test_cancel_stops_a_prompt() -> None:
    """The running pass is aborted when the prompt that it reads is taken back."""
    one = rig(batch_tokens=64)
    one.ask(1, "a" * 60)

    def interrupt() -> None:
        one.scheduler.interrupt(1)

    one.model.passes.during = interrupt
    assert one.scheduler.step()
    assert one.scheduler.counters.aborted == 1
    one.scheduler.cancel(1)
    assert one.ended(1).outcome == "cancelled"
    assert not one.scheduler.step()
    one.check_idle()


@pytest.mark.parametrize("prompt", [2, 60], ids=["writes", "reads"])
def test_who_asks_and_takes_back_holds_up_nobody(prompt: int) -> None:
    """A device in a hurry asks, takes back and asks again: who answers or reads beside it gets on all the same."""
    one = rig("abcdefgh", batch_tokens=64)
    one.ask(1, "b" * prompt)
    number, moves = 1, one.model.passes.during

    def during() -> None:
        moves()
        one.scheduler.interrupt(number)

    one.model.passes.during = during
    for number in range(2, 90):
        one.ask(number, f"{number:02}" * 30)
        one.scheduler.step()
        one.scheduler.cancel(number)
    assert one.ended(1).text == one.pieces(1) == "abcdefgh"
    one.check_idle()


def test_an_aborted_pass_is_run_again() -> None:
    """For all that were in it, and their text is what it would have been."""
    one = rig("abcdefgh", batch_tokens=64)
    one.ask(1)
    one.ask(2, "b" * 60)
    one.model.passes.abort = {1, 2, 4}
    one.run()
    assert one.scheduler.counters.aborted == 3
    assert one.ended(1).text == one.pieces(1) == one.ended(2).text == "abcdefgh"
    one.check_idle()


@pytest.mark.parametrize("whose", [1, 7])
def test_short_and_foreign_passes_go_on(whose: int) -> None:
    """A pass that is over in a moment is not aborted, and one that does not read this prompt neither."""
    one = rig("abc", batch_tokens=64)
    one.model.passes.during = lambda: one.scheduler.interrupt(whose)
    one.ask(1, "a" * (LONG_PASS_ROWS - 3) if whose == 1 else "a" * 60)
    one.run()
    assert one.scheduler.counters.aborted == 0
    assert one.ended(1).text == "abc"


def test_stale_interrupt() -> None:
    """An interrupt that comes too late does not hurt the next pass."""
    one = rig("abc")
    one.ask(1)
    one.model.passes.stop_pass()
    one.run()
    assert one.scheduler.counters.aborted == 0


def test_what_read_alone_once_takes_no_pass_from_others() -> None:
    """Its prompt was read by a pass that could be aborted; the next one is a stranger's too."""
    one = rig("abc", streams=2, batch_tokens=64)
    one.ask(1, "a" * 60)
    one.scheduler.step()
    one.model.passes.during = lambda: one.scheduler.interrupt(1)
    one.ask(2, "b" * 40)
    one.run()
    assert one.scheduler.counters.aborted == 0
    one.check_idle()


def test_deadline_in_line() -> None:
    """A question whose deadline passes before its turn is refused as expired."""
    one = rig("a" * 40, streams=1)
    one.ask(1)
    one.ask(2, deadline=one.clock() + 0.01)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert (refused.number, refused.code) == (2, "expired")
    assert one.started() == [1]
    one.check_idle()


def test_deadline_running() -> None:
    """A question whose deadline passes while it runs ends with what there is."""
    one = rig("a" * 100)
    one.ask(1, deadline=one.clock() + 0.02)
    one.run()
    assert one.ended(1).outcome == "deadline"
    assert 0 < len(one.ended(1).text) < 100
    assert one.pieces(1) == one.ended(1).text
    one.check_idle()


# several --------------------------------------------------------------------------------------------------


def test_side_by_side() -> None:
    """As many run as there are slots; the next one starts when one ends."""
    one = rig("abc", streams=2)
    for number in range(1, 4):
        one.ask(number)
    one.scheduler.step()
    assert (one.scheduler.running, one.scheduler.waiting) == (2, 1)
    one.run()
    assert [one.ended(number).text for number in range(1, 4)] == ["abc"] * 3
    one.check_idle()


def test_side_by_side_again() -> None:
    """When one in the middle ends, the others move together, and say what they would have said."""
    one = rig("a" * 60, streams=4, context=128)
    for number in range(1, 5):
        one.ask(number, "q" * number, max_tokens=4 if number in {2, 3} else 60)
    one.run()
    for number in (1, 4):
        assert one.ended(number).text == "a" * 60
    assert one.model.passes.loads == 2, "one exchange, of a running and an idle stream"
    one.check_idle()


def test_nobody_moves_for_little() -> None:
    """A move costs some passes: with few tokens to come it does not pay."""
    one = rig("a" * 60, streams=3, context=128)
    for number, tokens in enumerate((18, 4, 60), 1):
        one.ask(number, "q" * number, max_tokens=tokens)
    one.run()
    assert [one.ended(number).usage.completion_tokens for number in (1, 2, 3)] == [18, 4, 60]
    assert one.model.passes.loads == 0


def test_priorities() -> None:
    """The class of a priority goes first, then the client that had least, then who came first."""
    one = rig("a" * 30, streams=1)
    one.ask(1, client="greedy")
    one.scheduler.step()
    one.ask(2, client="greedy", priority="background")
    one.ask(3, client="greedy")
    one.ask(4, client="modest")
    one.ask(5, client="greedy", priority="interactive")
    one.run()
    assert one.started() == [1, 5, 4, 3, 2]


def test_a_shared_question_has_the_sooner_turn() -> None:
    """It begins when it would for whoever of those that wait for it would have been first."""
    one = rig("a" * 30, streams=1)
    one.ask(1, client="greedy")
    one.scheduler.step()
    for number in (2, 3, 4):
        one.ask(number, client="greedy")
    one.ask(5, client="reports", priority="background")
    one.scheduler.join(4, "modest", "normal", None)
    one.scheduler.join(5, "modest", "interactive", None)
    one.scheduler.join(5, "reports", "normal", None)
    one.scheduler.join(9, "modest", "interactive", None)  # over already
    one.run()
    assert one.started() == [1, 5, 4, 2, 3]


def test_who_joins_a_question_stands_where_a_newcomer_does() -> None:
    """And goes before nobody who came earlier."""
    one = rig("a" * 30, streams=1)
    one.ask(1, client="greedy")
    one.ask(2, client="greedy")
    while len(one.started()) < 2:
        one.scheduler.step()
    one.ask(3, client="other")
    one.ask(4, client="greedy")
    one.scheduler.join(4, "modest", "normal", None)
    one.run()
    assert one.started() == [1, 2, 3, 4]


def test_who_was_alone_before_is_served_beside_who_comes() -> None:
    """And who comes late, and asks without a pause, keeps nobody waiting until it has had as much."""
    one = rig("x" * 60, streams=1)
    for number in range(1, 30):
        one.ask(number, client="calm")
    for number in range(30, 60):
        one.scheduler.step()
        one.ask(number, client="flood")
    while len(one.started()) < 29:
        one.scheduler.step()
    for number in range(60, 66):
        one.ask(number, client="late")
    one.run()
    order = one.started()
    assert {30, 31} < set(order[:8])
    assert order.index(60) <= 31
    assert order.index(61) <= 34
    assert order.index(65) > 40, "of three clients the last comer has every third turn"


def test_reuse() -> None:
    """A conversation that goes on reads only what is new; a question that wants no reuse reads everything."""
    one = rig("yes", streams=1)
    one.ask(1, "a" * 40)
    one.run()
    answered = [Message("user", "a" * 40), Message("assistant", "yes"), Message("user", "b")]
    one.submit(submit(2, *answered))
    one.run()
    assert one.ended(2).usage.cached_tokens >= 41
    one.submit(submit(3, *answered, reuse=False))
    one.run()
    assert one.ended(3).usage.cached_tokens == 0
    assert one.ended(2).text == one.ended(3).text == "yes"


def test_answers_go_on_beside_a_long_prompt() -> None:
    """While a long prompt is read the running answer gets its token in every pass."""
    one = rig("a" * 250, batch_tokens=32)
    one.ask(1)
    for _ in range(5):
        one.scheduler.step()
    before = len(one.pieces(1))
    one.ask(2, "b" * 150)
    passes = 0
    while not one.pieces(2):
        one.scheduler.step()
        passes += 1
    assert passes >= 4
    assert len(one.pieces(1)) - before == passes


def test_a_long_prompt_is_read_beside_a_long_answer() -> None:
    """It holds that up for two seconds, lets it go on alone for as long, and goes on itself."""
    one = slow_rig("a" * 100, streams=2, batch_tokens=16)
    one.ask(1)
    one.scheduler.step()
    one.ask(2, "b" * 70)
    while not one.pieces(2):
        one.scheduler.step()
    assert 40 < len(one.pieces(1)) < 60


def test_an_urgent_prompt_is_read_before_a_long_one_of_lower_priority() -> None:
    """A free slot is of no use to an alarm whose prompt waits until a report's 200 tokens are read."""
    one = slow_rig("yes", streams=3, batch_tokens=16)
    one.ask(1, "r" * 200, priority="background")
    one.scheduler.step()
    one.ask(2, "a" * 20, priority="interactive")
    one.ask(3, "n" * 20, priority="normal")
    one.run()
    ends = [report.number for report in one.reports if isinstance(report, Ended)]
    assert ends == [2, 3, 1]
    one.check_idle()


def test_a_long_prompt_does_not_hold_up_another_client_s_short_one() -> None:
    """It was read to its end first, however many slots were free; two of one client keep their order."""
    one = slow_rig("yes", streams=4, batch_tokens=16)
    one.ask(1, "r" * 200, client="talker")
    one.scheduler.step()
    one.ask(2, "a" * 20, client="other")
    one.ask(3, "b" * 20, client="talker")
    one.run()
    ends = [report.number for report in one.reports if isinstance(report, Ended)]
    assert ends == [2, 1, 3]
    one.check_idle()


def test_a_short_prompt_goes_before_a_long_one_beside_one_that_can_wait() -> None:
    """What is kept waiting is looked for in the highest class: else all went by arrival beside a report."""
    one = slow_rig("yes", streams=3, batch_tokens=16, context=500)
    one.ask(1, "r" * 400, priority="background")
    one.scheduler.step()
    one.ask(2, "b" * 200)
    one.scheduler.step()
    one.ask(3, "a" * 80)
    one.run()
    ends = [report.number for report in one.reports if isinstance(report, Ended)]
    assert ends == [3, 2, 1]


def test_questions_that_come_at_once_are_written_together() -> None:
    """The first of them waits for the others' prompts, for four rows cost little more than one."""
    one = rig("a" * 30, streams=4, batch_tokens=64)
    for number in range(1, 5):
        one.ask(number, str(number) * 60, max_tokens=20)
    one.run()
    assert one.model.passes.rows_of == [62] * 4 + [4] * 19


def test_short_prompts_keep_a_long_one_from_no_more_than_half() -> None:
    """However many clients come with one question each, what began first goes on."""
    one = slow_rig("y", streams=3, batch_tokens=16, context=500)
    one.ask(1, "r" * 400, client="talker")
    one.scheduler.step()
    for number in range(2, 100):
        one.ask(number, chr(number) + "a" * 60, client=f"c{number}")
    while not any(isinstance(report, Ended) and report.number == 1 for report in one.reports):
        one.scheduler.step()
    assert sum(isinstance(report, Ended) for report in one.reports) < 40
    one.run()
    one.check_idle()


def test_estimate() -> None:
    """An estimate tells how many go first, counts those just announced, and grows with the line."""
    one = rig("a" * 20, streams=2)
    one.ask(1)
    one.run()
    measured = [
        one.preparation.prepare(submit(number, Message("user", "b" * 30)), 0.0) for number in range(2, 6)
    ]
    seen = []
    for sequence in measured:
        seen.append(one.scheduler.promises.estimate(sequence))
        one.scheduler.announce(sequence)
    assert [ahead for ahead, _ in seen] == [0, 0, 1, 2]
    times = [eta_s for _, eta_s in seen]
    assert times == sorted(times)
    assert times[0] > 0
    for sequence in measured:
        one.scheduler.submit(sequence)
    one.run()
    assert one.scheduler.promises.estimate(measured[0])[0] == 0


def test_answers_are_expected_to_be_as_long_as_they_were() -> None:
    """One that was taken back tells nothing of that."""
    one = rig("a" * 28)
    rates = one.scheduler.counters.rates
    one.ask(1)
    one.scheduler.step()
    one.scheduler.cancel(1)
    assert rates.answer_tokens == 128
    one.ask(2)
    one.run()
    assert rates.answer_tokens == pytest.approx(118)


def test_the_last_words_are_told_too() -> None:
    """What may have been a stop string, and what waits for the next delta's time, leaves in the end."""
    one = Rig(ScriptedModel(say("abcdefgh STO", "hm")), THINKING, delta_interval_s=60.0)
    one.ask(1, stop=("STOP",))
    one.run()
    assert (one.pieces(1), one.pieces(1, "reasoning")) == ("abcdefgh STO", "hm")


# schema ---------------------------------------------------------------------------------------------------


def constrained(
    one: Rig, number: int, text: bytes, free: int, until: int | None = None, **changes: Any
) -> None:
    """Ask a question whose answer is held to a text."""
    sequence = one.preparation.prepare(submit(number, Message("user", "hi"), **changes), one.clock())
    matcher: Any = Fixed(text, free, until)
    sequence.constraint = Constraint(matcher)
    one.scheduler.submit(sequence)


@pytest.mark.parametrize("free", [2, 7])
def test_schema(free: int) -> None:
    """An answer follows its schema, whatever the model would say, and forced tokens come in one pass."""
    one = rig("x" * 50)
    constrained(one, 1, b'{"a":1}', free, max_tokens=7)  # just enough
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", '{"a":1}')
    assert one.ended(1).usage.completion_tokens == 7
    assert len(one.model.passes.rows_of) == free
    one.check_idle()


def until_written(*, prompt: int) -> float:
    """How long an answer of 5 chosen, 115 forced and 5 chosen tokens takes beside another, and beside a prompt."""
    one = slow_rig("a" * 250, row_s=0.1, streams=3, batch_tokens=64)
    one.ask(1)
    constrained(one, 2, b"a" * 125, 5, 120)
    while not one.pieces(2):
        one.scheduler.step()
    begun = one.clock()
    if prompt:
        one.ask(3, "b" * prompt)
    while not any(isinstance(report, Ended) and report.number == 2 for report in one.reports):
        one.scheduler.step()
    return one.clock() - begun


def test_forced_tokens_do_not_wait_for_prompts() -> None:
    """Where answers have their turn, so has one that goes on with tokens which its schema forces upon it."""
    own_s = 0.1 * 125
    assert until_written(prompt=0) <= 1.2 * own_s
    assert until_written(prompt=150) <= 2 * own_s


@pytest.mark.parametrize("max_tokens", range(1, 7))
def test_schema_cut_short(max_tokens: int) -> None:
    """An answer that its schema's forced end has no room for is refused, never sent as if it were whole."""
    one = rig("x" * 50)
    constrained(one, 1, b'{"a":1}', 2, max_tokens=max_tokens)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert refused.code == "too_long"
    assert f"after {max_tokens} tokens; allow more max_tokens" in refused.message
    assert refused.details["max_tokens"] == max_tokens
    assert not any(isinstance(report, Ended) for report in one.reports)
    one.check_idle()


def test_forced_tokens_count() -> None:
    """What is forced in the midst of an answer is of its `max_tokens` too, and of the context that it may fill."""
    one = rig("a" * 200, context=64)
    constrained(one, 1, b"a" * 120, 5, 15, max_tokens=20)
    constrained(one, 2, b"a" * 120, 5, 15, max_tokens=15)
    constrained(one, 3, b"a" * 120, 5, 15)
    one.run()
    told = {report.number: report.details for report in one.reports if isinstance(report, Refused)}
    assert [told[number]["completion_tokens"] for number in (1, 2)] == [20, 15]
    assert told[3]["completion_tokens"] + told[3]["prompt_tokens"] == 64
    one.check_idle()


@pytest.mark.parametrize(
    ("answer", "schema", "refused"),
    [
        ("1234", "{}", True),
        ("1.5e12", "{}", True),
        ("true ", "{}", False),
        ("1234", None, False),  # text beside tools may end anywhere
        ("1", "{}", True),
        ("12", "{}", False),  # the model is done with it
        ("🙂", None, False),
        ("🙂", "{}", True),  # ends in the midst of a character
    ],
)
def test_a_number_that_may_have_lost_digits_is_no_answer(
    answer: str,
    schema: str | None,
    refused: bool,  # noqa: FBT001 - a table
) -> None:
    """12 is whole to a schema, whether or not the model would have gone on to 1234."""
    one = beside_tools(answer.encode() + (b"" if answer == "12" else b" " * 9))
    one.ask(1, tools=(Tool("f"),), max_tokens=len(answer) + (answer == "12"))
    [sequence] = one.scheduler._line.waiting.values()  # noqa: SLF001 - a text of any form has to be a schema's here
    sequence.order = msgspec.structs.replace(sequence.order, schema=schema)
    one.run()
    assert [report.code for report in one.reports if isinstance(report, Refused)] == ["too_long"] * refused
    assert any(isinstance(report, Ended) for report in one.reports) != refused


def test_what_is_taken_back_is_no_refusal() -> None:
    """Half a value, or half a call, is told as far as it came."""
    one = rig("x" * 50)
    constrained(one, 1, b'{"a":1}', 9)
    beside = beside_tools(OURS.write([Call("", "f", "{}")]).encode())
    beside.ask(1, tools=(Tool("f"),))
    for each in (one, beside):
        while not any(isinstance(report, Started) for report in each.reports):
            each.scheduler.step()
        each.scheduler.step()
        each.scheduler.cancel(1)
        assert each.ended(1).outcome == "cancelled"
        each.check_idle()
    assert one.ended(1).text == '{"'


def test_special_tokens_are_seen_where_calls_may_be_made_of_them() -> None:
    """Mistral's begin with one; elsewhere they are no text."""
    one = beside_tools(bytes(9))
    one.model.script = lambda _: Story((*b"a", SYSTEM, *b"b"))
    one.ask(1, tools=(Tool("f"),))
    one.ask(2)
    one.run()
    assert [one.ended(number).text for number in (1, 2)] == ["a<|system|>b", "ab"]


def test_schema_cut_short_in_a_later_round() -> None:
    """The numbers are those of the question: what the calls before took counts too."""
    one = rig("x" * 50)
    constrained(one, 1, b'{"a":1}', 9, max_tokens=4, spent=16)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert "after 20 tokens; allow more max_tokens" in refused.message
    assert (refused.details["max_tokens"], refused.details["completion_tokens"]) == (20, 20)


@pytest.mark.parametrize("asked", [{}, {"max_tokens": 300}, {"max_tokens": 252}])
def test_schema_cut_short_by_the_context(asked: dict[str, int]) -> None:
    """Where the context is full no more `max_tokens` would help: the refusal does not ask for them."""
    one = rig("x" * 400)
    constrained(one, 1, b'"' + b"x" * 400 + b'"', 500, **asked)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert refused.code == "too_long"
    assert "shorten the prompt" in refused.message
    assert "max_tokens" not in refused.message
    assert "max_tokens" not in refused.details
    one.check_idle()


@pytest.mark.parametrize("free", [0, 2])
@pytest.mark.parametrize("budget", [0, 100])
def test_schema_and_a_thinking_of_the_model_s_own(budget: int, free: int) -> None:
    """A model that begins its thinking itself may, where it has a budget: the form is the answer's."""
    one = Rig(ScriptedModel(lambda _: Story(b"no", b"hm", opens=True)), TAGGED)
    constrained(one, 1, b'{"a":1}', free, reasoning_budget=budget)
    one.run()
    assert (one.ended(1).text, one.ended(1).reasoning) == ('{"a":1}', "\nhm" if budget else "")
    one.check_idle()


def test_schema_and_stop_string() -> None:
    """A stop string that cuts a value in two makes it a refusal as well."""
    one = rig("x" * 50)
    constrained(one, 1, b'{"a":1}', 9, stop=(":",), max_tokens=20)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert "the answer was not complete after 5 tokens; leave out stop" in refused.message
    assert refused.details["stop"] == [":"]
    assert "max_tokens" not in refused.details
    one.check_idle()


def test_schema_and_deadline() -> None:
    """Half a value at the deadline is a refusal that says so, with the tokens that were written."""
    one = slow_rig("x" * 50)
    constrained(one, 1, b'{"a":1}', 9, deadline=one.clock() + 0.05 * 6.5)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert refused.code == "expired"
    written = refused.details["completion_tokens"]
    assert 0 < written < 7
    assert f"after {written} tokens; allow a longer deadline_ms" in refused.message


# limits ---------------------------------------------------------------------------------------------------


def limits(**changes: Any) -> SetLimits:
    """Limits that allow everything, but for `changes`."""
    everything: dict[str, Any] = {
        "context": 256,
        "slots": 2,
        "decode_threads": DECODE,
        "prefill_threads": PREFILL,
    }
    return SetLimits(**(everything | changes))


def test_fewer_slots() -> None:
    """With fewer slots, what runs goes on to its end, and the next starts when the number allows it."""
    one = rig("abcdef")
    one.ask(1)
    one.ask(2)
    one.ask(3)
    one.scheduler.step()
    assert one.started() == [1, 2]
    one.scheduler.limit(limits(slots=1))
    one.scheduler.cancel(1)
    one.scheduler.step()
    assert one.started() == [1, 2], "one slot is taken"
    one.run()
    assert one.started() == [1, 2, 3]
    assert one.ended(2).text == one.ended(3).text == "abcdef"
    one.scheduler.limit(limits())
    one.ask(4)
    one.ask(5)
    one.scheduler.step()
    assert one.scheduler.running == 2
    one.run()
    one.check_idle()


def test_threads_from_the_next_pass() -> None:
    """Both counts change between two passes, and cannot grow past what the engine was started with."""
    one = rig("abcd")
    one.scheduler.limit(limits(decode_threads=1, prefill_threads=3))
    one.ask(1)
    one.scheduler.step()
    one.scheduler.step()
    one.scheduler.limit(limits(decode_threads=99, prefill_threads=99))
    one.run()
    assert one.model.passes.threads == [3, 1, DECODE, DECODE, DECODE]


def test_fewer_cores_than_heat_allows() -> None:
    """Cores that were taken away bound the threads whatever heat allows, until they are back."""
    one = rig("abcd")
    one.scheduler.confine(1)
    one.scheduler.limit(limits())
    one.ask(1)
    one.scheduler.step()
    one.scheduler.step()
    one.scheduler.confine(one.scheduler.limits.threads_max)
    one.run()
    assert one.model.passes.threads == [1, 1, DECODE, DECODE, DECODE]


def test_pace() -> None:
    """At half pace a pass is followed by a rest of its own length; no pass is run inside it."""
    one = rig("abcd")
    one.scheduler.limit(limits(pace=0.5))
    one.ask(1)
    assert one.scheduler.step()
    assert not one.scheduler.step(), "it must rest"
    rest_s = one.scheduler.rest_s
    assert rest_s == pytest.approx(0.004)  # a prompt of four tokens, a millisecond each
    one.ask(2)
    one.scheduler.step()
    assert one.started() == [1, 2], "a rest is no reason to wait for a slot"
    one.clock.advance(rest_s)
    assert one.scheduler.step()
    one.scheduler.limit(limits())
    one.run()
    assert one.ended(1).text == one.ended(2).text == "abcd"
    one.check_idle()


def test_pace_shortens_passes() -> None:
    """A slow pace reads a long prompt in smaller passes, so that no rest is long."""
    one = rig("a", streams=1, context=512, batch_tokens=256)
    one.scheduler.limit(limits(pace=0.25, slots=1))
    one.ask(1, "x" * 200)
    one.scheduler.step()
    assert one.model.passes.rows_of == [64]


def test_pause() -> None:
    """While paused no pass runs and nothing is admitted; afterwards all goes on where it was."""
    one = rig("abcdef", streams=1)
    one.ask(1)
    one.scheduler.step()
    one.scheduler.limit(limits(paused=True, slots=1))
    passes = len(one.model.passes.rows_of)
    one.ask(2)
    for _ in range(5):
        assert not one.scheduler.step()
        one.clock.advance(60.0)
    assert len(one.model.passes.rows_of) == passes
    one.scheduler.limit(limits(slots=1))
    one.run()
    assert one.ended(1).text == one.ended(2).text == "abcdef"
    assert one.started() == [1, 2]
    one.check_idle()


def test_pause_holds_up_neither_deadline_nor_cancel() -> None:
    """A paused answer ends at its deadline with what it has; another is cancelled at once."""
    one = rig("abcdef", streams=3)
    one.ask(1, deadline=one.clock() + 10)
    one.ask(2)
    one.scheduler.step()
    one.scheduler.limit(limits(paused=True))
    one.ask(3, deadline=one.clock() + 10)
    one.scheduler.cancel(2)
    assert one.ended(2).outcome == "cancelled"
    one.clock.advance(11.0)
    assert not one.scheduler.step()
    assert (one.ended(1).outcome, one.ended(1).text) == ("deadline", "a")
    assert [report.code for report in one.reports if isinstance(report, Refused)] == ["expired"]
    one.check_idle()


def test_estimate_knows_pace_and_slots() -> None:
    """Half the pace takes twice the time, and one slot makes a line of what two would hold."""
    one = rig("abcd")
    one.ask(1)
    one.run()
    one.ask(2)
    two = one.preparation.prepare(submit(3, Message("user", "hi")), one.clock())
    ahead, eta_s = one.scheduler.promises.estimate(two)
    assert ahead == 0
    one.scheduler.limit(limits(pace=0.5))
    assert one.scheduler.promises.estimate(two)[1] == pytest.approx(2 * eta_s)
    one.scheduler.limit(limits(slots=1))
    assert one.scheduler.promises.estimate(two)[0] == 1


def test_estimate_knows_threads_and_clock() -> None:
    """A prompt takes as much longer as its cores are slower, at once; what was measured holds again afterwards."""
    one = rig("abcd")
    rates = one.scheduler.counters.rates
    rates.expect(0.25, 0.125)
    one.scheduler.limit(limits(prefill_threads=1, clock=0.5))
    assert rates.read_s == pytest.approx(2 * PREFILL * 0.125)
    assert rates.step_s == 0.25
    one.scheduler.limit(limits(prefill_threads=1, clock=0.0))
    one.scheduler.limit(limits())
    assert rates.read_s == pytest.approx(0.125)


# sessions -------------------------------------------------------------------------------------------------


def said(rig: Rig, number: int) -> tuple[str, tuple[int, ...]]:
    """What a session keeps of an answer."""
    kept = rig.ended(number).said
    assert kept is not None
    return kept.text, kept.tokens


def test_a_conversation_continues_from_its_tokens() -> None:
    """Three turns: each prompt is what stands in the cache and something new, and only that is computed."""
    rig = Rig(ScriptedModel(lambda text: Story(b"so " + text), context=250))
    messages: list[Message] = []
    sampled: dict[int, tuple[int, ...]] = {}
    stood: list[int] = []
    for number in range(1, 4):
        messages.append(Message("user", f"turn {number}"))
        sequence = rig.submit(submit(number, *messages, session=True, sampled=dict(sampled)))
        prompt = list(sequence.tokens)
        assert prompt[: len(stood)] == stood
        rig.run()
        assert rig.ended(number).usage.cached_tokens == len(stood)
        text, tokens = said(rig, number)
        assert text == f"so turn {number}"
        assert bytes(tokens) == text.encode()
        stood = [*prompt, *tokens]
        sampled[len(messages)] = tokens
        messages.append(Message("assistant", text))
    rig.check_idle()


@pytest.mark.parametrize("mode", ["hide", "separate", "inline"])
def test_a_session_keeps_no_thinking(mode: str) -> None:
    """However the thinking is shown, the answer alone is kept, with its own tokens."""
    rig = Rig(ScriptedModel(say("\n\nyes", "hm")), THINKING)
    rig.ask(1, session=True, reasoning_mode=mode)
    rig.run()
    assert said(rig, 1) == ("yes", tuple(b"yes"))


def test_a_cut_answer_is_kept_as_text() -> None:
    """Tokens that say more than the device saw are not kept."""
    rig = Rig(ScriptedModel(say("one, two")))
    rig.ask(1, session=True, stop=("ne,",))
    rig.run()
    assert said(rig, 1) == ("o", ())


def test_only_sessions_keep_their_words() -> None:
    """A question without a session is not told its tokens."""
    rig = Rig(ScriptedModel(say("yes")))
    rig.ask(1)
    rig.run()
    assert rig.ended(1).said is None


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 12000 + "]" * 12000], ids=["digits", "depth"])
def test_a_call_that_cannot_be_read(value: str) -> None:
    """Arguments beyond what we can read are refused, and cost no other question anything."""
    call = OURS.write([Call("", "f", f'{{"a": {value}}}')])
    one = Rig(
        ScriptedModel(lambda text: Story(call.encode() if text == b"call" else b"yes"), context=65536),
        make_constraints=lambda: ScriptedConstraints(b"{}", call.encode()),
    )
    one.ask(1, "call", tools=(Tool("f"),))
    one.ask(2)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert (refused.number, refused.code) == (1, "bad_request")
    assert "bound its numbers and depth" in refused.message
    assert one.ended(2).text == "yes"
    one.check_idle()


def beside_tools(answer: bytes, call: str = OURS.write([Call("", "f", "{}")])) -> Rig:
    """A rig whose model gives this answer where it may call a tool."""
    model = ScriptedModel(lambda _: Story(answer), context=1024)
    return Rig(model, make_constraints=lambda: ScriptedConstraints(b"{}", call.encode()))


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_text_beside_tools_may_end_anywhere(mode: str) -> None:
    """An answer that is no call is text, also where `max_tokens` ends it in the midst of a character."""
    for wanted in range(1, 9):
        one = beside_tools("🙂 é".encode())
        one.ask(1, tools=(Tool("f"),), tool_mode=mode, max_tokens=wanted)
        one.run()
        assert one.ended(1).outcome == ("length" if wanted < 8 else "stop")
        assert one.ended(1).text == "🙂 é".encode()[:wanted].decode(errors="ignore")
        one.check_idle()


@pytest.mark.parametrize(("max_tokens", "text"), [(6, "a "), (None, "a <too")])
def test_what_may_become_a_call(max_tokens: int | None, text: str) -> None:
    """It is text where the model has come to its end, and nothing where `max_tokens` has cut it."""
    one = beside_tools(b"a <too")
    one.ask(1, tools=(Tool("f"),), max_tokens=max_tokens)
    one.run()
    assert one.ended(1).text == one.pieces(1) == text


class Unforced(Free):
    """Its call is chosen token by token."""

    def compute_ff_tokens(self) -> list[int]:
        """Nothing is forced."""
        return []


def test_half_a_call_is_taken_back() -> None:
    """A cancel in the midst of a call ends the question as any other."""
    call = OURS.write([Call("", "f", "{}")]).encode()
    one = beside_tools(b"hm " + call)
    sequence = one.ask(1, tools=(Tool("f"),))
    matcher: Any = Unforced(OURS.trigger.encode(), call)
    sequence.constraint = Constraint(matcher)
    while not sequence.text.calling:
        one.scheduler.step()
    one.scheduler.cancel(1)
    assert (one.ended(1).outcome, one.ended(1).text, one.ended(1).calls) == ("cancelled", "hm ", ())
    one.check_idle()


def test_half_a_call_is_cut() -> None:
    """A call that `max_tokens` cuts is told as one."""
    call = OURS.write([Call("", "f", "{}")]).encode()
    one = beside_tools(call)
    sequence = one.ask(1, tools=(Tool("f"),), max_tokens=len(call) - 1)
    matcher: Any = Unforced(OURS.trigger.encode(), call)
    sequence.constraint = Constraint(matcher)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert (refused.code, refused.message.partition(" was")[0]) == ("too_long", "the tool call")


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_stop_string_beside_tools(mode: str) -> None:
    """It ends a text that might have been a call as it ends any other."""
    one = beside_tools(b"one STOP two")
    one.ask(1, tools=(Tool("f"),), tool_mode=mode, stop=("STOP",))
    one.run()
    assert (one.ended(1).outcome, one.ended(1).text) == ("stop", "one ")


@pytest.mark.parametrize("stop", ["<", "_", "f"])
def test_no_stop_string_in_a_call(stop: str) -> None:
    """Where the answer has to be a call there is no text to look for one in."""
    one = beside_tools(b"no")
    one.ask(1, tools=(Tool("f"),), tool_mode="required", stop=(stop,))
    one.run()
    assert one.ended(1).outcome == "tool_calls"


class Outgrown(Fixed):
    """One that gives up in the midst of the answer, as llguidance does at its limits."""

    def compute_bitmask(self) -> bytes:
        """Too much to compute."""
        self.failed = "too many items\nand a second line"
        return bytes(40)


def test_schema_outgrown() -> None:
    """A schema that becomes too large to follow costs its own question its answer, and no other."""
    one = rig("xyz")
    sequence = one.preparation.prepare(submit(1, Message("user", "hi")), one.clock())
    matcher: Any = Outgrown(b'{"a":1}', 7)
    sequence.constraint = Constraint(matcher)
    one.scheduler.submit(sequence)
    one.ask(2)
    one.run()
    [refused] = [report for report in one.reports if isinstance(report, Refused)]
    assert (refused.number, refused.code) == (1, "bad_request")
    assert "too many items" in refused.message
    assert one.ended(2).text == "xyz"


# beginnings in common -------------------------------------------------------------------------------------

HALL = "You are a device in a hall. Answer in short. "


def read_rows(one: Rig) -> int:
    """Rows of prompts that were computed."""
    return one.scheduler.counters.read


def test_a_common_beginning_is_computed_once() -> None:
    """Questions that come at once and begin alike wait until the first has read that, and copy it."""
    one = rig("yes", streams=4, batch_tokens=16)
    for number in range(1, 5):
        one.ask(number, HALL + f"Question {number}?")
    one.run()
    lone = len(HALL) + len("Question 1?") + 2
    assert one.ended(1).usage.cached_tokens == 0
    for number in range(2, 5):
        assert one.ended(number).usage.cached_tokens >= len(HALL)
    assert read_rows(one) < lone + 3 * 20
    assert one.model.passes.copies == 3
    one.check_idle()


def test_nobody_waits_for_a_beginning_that_cannot_be_cut_off() -> None:
    """Where memory does not go back, what another reads is of use to none that goes on otherwise."""
    one = rig("yes", streams=2, batch_tokens=16)
    one.model.passes.cuts = False
    one.ask(1, HALL + "a")
    one.ask(2, HALL + "b")
    one.scheduler.step()
    assert sorted(one.started()) == [1, 2]
    one.run()
    one.check_idle()


def test_whoever_waits_for_a_beginning_keeps_its_place() -> None:
    """Nobody of lower priority takes the slot meanwhile, and a client's own order stays as it is."""
    one = rig("yes", streams=2, batch_tokens=16)
    one.ask(1, HALL + "a", client="a", priority="interactive")
    one.scheduler.step()
    one.ask(2, HALL + "b", client="b", priority="interactive")
    one.ask(3, "short", client="b", priority="interactive")
    one.ask(4, "short", client="c", priority="background")
    one.run()
    assert one.started() == [1, 2, 3, 4]


def test_an_urgent_question_waits_for_no_beginning_of_lower_priority() -> None:
    """The report that begins like it is read last, behind as many as come: so long an alarm had no slot."""
    one = slow_rig("yes", streams=4, batch_tokens=16, context=500)
    one.ask(1, "n" * 300, client="n")
    one.scheduler.step()
    one.ask(2, HALL + "r" * 100, client="r", priority="background")
    one.scheduler.step()
    one.ask(3, HALL + "alarm", client="a", priority="interactive")
    one.run()
    ends = [report.number for report in one.reports if isinstance(report, Ended)]
    assert ends == [3, 1, 2]
    one.check_idle()


def test_whoever_begins_is_told_before_the_cache_is_touched() -> None:
    """Should that crash llama.cpp, it is known for whom; and a state from disk is kept no longer than that."""
    one = rig("yes")
    told: list[list[int]] = []
    sequence = one.measure(submit(1, Message("user", "y" * 100)))
    sequence.stored = Stored(sequence.tokens[:64], bytearray(b"?"), lambda: told.append(one.started()))
    one.put_in_line(sequence)
    one.scheduler.step()
    assert [told, sequence.stored] == [[[1]], None]
    one.run()
    one.check_idle()


def test_others_need_not_wait() -> None:
    """A question that begins otherwise, or wants nothing of the cache, starts at once where there is a slot."""
    one = rig("yes", streams=4, batch_tokens=16)
    one.ask(1, HALL + "a")
    one.ask(2, HALL + "b")
    one.ask(3, "short")
    one.ask(4, HALL + "c", reuse=False)
    one.scheduler.step()
    assert sorted(one.started()) == [1, 3, 4]
    one.run()
    assert one.ended(2).usage.cached_tokens >= len(HALL)
    assert one.ended(4).usage.cached_tokens == 0
    one.check_idle()


def test_nothing_is_kept_of_a_question_that_bypasses_the_cache() -> None:
    """Nobody waits for its beginning to copy it, and the same question again finds nothing of it."""
    one = rig("yes", streams=2, batch_tokens=16)
    one.ask(1, HALL + "a", reuse=False)
    one.ask(2, HALL + "a")
    one.scheduler.step()
    assert one.started() == [1, 2]
    one.run()
    assert one.ended(2).usage.cached_tokens == 0
    one.check_idle()
    assert one.scheduler.slots.held_tokens == len(HALL + "a") + 2 + len("yes")


def test_who_is_waited_for_may_be_cancelled() -> None:
    """Then the next one reads on from where it stopped."""
    one = rig("yes", streams=2, batch_tokens=16)
    one.ask(1, HALL + "a")
    one.ask(2, HALL + "b")
    one.scheduler.step()
    one.scheduler.step()
    one.scheduler.cancel(1)
    one.run()
    assert one.ended(2).text == "yes"
    assert one.ended(2).usage.cached_tokens > 0
    one.check_idle()


def copied_in_a_rest() -> Rig:
    """Two answers are written, and a third question has just been given what the first had read, in a rest."""
    one = rig("a" * 40, streams=3)
    one.ask(1, HALL + "a")
    one.ask(2, "b" * 100)
    while not (one.pieces(1) and one.pieces(2)):
        one.scheduler.step()
    one.scheduler.limit(limits(pace=0.5, slots=3))
    one.scheduler.step()
    one.ask(3, HALL + "c")
    assert not one.scheduler.step()
    assert one.model.passes.copies == 1
    return one


def test_a_move_in_a_rest_waits_for_the_copy() -> None:
    """llama.cpp copies when the next pass begins: until then nothing stands there that could be moved."""
    one = copied_in_a_rest()
    one.scheduler.cancel(2)
    assert not one.scheduler.step()
    one.scheduler.limit(limits(slots=3))
    one.run()
    assert one.model.passes.loads == 2  # the one that moved, and what stood there
    assert one.ended(1).text == one.ended(3).text == "a" * 40
    one.check_idle()


def test_nothing_is_saved_before_its_copy_is_made() -> None:
    """All questions are taken back in that rest: what the third was to be given is not there to be written."""
    one = copied_in_a_rest()
    for number in (1, 2, 3):
        one.scheduler.cancel(number)
    worthwhile = one.scheduler.slots.worthwhile(talks=True)
    assert worthwhile
    assert [one.scheduler.slots.state(at, len(tokens)) for at, tokens in worthwhile] == [None] * len(
        worthwhile
    )
    one.scheduler.limit(limits())
    one.ask(4, "other")
    one.run()
    assert any(
        one.scheduler.slots.state(at, len(tokens))
        for at, tokens in one.scheduler.slots.worthwhile(talks=True)
    )
    one.check_idle()


# the context may change -----------------------------------------------------------------------------------


def test_a_smaller_context_is_for_what_comes() -> None:
    """What runs or waits finishes in what it was given; the next one has less, or is told what it may have."""
    one = rig("x" * 500, streams=1, context=200)
    running, waiting = one.ask(1), one.ask(2)
    one.scheduler.step()
    one.preparation.context = 60
    smaller = one.ask(3)
    assert (running.context, waiting.context, smaller.context) == (200, 200, 60)
    with pytest.raises(Refusal, match="context holds 60") as caught:
        one.ask(4, "x" * 60)
    assert caught.value.details["context"] == 60
    one.run()
    for number, context in ((1, 200), (2, 200), (3, 60)):
        usage = one.ended(number).usage
        assert usage.prompt_tokens + usage.completion_tokens == context
    one.check_idle()


def test_a_larger_context_is_for_what_comes() -> None:
    """It grows back, and a conversation that had outgrown the smaller one is whole again."""
    one = rig("yes", context=200)
    turns = [Message("user" if at % 2 == 0 else "assistant", "x" * 9) for at in range(7)]
    one.preparation.context = 60
    assert one.submit(submit(1, *turns, overflow="trim_history")).trimmed == 4
    one.preparation.context = 200
    assert one.submit(submit(2, *turns, overflow="trim_history")).trimmed == 0
    one.run()
    assert [one.ended(number).trimmed for number in (1, 2)] == [4, 0]
    one.check_idle()


def test_estimate_knows_what_is_known() -> None:
    """A prompt that the cache holds is expected sooner than one that must be read, or wants to be."""
    one = rig("yes", streams=1)
    one.ask(1, HALL + "a")
    one.run()
    expected = [
        one.scheduler.promises.estimate(one.measure(submit(number, Message("user", text), reuse=reuse)))[1]
        for number, text, reuse in (
            (2, HALL + "b", True),
            (3, HALL[::-1] + "b", True),
            (4, HALL + "b", False),
        )
    ]
    assert expected[0] < expected[1]
    assert expected[1] == pytest.approx(expected[2], abs=0.002)  # both begin as every prompt does
