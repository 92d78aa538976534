"""The life of a question: every move of the table, and none that is not in it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.job import REPLAY_BYTES_MAX, TABLE, Happening, Job, State
from edged.core.question import Message, Question

ALL = list(itertools.product(State, Happening))


def job(state: State = State.STORING) -> Job:
    """A job in some state."""
    question = Question(
        client="c1",
        id="q1",
        made_id=False,
        plain=False,
        messages=(Message("user", "a"),),
        reply_to="edged/v1/client/c1/answer/q1",
    )
    return Job(question, question.digest(), arrived=0.0, deadline=None, size_bytes=9, state=state)


@pytest.mark.parametrize(("state", "happening"), sorted(TABLE, key=str), ids=str)
def test_moves(state: State, happening: Happening) -> None:
    """Each move of the table leads where it says."""
    one = job(state)
    one.move(happening)
    assert one.state is TABLE[state, happening]


@pytest.mark.parametrize(("state", "happening"), [pair for pair in ALL if pair not in TABLE], ids=str)
def test_no_other_moves(state: State, happening: Happening) -> None:
    """Anything else raises, names both, and leaves the job where it was."""
    one = job(state)
    with pytest.raises(ValueError, match=f"{happening.value} cannot follow {state.value}"):
        one.move(happening)
    assert one.state is state


@pytest.mark.parametrize("state", list(State))
def test_every_state_ends(state: State) -> None:
    """From everywhere there is a way out, and from the end there is none."""
    reached, edge = {state}, {state}
    while edge:
        edge = {after for (before, _), after in TABLE.items() if before in edge} - reached
        reached |= edge
    assert State.GONE in reached
    assert not any(before is State.GONE for before, _ in TABLE)


def test_a_crash_is_survived_everywhere() -> None:
    """The engine may vanish at any time after a job was stored."""
    for state in (State.WAITING, State.RUNNING, State.FINISHING):
        assert (state, Happening.ENGINE_GONE) in TABLE


def test_whole_life() -> None:
    """A question is stored, runs, crashes, runs again, ends, and is kept."""
    one = job()
    for happening in (
        Happening.STORED,
        Happening.STARTED,
        Happening.ENGINE_GONE,
        Happening.STARTED,
        Happening.ENDED,
        Happening.KEPT,
    ):
        one.move(happening)
    assert one.state is State.GONE


def test_seq() -> None:
    """Replies are counted from 0 without gaps, and from 0 again with the next attempt."""
    one = job()
    assert [one.next_seq() for _ in range(3)] == [0, 1, 2]
    one.submitted = True
    one.keep_for_resume(2, b"x")
    one.begin_anew()
    assert one.next_seq() == 0
    assert not one.submitted
    assert (len(one.replay), one.replay_bytes) == (0, 0)


@given(st.lists(st.integers(0, REPLAY_BYTES_MAX + 2), max_size=12))
def test_replay_is_bounded(sizes: list[int]) -> None:
    """The latest deltas are kept, as many as fit, and their size is known."""
    one = job()
    for seq, size in enumerate(sizes):
        one.keep_for_resume(seq, bytes(size))
        assert one.replay_bytes == sum(len(payload) for _, payload in one.replay) <= REPLAY_BYTES_MAX
    kept = [seq for seq, _ in one.replay]
    assert kept == list(range(len(sizes)))[len(sizes) - len(kept) :]


def test_key() -> None:
    """Devices know a job by client and id."""
    assert job().key == ("c1", "q1")
