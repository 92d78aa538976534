"""KV streams: what a prompt finds there already, and that the books always say what the cache holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedPasses

from edged.engine.slots import COPY_MIN, Slots, Stored, common

LONG = list(range(COPY_MIN + 8))
OTHER = [200, *LONG]


class Streams:
    """Slots over scripted passes, with the life of a question in two words.

    Args:
        count: streams.
    """

    def __init__(self, count: int = 2, *, cuts: bool = True) -> None:
        self.passes = ScriptedPasses(count, context=300, batch_tokens=300, cuts=cuts)
        self.slots = Slots(self.passes, count)
        self.running: dict[int, list[int]] = {}

    def take(
        self,
        tokens: list[int],
        *,
        reuse: bool = True,
        talk: bool = False,
        stored: Stored | None = None,
        rests: bool = False,
    ) -> tuple[int, int]:
        """Begin a question: its stream, and what stood there of it; its pass comes later where the engine rests."""
        index, keep = self.slots.take(tokens, reuse=reuse, talk=talk, stored=stored)
        assert index not in self.running, "a busy stream was handed out"
        assert 0 <= keep < len(tokens), "nothing is left to compute"
        assert self.passes.kv[index] == tokens[:keep]
        self.running[index] = tokens[:keep]
        if not rests:
            self.compute(index, tokens[keep:])
        return index, keep

    def compute(self, index: int, tokens: list[int], *, abort: bool = False) -> None:
        """One pass over some tokens."""
        for at, token in enumerate(tokens):
            self.passes.add(token, self.slots.length(index) + at, index, logits=False)
        self.passes.stop_pass(abort)
        code = self.passes.decode(1)
        self.slots.passed()
        if code == 0:
            self.slots.extend(index, tokens)
            self.running[index] += tokens
        else:
            self.slots.restore(index)
            self.running[index] = self.running[index][: self.slots.length(index)]
        self.passes.stop_pass(False)

    def ask(self, tokens: list[int], **how: Any) -> tuple[int, int]:
        """Begin and end a question."""
        index, keep = self.take(tokens, **how)
        self.end(index)
        return index, keep

    def end(self, index: int) -> None:
        """End a question."""
        self.slots.release(index)
        del self.running[index]

    def close_up(self) -> dict[int, int]:
        """Bring the running ones side by side; returns who went where."""
        moved = self.slots.close_up()
        self.running = {moved.get(index, index): tokens for index, tokens in self.running.items()}
        return moved

    def check(self) -> None:
        """The books agree with the cache."""
        for index, tokens in self.running.items():
            assert self.passes.kv[index] == tokens
            assert self.slots.length(index) == len(tokens)
        assert self.slots.held_tokens == sum(map(len, self.passes.kv))
        assert self.slots.free == len(self.passes.kv) - len(self.running)


def test_first_questions() -> None:
    """Empty streams are taken one after the other."""
    streams = Streams(3)
    assert {streams.take([1, 2])[0], streams.take([3, 4])[0], streams.take([5, 6])[0]} == {0, 1, 2}
    assert streams.slots.free == 0


def test_conversation_goes_on() -> None:
    """A prompt that continues what a stream holds reads only what is new."""
    streams = Streams()
    index, _ = streams.ask(LONG)
    assert streams.take([*LONG, 90, 91]) == (index, len(LONG))


def test_same_prompt() -> None:
    """The same prompt again leaves its last token to compute: its logits are wanted."""
    streams = Streams()
    index, _ = streams.ask(LONG)
    assert streams.take(LONG) == (index, len(LONG) - 1)


def test_shorter_prompt() -> None:
    """A prompt that is the beginning of what a stream holds leaves a token to compute too."""
    streams = Streams(1)
    streams.ask(LONG)
    assert streams.take(LONG[:5]) == (0, 4)


def test_one_token() -> None:
    """A prompt of one token is always computed."""
    streams = Streams(1)
    streams.ask([7])
    assert streams.take([7]) == (0, 0)


def test_running_prefix_is_copied() -> None:
    """A prompt that begins as a running question does copies that part, and the question goes on undisturbed."""
    streams = Streams()
    index, _ = streams.take(LONG)
    other, keep = streams.take([*LONG[:-1], 99])
    assert other != index
    assert keep == len(LONG) - 1
    assert streams.passes.copies == 1
    assert streams.passes.kv[index] == LONG


def test_short_prefix_is_read_anew() -> None:
    """A few shared tokens are not worth a copy."""
    streams = Streams()
    streams.take(LONG)
    assert streams.take([*LONG[: COPY_MIN - 1], 99])[1] == 0
    assert streams.passes.copies == 0


def test_useful_prefix_survives() -> None:
    """A prompt that shares the smaller part of an idle stream leaves it to its own conversation."""
    streams = Streams()
    long = [*LONG, *range(100, 200)]
    index, _ = streams.ask(long)
    other, keep = streams.take([*LONG, 250])
    assert other != index
    assert keep == len(LONG)
    assert streams.passes.kv[index] == long


def test_oldest_goes_first() -> None:
    """Where nothing is shared the stream that was not used for longest is given up."""
    streams = Streams(3)
    for first in (10, 20, 30):
        streams.ask([first, 1])
    again, _ = streams.ask([10, 1, 2])
    index, keep = streams.take([40, 1])
    assert keep == 0
    assert index != again
    assert [20, 1] not in streams.passes.kv
    assert [30, 1] in streams.passes.kv


def test_empty_before_old() -> None:
    """An empty stream is taken before one that holds something."""
    streams = Streams()
    streams.ask([10, 1])
    streams.take([20, 1])
    assert [10, 1] in streams.passes.kv


def test_no_reuse() -> None:
    """A question that wants none of it reads everything anew."""
    streams = Streams(1)
    streams.ask(LONG)
    assert streams.take([*LONG, 9], reuse=False) == (0, 0)


def test_no_reuse_by_others() -> None:
    """Of a question that wants nothing kept, no other prompt gets anything, meanwhile or afterwards."""
    streams = Streams(2)
    index, _ = streams.take(LONG, reuse=False)
    assert streams.slots.longest([*LONG, 9]) == 0
    assert streams.ask([*LONG, 9])[1] == 0
    streams.end(index)
    streams.check()
    assert streams.passes.kv[index] == []


def test_memory_that_cannot_be_cut() -> None:
    """Where a stream cannot be cut a prompt that differs is read anew, and one that continues is not."""
    streams = Streams(1, cuts=False)
    streams.ask(LONG)
    assert streams.ask([*LONG, 9]) == (0, len(LONG))
    assert streams.take([*LONG[:-1], 99]) == (0, 0)
    streams.check()


def test_a_conversation_is_not_emptied_for_a_part_of_it_that_is_of_no_use() -> None:
    """A prompt that begins alike took its stream and could not cut it, beside an empty one: both were read anew."""
    streams = Streams(2, cuts=False)
    streams.ask([*LONG, 1, 2], talk=True)
    assert streams.ask([*LONG, 3]) == (1, 0)
    assert streams.ask([*LONG, 1, 2, 4], talk=True) == (0, len(LONG) + 2)
    assert streams.ask([200, 1]) == (1, 0)
    assert streams.passes.copies == 0
    streams.take([*LONG, 1, 2, 4, 5])
    assert streams.ask([*LONG, 1, 2, 4, 5, 6]) == (1, len(LONG) + 4)
    streams.check()


def test_an_empty_stream_is_taken_before_what_others_may_want() -> None:
    """Also where it was used last: nothing was to be kept of its question."""
    streams = Streams()
    streams.ask(LONG)
    streams.ask(OTHER, reuse=False)
    assert streams.ask([250, 251])[0] == 1
    assert streams.ask(LONG)[1] == len(LONG) - 1


def test_no_beginning_is_kept_of_memory_that_cannot_be_cut() -> None:
    """It was saved, emptied and put back twice a second while the engine rested; a whole conversation is kept."""
    streams = Streams(2, cuts=False)
    streams.take(LONG)
    streams.ask([*LONG, 9, 9])
    streams.compute(0, [8])
    streams.end(0)
    assert streams.slots.worthwhile(talks=True) == []
    streams.ask([*LONG, 9, 9, 7], talk=True)
    assert [tokens for _, tokens in streams.slots.worthwhile(talks=True)] == [[*LONG, 9, 9, 7]]


@pytest.mark.parametrize(("cuts", "left"), [(True, LONG), (False, [])])
def test_aborted_pass(cuts: bool, left: list[int]) -> None:  # noqa: FBT001 - a table
    """After an aborted pass the stream holds what it held before, or nothing where it cannot be cut."""
    streams = Streams(1, cuts=cuts)
    streams.take(LONG)
    streams.compute(0, [1, 2, 3, 4], abort=True)
    assert streams.passes.kv[0] == left
    assert streams.slots.length(0) == len(left)
    streams.check()


# what was on disk, and what is worth going there ----------------------------------------------------------


class OnDisk:
    """A state that was saved elsewhere; `rejected` tells that the cache did not take it."""

    def __init__(self, tokens: list[int], *, sound: bool = True) -> None:
        passes = ScriptedPasses(1, context=300, batch_tokens=300)
        passes.kv[0] = list(tokens)
        data = passes.save(0) if sound else bytearray(b"odd")
        self.rejected = False
        self.stored = Stored(list(tokens), data, self._reject)

    def _reject(self) -> None:
        self.rejected = True


def test_a_stored_prompt_is_taken() -> None:
    """An empty cache begins with what was on disk, cut where the prompt goes on by itself."""
    streams = Streams()
    assert streams.take([*LONG, 7], stored=OnDisk([*LONG, 99, 98]).stored)[1] == len(LONG)
    assert streams.passes.loads == 1
    streams.check()


def test_a_stored_prompt_goes_into_the_oldest_stream() -> None:
    """What other streams hold stays; what a stream holds already is not read from disk."""
    streams = Streams()
    streams.ask([200, 1, 2])
    index, _ = streams.ask([201, 1, 2])
    disk = OnDisk(LONG)
    other, keep = streams.ask([*LONG, 7], stored=disk.stored)
    assert (other != index, keep) == (True, len(LONG))
    assert streams.passes.kv[index] == [201, 1, 2]
    assert streams.ask([*LONG, 8], stored=disk.stored)[1] == len(LONG)
    assert streams.passes.loads == 1
    assert not disk.rejected


def test_a_state_that_is_not_taken() -> None:
    """Where llama.cpp does not take it, the prompt is computed, and the file's owner is told."""
    streams = Streams(1)
    disk = OnDisk(LONG, sound=False)
    assert streams.take([*LONG, 7], stored=disk.stored) == (0, 0)
    assert disk.rejected
    streams.check()


