"""Idle rows: learned where they pay, put where nobody sees them, gone when the pass is over."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fixed_padding import FixedPadding

from edged.core.padding import AGAIN_AFTER, TRIALS, TRIALS_MIN, Padding, missing
from edged.engine import llama
from edged.engine.llama.bindings import C
from edged.engine.llama.rows import CELLS, Row, idle_rows
from edged.engine.ports import ABORTED

STREAMS, CONTEXT = 5, 512
CUT_ABOVE = 40
TEXT = "The hall has presses, pumps and fans; each has a number, a load, a temperature and a bearing at either end."


def test_which_passes_lack_rows() -> None:
    """Two or three rows beyond a group of four, up to thirty-two."""
    assert {rows: missing(rows) for rows in range(1, 70) if missing(rows)} == {
        group + rows: 4 - rows for group in range(0, 32, 4) for rows in (2, 3)
    }


def learn(cost: Callable[[int, bool], float], passes: int, padding: Padding | None = None) -> list[bool]:
    """Run passes of three rows that cost seconds by their number and whether they are padded."""
    padding = padding or Padding()
    taken = []
    for number in range(passes):
        taken.append(padding.pays(3, 2))
        padding.passed(3, 2, padded=taken[-1], seconds=cost(number, taken[-1]))
    return taken


def test_takes_turns_and_then_the_faster_way() -> None:
    """Five passes of each kind in turn; then the way that was faster by more than noise."""
    tries = [False, True] * TRIALS
    assert learn(lambda _n, padded: 0.10 if padded else 0.11, 30) == [*tries, *[True] * 20]
    assert learn(lambda _n, padded: 0.11 if padded else 0.10, 30) == [*tries, *[False] * 20]
    assert learn(lambda _n, padded: 0.099 if padded else 0.100, 30) == [*tries, *[False] * 20]


def test_what_is_plain_needs_fewer_passes() -> None:
    """Three of each, where every one of a kind is far slower than every one of the other."""
    tries = [False, True] * TRIALS_MIN
    assert learn(lambda _n, padded: 0.10 if padded else 0.15, 30) == [*tries, *[True] * 24]
    assert learn(lambda _n, padded: 0.157 if padded else 0.10, 30) == [*tries, *[False] * 24]
    unsteady = {0: 0.10, 1: 0.15, 2: 0.14}  # the second plain one met a busy machine
    taken = learn(lambda n, padded: unsteady.get(n, 0.15 if padded else 0.10), 30)
    assert taken == [*[False, True] * TRIALS, *[False] * 20]


def test_one_slow_pass_decides_nothing() -> None:
    """Something else ran on the machine for a moment."""
    slow = {1, 3}
    assert all(learn(lambda n, padded: 9.0 if n in slow else 0.1 if padded else 0.15, 30)[10:])
    assert not any(learn(lambda n, _padded: 9.0 if n == 0 else 0.1, 30)[10:])


def test_tries_again_after_a_while() -> None:
    """Padding paid, and does not any more."""
    padding = Padding()
    assert all(learn(lambda _n, padded: 0.1 if padded else 0.15, AGAIN_AFTER, padding)[2 * TRIALS_MIN :])
    later = learn(lambda _n, padded: 0.2 if padded else 0.15, 100, padding)
    assert later == [*[False, True] * TRIALS_MIN, *[False] * (100 - 2 * TRIALS_MIN)]


def test_each_number_of_rows_and_of_threads_is_its_own() -> None:
    """What pays with three rows and two threads says nothing of others."""
    padding = Padding()
    learn(lambda _n, padded: 0.1 if padded else 0.15, 30, padding)
    assert padding.pays(3, 2)
    assert not padding.pays(2, 2)
    assert not padding.pays(3, 4)


def test_rests_of_longer_prompts_are_tried_together() -> None:
    """By what is left over beyond the groups, whatever their number; the time is a group's."""
    padding = Padding()
    for rows in (18, 26, 22, 22, 30, 18, 18, 22, 26, 30):
        padded = padding.pays(rows, 2)
        padding.passed(rows, 2, padded=padded, seconds=(rows + 2) * (0.01 if padded else 0.012))
    assert all(padding.pays(rows, 2) for rows in (18, 22, 26, 30))
    assert not padding.pays(19, 2), "three are left over of these"
    assert not padding.pays(14, 2), "shorter ones have their own"
    assert not padding.pays(18, 4)


def placed(rows: list[Row], ends: list[int]) -> list[list[tuple[int, int]]]:
    """Where idle rows come: sequence and position of those before, and of those after."""
    count = missing(len(rows))
    found = idle_rows(rows, count, sequences=len(ends), room=CONTEXT, end=lambda one: ends[one])
    return [[(row.sequence, row.position) for row in each] for each in found]


def answers(*sequences: int, at: int = 10) -> list[Row]:
    """A row of each."""
    return [Row(7, at, sequence, logits=True) for sequence in sequences]


