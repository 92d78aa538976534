"""What a pass holds: never too much, every answer, and every prompt in the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.batching import CHUNK_MIN, CHUNK_S, PATIENCE_S, Need, Share, Turns, closing_up, plan, rows_for

BATCHES = st.integers(8, 64)


@st.composite
def needs(draw: st.DrawFn) -> list[Need]:
    """Up to eight sequences that read or write; some of those that write have tokens forced upon them."""
    reading = draw(st.lists(st.booleans(), max_size=8))
    forced = st.just(1) | st.integers(2, 80)
    return [Need(n, draw(st.integers(1, 200) if reads else forced), reads) for n, reads in enumerate(reading)]


@given(wanted=needs(), batch_tokens=BATCHES, chunk=st.integers(1, 64), waits=st.booleans())
def test_bounds(wanted: list[Need], batch_tokens: int, chunk: int, *, waits: bool) -> None:
    """A pass holds at most its rows, every answer once, prompts in order and no more of each than it needs."""
    hold = waits and any(need.reading for need in wanted)
    shares = plan(wanted, batch_tokens=batch_tokens, chunk=chunk, hold=hold)
    rows = {share.slot: share.rows for share in shares}
    assert len(rows) == len(shares)
    assert sum(rows.values()) <= batch_tokens
    writing = [need for need in wanted if not need.reading]
    assert all(0 < rows[need.slot] <= need.rows for need in writing if not hold)
    assert not any(need.slot in rows for need in writing if hold)
    reading = [need for need in wanted if need.reading]
    assert all(1 <= rows.get(need.slot, 1) <= need.rows for need in reading)
    got = [need.slot in rows for need in reading]
    assert got == sorted(got, reverse=True), "a later prompt was served before an earlier one"
    cut = [need.slot for need in reading if 0 < rows.get(need.slot, 0) < need.rows]
    assert cut in ([], [need.slot for need in reading[:1]]), "a prompt was cut to fill a pass"
    if writing:
        assert sum(rows.get(need.slot, 0) for need in reading) < chunk + CHUNK_MIN
    if wanted:
        assert shares


@given(needs(), BATCHES, st.integers(1, 64))
def test_nobody_starves(wanted: list[Need], batch_tokens: int, chunk: int) -> None:
    """Every prompt is read in the end, however long the answers beside it go on."""
    left = {need.slot: need.rows for need in wanted if need.reading}
    passes = 0
    while any(left.values()):
        now = [Need(n.slot, left.get(n.slot) or 1, bool(left.get(n.slot))) for n in wanted]
        for share in plan(now, batch_tokens=batch_tokens, chunk=chunk):
            if left.get(share.slot):
                left[share.slot] -= share.rows
        passes += 1
        assert passes <= sum(need.rows for need in wanted)


def test_prompts_alone_fill_the_pass() -> None:
    """Without answers to wait for it a prompt takes the whole pass; the next one comes along if it fits whole."""
    wanted = [Need(3, 20, reading=True), Need(1, 12, reading=True), Need(2, 100, reading=True)]
    assert plan(wanted, batch_tokens=32, chunk=16) == [Share(3, 20), Share(1, 12)]
    assert plan(wanted, batch_tokens=31, chunk=16) == [Share(3, 20)]
    assert plan(wanted[2:], batch_tokens=32, chunk=16) == [Share(2, 32)]


def test_answers_that_wait() -> None:
    """Held back they have no row, and prompts have as many as the chunk allows."""
    wanted = [Need(3, 20, reading=True), Need(1, 1, reading=False, fresh=True), Need(2, 20, reading=True)]
    assert plan(wanted, batch_tokens=64, chunk=50, hold=True) == [Share(3, 20), Share(2, 20)]
    assert plan(wanted, batch_tokens=64, chunk=16, hold=True) == [Share(3, 20)]


def test_prompts_beside_answers() -> None:
    """Beside answers a prompt gets a chunk, or its short rest, or nothing; answers come first."""
    wanted = [Need(3, 40, reading=True), Need(1, 1, reading=False)]
    assert plan(wanted, batch_tokens=64, chunk=16) == [Share(1, 1), Share(3, 16)]
    assert plan(wanted, batch_tokens=64, chunk=30) == [Share(1, 1), Share(3, 40)]
    assert plan(wanted, batch_tokens=32, chunk=30) == [Share(1, 1), Share(3, 31)]
    assert plan(wanted, batch_tokens=64, chunk=0) == [Share(1, 1)]


def test_room_for_one_prompt_row() -> None:
    """With as many rows as sequences a prompt still gets one."""
    wanted = [Need(0, 9, reading=True), Need(1, 1, reading=False), Need(2, 1, reading=False)]
    assert Share(0, 1) in plan(wanted, batch_tokens=3, chunk=16)


def test_forced_tokens_are_the_answers() -> None:
    """They are put in at once, beside other answers as many as prompts may have, and also while prompts wait."""
    forced, other = Need(3, 40, reading=False), Need(1, 1, reading=False)
    prompt = Need(2, 50, reading=True)
    assert plan([forced, prompt], batch_tokens=64, chunk=0) == [Share(3, 40)]
    assert plan([forced, other, prompt], batch_tokens=64, chunk=0) == [Share(3, CHUNK_MIN), Share(1, 1)]
    assert plan([forced, other], batch_tokens=64, chunk=30) == [Share(3, 30), Share(1, 1)]
    assert plan([forced, other], batch_tokens=16, chunk=30) == [Share(3, 15), Share(1, 1)]


def test_nothing_to_do() -> None:
    """Without needs there is no pass."""
    assert plan([], batch_tokens=32, chunk=16) == []


SECONDS = st.floats(0, 1e6) | st.floats(-1, 1)


@given(SECONDS, SECONDS, SECONDS, st.integers(1, 4096))
def test_chunk_bounds(seconds: float, step_s: float, read_s: float, batch_tokens: int) -> None:
    """Whatever was measured, a chunk is worth its pass and fits into it, or there is none."""
    turns = Turns()
    assert min(CHUNK_MIN, batch_tokens) <= turns.chunk(read_s, batch_tokens=batch_tokens) <= batch_tokens
    turns.passed(seconds, step_s, written=1, read=16)
    assert (turns.chunk(read_s, batch_tokens=batch_tokens) == 0) == (max(0.0, seconds - step_s) > PATIENCE_S)
    turns.passed(seconds, step_s, written=0, read=16)
    assert turns.owed_s == 0.0, "nobody was held up"


@pytest.mark.parametrize(
    ("read_s", "rows"),
    [
        (CHUNK_S / 100, 100),
        (CHUNK_S, CHUNK_MIN),
        (1e-9, 512),
        (5e-324, 512),
        (math.inf, CHUNK_MIN),
        (0.0, CHUNK_MIN),
    ],
)
def test_chunk_holds_answers_up_for_a_moment(read_s: float, rows: int) -> None:
    """Half a second of reading, but no chunk that is not worth its pass."""
    assert Turns().chunk(read_s, batch_tokens=512) == rows


PROMPTS = st.lists(st.integers(1, 2000), min_size=1, max_size=8)


@given(step_s=st.floats(0.001, 0.5), read_s=st.floats(0.0001, 0.2), prompts=PROMPTS, fresh=st.booleans())
def test_answers_keep_half_of_their_speed(
    step_s: float, read_s: float, prompts: list[int], *, fresh: bool
) -> None:
    """However many prompts come: at no time has an answer less than half of the tokens it would have had alone.

    But for what its patience and one chunk may hold it up; whether it has just begun or runs for long.
    """
    turns, left = Turns(), list(prompts)
    passed_s, tokens, longest = 0.0, 0, 0.0
    while any(left):
        wanted = [
            Need(0, 1, reading=False, fresh=fresh and tokens == 0),
            *(Need(n + 1, rows, True) for n, rows in enumerate(left) if rows),
        ]
        hold = turns.hold(wanted)
        assert not hold or wanted[0].fresh
        chunk = turns.chunk(read_s, batch_tokens=256, hold=hold)
        shares = plan(wanted, batch_tokens=256, chunk=chunk, hold=hold)
        read = sum(share.rows for share in shares if share.slot)
        for share in shares:
            if share.slot:
                left[share.slot - 1] -= share.rows
        seconds = read * read_s + (0.0 if hold else step_s)
        turns.passed(seconds, step_s, written=not hold, read=read, held=hold)
        passed_s, tokens = passed_s + seconds, tokens + (not hold)
        longest = max(longest, min(read, chunk + CHUNK_MIN) * read_s)
        assert tokens >= 0.5 * (passed_s - PATIENCE_S - longest) / step_s - 1e-6


def test_who_waits_for_whom() -> None:
    """Answers that have just begun wait for prompts, one that goes on does not, nor do others beside it."""
    prompt, old = Need(0, 9, reading=True), Need(1, 1, reading=False)
    fresh = Need(2, 1, reading=False, fresh=True)
    turns = Turns()
    assert turns.hold([prompt, fresh])
    assert not turns.hold([prompt, fresh, old])
    assert not turns.hold([fresh])
    assert turns.chunk(0.01, batch_tokens=999, hold=True) == 100 * PATIENCE_S
    turns.passed(0.9 * PATIENCE_S, 0.1, written=0, read=99, held=1)
    assert turns.hold([prompt, fresh])
    assert turns.chunk(0.01, batch_tokens=999, hold=True) == 100 * CHUNK_S
    turns.passed(0.2 * PATIENCE_S, 0.1, written=0, read=99, held=1)
    assert not turns.hold([prompt, fresh])
    assert turns.alone


def test_answers_have_their_turn() -> None:
    """Held up for long enough they go on alone until that is made good, and not after each short prompt."""
    turns = Turns()
    for _ in range(3):
        turns.passed(0.5 * PATIENCE_S, 0.1 * PATIENCE_S, written=1, read=50)
        assert turns.alone == (turns.owed_s > PATIENCE_S)
    assert turns.chunk(0.01, batch_tokens=64) == 0
    owed_s = turns.owed_s
    turns.passed(0.9 * owed_s, 0.1, written=1, read=0)
    assert turns.alone
    turns.passed(0.2 * owed_s, 0.1, written=1, read=0)
    assert not turns.alone
    assert turns.chunk(0.01, batch_tokens=64) == 50


STREAMS = st.lists(st.tuples(st.booleans(), st.integers(0, 100)), min_size=1, max_size=7)


@given(STREAMS)
def test_closed_up(streams: list[tuple[bool, int]]) -> None:
    """Afterwards the running ones follow each other; no way of doing it moves fewer tokens."""
    running, tokens = [runs for runs, _ in streams], [held for _, held in streams]
    pairs = closing_up(running, tokens)
    assert all(running[one] and not running[other] for one, other in pairs)
    assert len({number for pair in pairs for number in pair}) == 2 * len(pairs)
    after = list(running)
    for one, other in pairs:
        after[one], after[other] = False, True
    at = [number for number, runs in enumerate(after) if runs]
    assert at == list(range(at[0], at[-1] + 1)) if at else not pairs
    moved = sum(tokens[one] + tokens[other] for one, other in pairs)
    for start in range(len(running) - len(at) + 1):
        window = range(start, start + len(at))
        wrong = [n for n in range(len(running)) if (n in window) != running[n]]
        assert moved <= sum(tokens[n] for n in wrong)


def test_a_gap_is_closed_from_the_cheaper_side() -> None:
    """Three streams run, one of them alone: it moves, or the two do, whichever holds less."""
    running = [True, False, True, True]
    assert closing_up(running, [500, 0, 40, 40]) == [(3, 1)]
    assert closing_up(running, [10, 0, 400, 400]) == [(0, 1)]
    assert closing_up([False, True, True, False], [0, 1, 1, 0]) == []


@pytest.mark.parametrize(("width", "rows"), [(576, 256), (1023, 256), (1024, 128), (1536, 128)])
def test_rows_where_the_settings_name_none(width: int, rows: int) -> None:
    """Large models read prompts by 128 tokens, small ones by 256."""
    assert rows_for(width) == rows