def test_a_question_that_wants_no_cache_takes_nothing_from_disk() -> None:
    """And what it leaves is not worth going there."""
    streams = Streams(1)
    assert streams.ask([*LONG, 7], reuse=False, talk=True, stored=OnDisk(LONG).stored) == (0, 0)
    assert streams.slots.worthwhile(talks=True) == []


def test_what_several_begin_with_is_worth_keeping() -> None:
    """Their common beginning, and no more of any of them; what one began with alone is not."""
    streams = Streams(3)
    streams.ask([*LONG, 1, 2, 3])
    assert streams.slots.worthwhile(talks=True) == []
    streams.ask([*LONG, 4, 5, 6])
    streams.ask([*LONG, 7])
    assert [tokens for _, tokens in streams.slots.worthwhile(talks=False)] == [LONG]


@pytest.mark.parametrize("told", [True, False])
def test_a_conversation_is_worth_keeping_after_a_while(told: bool) -> None:  # noqa: FBT001 - a table
    """All of it, whether it is a session or a device sends it again and again; not while it may go on at once."""
    streams = Streams(2)
    streams.ask(LONG, talk=told)
    streams.ask([*LONG, 1, 2], talk=told)
    assert streams.slots.worthwhile(talks=False) == []
    assert [tokens for _, tokens in streams.slots.worthwhile(talks=True)] == [[*LONG, 1, 2]]
    streams.ask([*LONG, 1, 2, 3], talk=told)
    assert [tokens for _, tokens in streams.slots.worthwhile(talks=True)] == [[*LONG, 1, 2, 3]]