@pytest.mark.parametrize(
    ("rows", "ends", "expected"),
    [
        (answers(0, 1, 2), [10, 10, 10, 0], [[], [(3, 0)]]),
        (answers(0, 1, 2), [10, 10, 10, 200, 0], [[], [(3, 200)]]),
        (answers(1, 2, 3), [7, 10, 10, 10, CELLS], [[(0, 7)], []]),  # one that holds more would cost more
        (answers(1, 2, 3), [5, 10, 10, 10], [[(0, 5)], []]),
        (answers(1, 2), [5, 10, 10, 4], [[(0, 5)], [(3, 4)]]),
        (answers(0, 1), [10, 10, 3, 4, 5], [[], [(2, 3), (3, 4)]]),
        (answers(2, 3), [3, 4, 10, 10], [[(0, 3), (1, 4)], []]),
        (answers(0, 1), [10, 10, 3], [[], [(0, 11), (1, 11)]]),
        (answers(0, 1), [10, 10], [[], [(0, 11), (1, 11)]]),
        (answers(0, 1, at=CELLS - 1), [CELLS, CELLS], [[], []]),  # two rows of one would be rounded otherwise
        (answers(0, 1, 2), [10, 10, 10], [[], []]),  # no neighbour, and six rows are no group
        (answers(0, 1, 2), [10, 10, 10, CONTEXT], [[], []]),  # its neighbour is full
        (answers(0, 2, 3), [10, 0, 10, 10, 0], [[], []]),  # not side by side: computed in parts
        ([Row(7, 10, 0, True), Row(7, 11, 0, False), *answers(1)], [10, 10, 0], [[], []]),
        ([Row(7, at, 2, False) for at in range(10, 24)], [0, 0, 10], [[], [(2, 24), (2, 25)]]),
        ([Row(7, at, 0, False) for at in range(CONTEXT - 15, CONTEXT)], [CONTEXT - 15], [[], []]),
        ([Row(7, at, 0, False) for at in range(CONTEXT - 16, CONTEXT - 1)], [9], [[], [(0, CONTEXT - 1)]]),
    ],
)
def test_where_they_go(rows: list[Row], ends: list[int], expected: list[list[tuple[int, int]]]) -> None:
    """Beside the others, behind what their sequence holds, and nowhere where there is no room."""
    assert placed(rows, ends) == expected


@pytest.fixture(scope="module")
def model(small_model: Path) -> Iterator[llama.Model]:
    """The weights."""
    llama.start(lambda _level, _text: None)
    loaded = llama.Model(small_model)
    yield loaded
    loaded.close()


def contexts(model: llama.Model) -> list[tuple[llama.Context, FixedPadding]]:
    """Two caches: nothing is padded in one, all that can be in the other."""
    made = []
    for pays in (False, True):
        padding = FixedPadding(pays=pays)
        context = llama.Context(
            model,
            sequences=STREAMS,
            context=CONTEXT,
            batch_tokens=64,
            threads=1,
            kv_type="f16",
            padding=padding,
        )
        made.append((context, padding))
    return made


def ends(context: llama.Context) -> list[int]:
    """Tokens in each sequence, by llama.cpp's own books."""
    memory = C.llama_get_memory(context.pointer)
    return [C.llama_memory_seq_pos_max(memory, sequence) + 1 for sequence in range(STREAMS)]


def test_nobody_sees_them(model: llama.Model) -> None:
    """The same passes over two caches: the same cells after each, the same choices, logits but for rounding."""
    (plain, _), (padded, padding) = both = contexts(model)
    tokens = model.tokenize(TEXT, special=False)
    rng = random.Random(7)  # noqa: S311 - repeatable, not secret
    held = [0] * STREAMS
    for _ in range(60):
        if rng.random() < 0.5:
            first = rng.randrange(STREAMS)
            rows = [(held[s], s) for s in range(first, rng.randint(first, STREAMS - 1) + 1)]
        else:
            stream = rng.randrange(STREAMS)
            rows = [(held[stream] + at, stream) for at in range(rng.randint(1, 31))]
        for context, _ in both:
            numbers = [
                context.add(tokens[(position + 3 * stream) % len(tokens)], position, stream, logits=True)
                for position, stream in rows
            ]
            assert context.decode(1) == 0
        for position, stream in rows:
            held[stream] = position + 1
        assert ends(plain) == ends(padded) == held
        seen = [
            np.stack(
                [
                    np.ctypeslib.as_array(
                        C.llama_get_logits_ith(context.pointer, context.first_row + number),
                        shape=(context.vocabulary,),
                    )
                    for number in numbers
                ]
            )
            for context, _ in both
        ]
        np.testing.assert_allclose(seen[0], seen[1], atol=0.02)
        greedy = [
            [llama.Sampler(context, temperature=0, top_p=1, seed=1).choose(number) for number in numbers]
            for context, _ in both
        ]
        assert greedy[0] == greedy[1]
        for stream in range(STREAMS):
            if held[stream] > CUT_ABOVE:
                held[stream] = rng.randrange(CUT_ABOVE)
                assert plain.forget(stream, held[stream])
                assert padded.forget(stream, held[stream])
    assert padding.padded > 10
    plain.close()
    padded.close()


def test_an_aborted_pass_leaves_none(model: llama.Model) -> None:
    """Of a pass that was stopped, the caller cuts what it put there itself; the idle rows are not its affair."""
    (plain, _), (padded, padding) = contexts(model)
    plain.close()
    for stream in range(3):
        padded.add(5, 0, stream, logits=True)
    padded.stop_pass()
    assert padded.decode(1) == ABORTED
    padded.stop_pass(False)
    assert ends(padded)[3:] == [0, 0]
    for stream in range(3):
        padded.forget(stream)
        padded.add(5, 0, stream, logits=True)
    assert padded.decode(1) == 0
    assert ends(padded) == [1, 1, 1, 0, 0]
    assert padding.padded == 1
    padded.close()
