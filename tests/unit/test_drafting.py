"""Speculation: what is guessed, when it is tried, and that no text is another for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_rig import RealRig, ask
from scripted import ScriptedModel, Story, say
from scripted_rig import Rig

from edged.core.drafting import ASK_AGAIN, ENDINGS, TRIALS, Drafting, Lookup, Luck, drafted_of
from edged.core.rates import Rates
from edged.engine.messages import Ended

TEXT = "pump 1 is warm, pump 2 is warm, pump 3 is warm, pump 4 is warm."


# what is guessed -------------------------------------------------------------------------------------------


def searched(tokens: Sequence[int], count: int) -> tuple[int, list[int]]:
    """The same by looking everywhere."""
    for size in ENDINGS:
        ending = tokens[-size:]
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == ending:
                text = list(tokens[start + size : start + size + count])
                period = len(tokens) - start - size
                while len(text) < count:
                    text.append(text[-period])
                return size, text
    return 0, []


@given(
    tokens=st.lists(st.integers(0, 3), max_size=40),
    steps=st.lists(st.integers(1, 5), max_size=40),
    count=st.integers(1, 3),
)
def test_finds_what_followed_the_latest_earlier_occurrence(
    tokens: list[int], steps: list[int], count: int
) -> None:
    """As looking everywhere does, however the text grew."""
    lookup, end = Lookup(), 0
    for step in [*steps, len(tokens)]:
        end = min(len(tokens), end + step)
        assert lookup.follow(tokens[:end], count) == searched(tokens[:end], count)


def test_what_repeats_goes_on_repeating() -> None:
    """A text that has come to its own end is continued from the beginning of what repeats."""
    assert Lookup().follow([1, 2, 1, 2, 1], 3) == (3, [2, 1, 2])
    assert Lookup().follow([5, 5, 5], 3) == (2, [5, 5, 5])


def test_rows_fill_a_group() -> None:
    """Four rows: three tokens beside one answer, one beside each of two, none beside more."""
    assert [drafted_of(answers) for answers in (1, 2, 3, 4, 8)] == [3, 1, 0, 0, 0]
    assert [drafted_of(answers, 2) for answers in (1, 2)] == [2, 1]
    assert drafted_of(1, 0) == 0


# when it is tried ------------------------------------------------------------------------------------------


def run(drafting: Drafting, passes: int, cost: float, won: float) -> list[bool]:
    """Passes of one answer; those with a draft take `cost` times as long and are expected to win `won` tokens."""
    taken = []
    for _ in range(passes):
        taken.append(drafting.pays([won], 2))
        drafting.passed(1, 2, drafted=taken[-1], seconds=cost if taken[-1] else 1.0)
    return taken[2 * TRIALS :]


def test_drafts_where_they_win_more_than_they_cost() -> None:
    """After some passes of each kind in turn; now and then it goes the other way, for costs change."""
    dear, cheap = run(Drafting(), 300, 1.8, 0.7), run(Drafting(), 300, 1.3, 0.7)
    assert 290 / ASK_AGAIN - 2 <= sum(dear) <= 290 / ASK_AGAIN + 1
    assert 290 / ASK_AGAIN - 2 <= cheap.count(False) <= 290 / ASK_AGAIN + 1


def test_notices_when_a_draft_has_become_dear() -> None:
    """Fewer threads, another clock, a longer text."""
    drafting = Drafting()
    assert run(drafting, 100, 1.3, 0.7)[-1]
    assert sum(run(drafting, 300, 1.8, 0.7)) < 40
    assert sum(run(drafting, 1000, 1.2, 0.7)) > 700


def test_a_draft_that_wins_nothing_is_never_made_on_purpose() -> None:
    """Where the speed has just doubled, old passes without drafts look dear: that is no reason to guess."""
    drafting = Drafting()
    run(drafting, 200, 1.3, 0.7)
    for _ in range(9):
        drafting.passed(1, 2, drafted=True, seconds=0.6)
    assert drafting.cost(1, 2) == 1.0
    assert sum(run(drafting, 100, 1.3, 0.0)) <= 100 / ASK_AGAIN + 1


def test_what_was_unlucky_is_tried_again_some_day() -> None:
    """An ending of two tokens won nothing in the answers before; in this one it may."""
    shared = Luck()
    for _ in range(200):
        shared.came_true((2, 3), 0)
    answer = Luck(shared)
    assert answer.expected((2, 3)) < 0.01
    for _ in range(100):
        answer.passed_over((2, 3))
    assert answer.expected((2, 3)) > 0.5
    assert Luck(shared).expected((2, 3)) > 0.5


def test_speed_alone_is_told_apart_from_speed_together() -> None:
    """After four answers at once one runs alone: its first pass is what is compared with the calibration."""
    rates = Rates()
    for _ in range(50):
        rates.passed(0.12, written=4, read=0)
        rates.together()
    assert rates.take_alone() == 0
    rates.drafted(0.26, answers=1, written=3)
    rates.alone(0.26 / 1.3)
    assert rates.take_alone() == pytest.approx(5)


def test_a_prompts_rate_is_not_what_drafts_make_of_it() -> None:
    """A pass with a prompt has no drafts: the answers in it took what they take without."""
    rates = Rates()
    for _ in range(100):
        rates.passed(0.1, written=1, read=0)
        rates.drafted(0.13, answers=1, written=3)
        rates.passed(0.1 + 64 * 0.002, written=1, read=64)
    assert rates.read_s == pytest.approx(0.002, rel=0.05)


def test_luck_is_an_answers_own_and_begins_with_that_of_others() -> None:
    """One answer copies, another does not; the next begins with what came of both."""
    drafting = Drafting()
    copying, free = drafting.new_luck(), drafting.new_luck()
    for _ in range(30):
        copying.came_true((4, 3), 3)
        free.came_true((4, 3), 0)
    assert copying.expected((4, 3)) > 2.9
    assert free.expected((4, 3)) < 0.1
    assert 1 < drafting.new_luck().expected((4, 3)) < 2
    assert drafting.new_luck().expected((2, 3)) == 1.0
    assert Luck().expected((4, 1)) == 1.0


# no text is another for it ---------------------------------------------------------------------------------


def told(model: ScriptedModel, most: int, texts: Sequence[str], **asked: object) -> tuple[list[Ended], Rig]:
    """How questions end with drafts of at most so many tokens."""
    rig = Rig(model)
    rig.flat = True
    rig.scheduler.drafts.most = most
    for number, text in enumerate(texts, start=1):
        rig.ask(number, text, **{"seed": None, **asked})
    rig.run()
    rig.check_idle()
    return [rig.ended(number) for number in range(1, len(texts) + 1)], rig


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"max_tokens": 41},
        {"max_tokens": 1},
        {"stop": ("4 is",)},
        {"stop": ("warm, pump 3",)},
        {"reuse": False},
    ],
)
@pytest.mark.parametrize("texts", [["?"], ["?", "again?"], ["a", "b", "c"]])
def test_the_same_text_in_fewer_passes(texts: list[str], asked: dict[str, object]) -> None:
    """One answer and two are written in fewer passes, three as before; to the letter the same."""
    plain, slow = told(ScriptedModel(say(TEXT), streams=3), 0, texts, **asked)
    drafted, fast = told(ScriptedModel(say(TEXT), streams=3), 3, texts, **asked)
    for before, after in zip(plain, drafted, strict=True):
        assert (after.text, after.outcome, after.usage) == (before.text, before.outcome, before.usage)
    passes = len(slow.model.passes.rows_of), len(fast.model.passes.rows_of)
    if asked.get("max_tokens") == 1:
        assert passes[0] == passes[1]
    elif len(texts) == 3:
        assert fast.scheduler.counters.drafted == 0
    else:
        assert passes[1] < 0.85 * passes[0]
        counters = fast.scheduler.counters
        assert 0 < counters.drafted_right <= counters.drafted


def test_nothing_is_drafted_beyond_the_context() -> None:
    """Where the context ends, so does the answer; a row more would have no room in the cache."""
    for size in range(60, 68):
        [ended], rig = told(ScriptedModel(say("ab" * 99), context=size), 3, ["?"])
        assert (ended.outcome, ended.usage.prompt_tokens + ended.usage.completion_tokens) == ("length", size)
        assert rig.scheduler.counters.drafted > 0


def test_where_a_row_costs_as_much_as_a_pass_few_are_made() -> None:
    """A board that computes no faster for four rows at once is asked now and then, and not slowed down."""
    rig = Rig(ScriptedModel(say(3 * TEXT), context=512))
    rig.scheduler.drafts.most = 3
    rig.ask(1, seed=None)
    rig.run()
    assert rig.ended(1).text == 3 * TEXT
    assert 0 < rig.scheduler.counters.drafted < 0.25 * 3 * len(TEXT)


def test_what_never_comes_true_is_not_tried_for_long() -> None:
    """Where two tokens won would pay for a draft, and each time others follow than did before."""
    text = "".join(f"ab{chr(at)}" for at in range(33, 97))
    rig = Rig(ScriptedModel(say(text)))
    passes = rig.model.passes
    passes.during = lambda: rig.clock.advance(0.001 + 0.0003 * (passes.rows_of[-1] - 1))
    rig.scheduler.drafts.most = 3
    rig.ask(1, seed=None)
    rig.run()
    assert rig.ended(1).text == text
    assert 0 < rig.scheduler.counters.drafted < 0.25 * len(text)


def test_beside_an_answer_that_repeats_nothing_guesses_that_do_not_pay_are_left() -> None:
    """Of two answers one has a guess, which a board that computes row after row can do without."""
    texts = {b"a": 3 * TEXT, b"b": "".join(map(chr, range(33, 124)))}
    rig = Rig(ScriptedModel(lambda asked: Story(texts[asked].encode()), context=512))
    rig.scheduler.drafts.most = 3
    for number, text in enumerate(texts, start=1):
        rig.ask(number, text.decode(), seed=None)
    rig.run()
    assert [rig.ended(number).text for number in (1, 2)] == [*texts.values()]
    assert 0 < rig.scheduler.counters.drafted < 0.25 * 3 * len(TEXT)


def test_nothing_is_guessed_where_nothing_came_before() -> None:
    """A text in which no two letters come again."""
    _, rig = told(ScriptedModel(say("".join(map(chr, range(33, 124))))), 3, ["?"])
    assert rig.scheduler.counters.drafted == 0


def test_beside_a_question_with_a_seed_none_is_drafted() -> None:
    """Its own pass would be another with the drafts of others in it."""
    rig = Rig(ScriptedModel(say(TEXT)))
    rig.flat = True
    rig.scheduler.drafts.most = 3
    for number, seed in ((1, 3), (2, None)):
        rig.ask(number, seed=seed)
    rig.run()
    assert rig.scheduler.counters.drafted == 0


def test_thinking_ends_in_the_midst_of_a_draft() -> None:
    """The budget is spent between two tokens that came true: what is written for the model comes in between."""
    story = Story(TEXT.encode(), b"warm warm warm warm warm warm warm warm")
    ends = [
        told(ScriptedModel(lambda _: story), most, ["?"], reasoning_budget=23, reasoning_mode="separate")[0][
            0
        ]
        for most in (0, 3)
    ]
    assert ends[0].reasoning == ends[1].reasoning
    assert (ends[0].text, ends[0].usage) == (ends[1].text, ends[1].usage)


def test_memory_that_cannot_be_cut_is_not_guessed_into() -> None:
    """Recurrent models could not take a wrong token out again."""
    model = ScriptedModel(say(TEXT))
    model.passes.cuts = False
    _, rig = told(model, 3, ["?"])
    assert rig.scheduler.counters.drafted == 0


def test_a_question_with_a_seed_is_written_without() -> None:
    """It is to repeat, and what is guessed hangs on how long passes took."""
    [ended], rig = told(ScriptedModel(say(TEXT)), 3, ["?"], seed=3)
    assert ended.text == TEXT
    assert rig.scheduler.counters.drafted == 0


def test_an_aborted_pass_leaves_no_draft() -> None:
    """What it put into the cache is taken out, and computed again."""
    model = ScriptedModel(say(TEXT))
    model.passes.abort = set(range(8, 60, 3))
    [ended], rig = told(model, 3, ["?"])
    assert ended.text == TEXT
    assert rig.scheduler.counters.aborted > 5


def test_rates_count_what_came_of_a_pass() -> None:
    """Tokens a second tell what a device gets; what is compared with a calibration leaves drafts out."""
    _, rig = told(ScriptedModel(say(TEXT)), 3, ["?"])
    rates = rig.scheduler.counters.rates
    assert rates.written_per_s > 1_200
    assert 999 < rates.take_alone() < 1_001
    assert rates.take_alone() == 0
    assert rates.step_s < 0.001


READINGS = (
    "Write these readings as JSON: pump 3: 61 C, 1480 rpm; pump 4: 74 C, 1475 rpm; pump 5: 58 C, 0 rpm."
)
NUMBER = {"type": "integer"}
LIST = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"pump": NUMBER, "temp": NUMBER},
        "required": ["pump", "temp"],
        "additionalProperties": False,
    },
    "maxItems": 4,
}


def test_the_real_model_says_the_same(small_model: Path) -> None:
    """Greedy and sampled with a seed, alone and two at a time, held to a schema and not."""
    orders = [
        [ask(1, READINGS, max_tokens=60, temperature=0.0, seed=None)],
        [ask(2, READINGS, max_tokens=60, temperature=0.8, seed=None)],
        [
            ask(3, READINGS, max_tokens=60, temperature=0.0, seed=None),
            ask(4, READINGS + " Be exact.", max_tokens=60, seed=None),
        ],
        [ask(5, READINGS, max_tokens=120, temperature=0.0, seed=None, schema=json.dumps(LIST))],
    ]
    said: list[list[str]] = []
    counters = []
    for most in (0, 3):
        rig = RealRig(small_model, fixed_seed=5)
        rig.scheduler.drafts.most = most
        texts = []
        for group in orders:
            for order in group:
                rig.submit(order)
            for _, end in sorted(rig.run().items()):
                assert isinstance(end, Ended)
                texts.append(end.text)
        said.append(texts)
        counters.append(rig.scheduler.counters)
    assert len(said[0]) == 5
    assert said[0] == said[1]
    assert counters[1].drafted_right > 20
    assert counters[1].steps < counters[0].steps