@pytest.mark.parametrize("cuts", [True, False])
def test_the_state_of_a_beginning(cuts: bool) -> None:  # noqa: FBT001 - a table
    """It holds those tokens and no more, and the stream is as it was; where it cannot be cut there is none."""
    streams = Streams(1, cuts=cuts)
    streams.ask([*LONG, 1, 2, 3])
    assert streams.slots.state(0, len(LONG) + 3) == streams.passes.save(0)
    state = streams.slots.state(0, len(LONG))
    assert streams.passes.kv[0] == [*LONG, 1, 2, 3]
    streams.check()
    if not cuts:
        assert state is None
        return
    assert state is not None
    assert streams.passes.load(0, state)
    assert streams.passes.kv[0] == LONG


def test_all_is_forgotten() -> None:
    """What idle streams hold is gone; a running question goes on, and nothing of it is left when it ends."""
    streams = Streams(3)
    streams.ask(OTHER, talk=True)
    index, _ = streams.take(LONG, talk=True)
    streams.slots.forget_idle()
    streams.check()
    assert streams.slots.longest(OTHER) == 0
    assert streams.running[index] == LONG
    streams.compute(index, [90])
    streams.end(index)
    assert streams.slots.held_tokens == 0
    assert streams.take(OTHER)[1] == 0


@given(st.lists(st.integers(0, 1), max_size=12), st.lists(st.integers(0, 1), max_size=12))
def test_common_beginning(held: list[int], tokens: list[int]) -> None:
    """As long as it can be, but for the prompt's last token."""
    count = common(held, tokens)
    assert held[:count] == tokens[:count]
    at_end = count in {len(held), max(0, len(tokens) - 1)}
    assert at_end or held[count] != tokens[count]


PROMPTS = st.builds(
    lambda kind, shared, own: [*kind, *LONG[:shared], *own],
    st.sampled_from([[], [], [200]]),
    st.integers(0, len(LONG)) | st.just(len(LONG)),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
ACTS = st.lists(
    st.tuples(st.sampled_from(["take", "ask", "rest"]), PROMPTS, st.booleans(), st.integers(0, 3))
    | st.tuples(st.just("state"), st.just([]), st.booleans(), st.integers(0, 60))
    | st.tuples(
        st.just("write"),
        st.lists(st.integers(0, 3), min_size=1, max_size=3),
        st.booleans(),
        st.integers(0, 3),
    )
    | st.tuples(
        st.sampled_from(["end", "close_up", "forget"]), st.just([]), st.booleans(), st.integers(0, 3)
    ),
    min_size=6,
    max_size=30,
)
SHAPES = st.builds(lambda count, cuts: (count, cuts), st.integers(1, 4), st.booleans())


@given(SHAPES, ACTS)
def test_books(shape: tuple[int, bool], acts: list[tuple[str, list[int], bool, int]]) -> None:
    """Whatever comes and goes, each stream holds exactly what its question believes."""
    streams = Streams(shape[0], cuts=shape[1])
    for act, tokens, flag, whose in acts:
        running = sorted(streams.running)
        if act in {"take", "ask", "rest"} and streams.slots.free:
            disk = OnDisk([*LONG, whose], sound=whose < 3) if whose else None
            stored = None if disk is None else disk.stored
            index, _ = streams.take(tokens, reuse=flag or act == "ask", stored=stored, rests=act == "rest")
            if act == "ask":
                streams.end(index)
        elif act == "state":
            for index, worth in streams.slots.worthwhile(talks=flag):
                streams.slots.state(index, min(whose, len(worth)))
        elif act == "write" and running:
            streams.compute(running[whose % len(running)], tokens, abort=flag)
        elif act == "end" and running:
            streams.end(running[whose % len(running)])
        elif act == "forget":
            streams.slots.forget_idle()
            assert streams.slots.held_tokens == sum(map(len, streams.running.values()))
        elif act == "close_up":
            streams.close_up()
            at = sorted(streams.running)
            assert streams.passes.copying or not at or at == list(range(at[0], at[-1] + 1))
        streams.check()


def test_what_is_still_to_be_copied_is_not_written_over() -> None:
    """A prompt from disk does not go where another one's copy is still to be made from."""
    streams = Streams(3)
    for prompt in ([201, *LONG], [*LONG, *range(100, 200)], [202, *LONG]):
        streams.ask(prompt)
    assert streams.take([*LONG, 250], rests=True)[1] == len(LONG)
    assert streams.take([203, *LONG, 9], stored=OnDisk([203, *LONG]).stored)[1] == 0
    assert streams.passes.loads == 0
    streams.check()


def test_an_exchange_keeps_what_idle_streams_hold() -> None:
    """A running question moves beside the other; what stood there is continued from its new place."""
    streams = Streams(3)
    first, second, third = ([kind, *LONG] for kind in (210, 211, 212))
    assert [streams.take(tokens)[0] for tokens in (first, second, third)] == [0, 1, 2]
    streams.end(1)
    assert streams.close_up() == {2: 1}
    assert streams.close_up() == {}
    streams.check()
    assert sorted(streams.running) == [0, 1]
    assert streams.ask([*second, 9]) == (2, len(second))


def test_an_exchange_whose_states_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who moved is computed anew: it counts on nothing that is not in the cache."""
    streams = Streams(3)
    for kind in (210, 211, 212):
        streams.take([kind, *LONG])
    streams.end(1)
    monkeypatch.setattr(ScriptedPasses, "save", lambda *_: bytearray(1))
    assert streams.close_up() == {2: 1}
    assert [streams.slots.length(index) for index in range(3)] == [len(kv) for kv in streams.passes.kv]
    assert streams.slots.length(1) == 0
