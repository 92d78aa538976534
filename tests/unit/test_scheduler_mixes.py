"""A thousand random mixes of everything that can happen to questions: each ends once, whole, and as it would alone.

The scripted model checks every row; this file checks what the devices see.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from scripted import PLAIN, TAGGED, THINKING, ScriptedModel, Story, submit
from scripted_rig import Rig

from edged.core.question import Message
from edged.engine.messages import Ended, Piece, Refused, Report, Started, Submit
from edged.engine.sequence import Sequence
from edged.errors import Refusal

GROUPS, MIXES = 20, 50
WORDS = ("a", "STOP", "é", "🙂", "\n\n", " ", "no ", "ST", "</thin")
STOPS = ("STOP", "o S", "🙂", "\n\n", "a")
OPENING = (
    "You are a device in a hall. Answer in short. "  # shared by many, so that streams are reused and copied
)


@functools.cache
def story(text: bytes, *, opens: bool) -> Story:
    """What the model says to a text: always the same, and something else to another text."""
    rng = random.Random(text)  # noqa: S311 - repeatable, not secret
    answer = "".join(rng.choices(WORDS, k=rng.randrange(10))) + "."
    thinking = "".join(rng.choices(WORDS, k=rng.randrange(24)))
    return Story(answer.encode(), thinking.encode(), closes=rng.random() < 0.7, opens=opens)


@dataclass
class Asked:
    """A question of a mix, as it was measured and what became of it."""

    sequence: Sequence
    tokens: list[int]
    room: int
    closing: int
    hurried: bool = False
    reports: list[Report] = field(default_factory=list)

    @property
    def order(self) -> Submit:
        """What was asked."""
        return self.sequence.order


class Mix:
    """One run of random questions and orders.

    Args:
        seed: all of it follows from this number.
    """

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.template = rng.choice([PLAIN, THINKING, TAGGED])
        self.settings = {
            "delta_interval_s": rng.choice([0.0, 0.02]),
            "system_prompt": rng.choice(["", "Be short."]),
        }
        slots = rng.randint(1, 4)
        self.shape = {
            "streams": slots,
            "context": rng.randint(70, 200),
            "batch_tokens": rng.randint(slots, 48),
        }
        self.rig = self.fresh()
        self.rig.model.passes.can_cut = rng.random() < 0.9
        self.rig.model.passes.abort = set(rng.sample(range(60), rng.randrange(5)))
        self.asked: dict[int, Asked] = {}

    def fresh(self) -> Rig:
        """A new engine of the same shape."""
        opens = self.template == TAGGED
        return Rig(
            ScriptedModel(lambda text: story(text, opens=opens), **self.shape), self.template, **self.settings
        )

    def order(self, number: int) -> Submit:
        """A random question."""
        rng = self.rng
        text = (OPENING if rng.random() < 0.5 else "") + "".join(rng.choices("abc ", k=rng.randrange(30)))
        messages = [Message("user", text + "?")]
        for _ in range(rng.randrange(3)):
            messages[:0] = [Message("user", text[:20] + "!"), Message("assistant", "so <|user|> so")]
        optional: dict[str, Any] = {
            "max_tokens": rng.randint(1, 40),
            "deadline": self.rig.clock() + rng.choice([0.0, 0.05, 0.2, 0.5]),
            "stop": tuple(rng.sample(STOPS, rng.randint(1, 2))),
            "reasoning_budget": rng.choice([0, 1, 5, 1000]),
        }
        return submit(
            number,
            *messages,
            client=rng.choice("xyz"),
            priority=rng.choice(["interactive", "normal", "background"]),
            reasoning_mode=rng.choice(["separate", "separate", "hide", "inline"]),
            stream=rng.random() < 0.8,
            overflow=rng.choice(["error", "trim_history"]),
            reuse=rng.random() < 0.9,
            **{key: value for key, value in optional.items() if rng.random() < 0.3},
        )

    def run(self) -> None:
        """Let everything happen."""
        rng, rig = self.rng, self.rig
        number, last = 0, rng.randint(2, 9)
        moves = rig.model.passes.during

        def during() -> None:
            moves()
            if rng.random() < 0.1:
                rig.scheduler.interrupt(rng.randint(1, last))

        rig.model.passes.during = during
        for _ in range(3000):
            while number < last and rng.random() < 0.3:
                number += 1
                self.ask(number)
            if rng.random() < 0.04:
                rig.scheduler.cancel(rng.randint(1, last + 1))
            if rng.random() < 0.04:
                self.hurry(rng.randint(1, last + 1))
            if not rig.scheduler.step() and number == last:
                break
        else:
            pytest.fail("the mix does not come to an end")
        for report in rig.reports:
            assert isinstance(report, Started | Piece | Ended | Refused)
            self.asked[report.number].reports.append(report)

    def ask(self, number: int) -> None:
        """Submit a random question, if it is not too long."""
        try:
            sequence = self.rig.submit(self.order(number))
        except Refusal as refusal:
            if refusal.code != "too_long":
                raise
            return
        self.asked[number] = Asked(sequence, list(sequence.tokens), sequence.room, len(sequence.closing))

    def hurry(self, number: int) -> None:
        """End a question's thinking."""
        self.rig.scheduler.end_reasoning(number)
        if number in self.asked:
            self.asked[number].hurried = True

    def alone(self, order: Submit) -> Ended:
        """The same question with the engine to itself and all the time it needs."""
        rig = self.fresh()
        rig.submit(msgspec.structs.replace(order, deadline=None))
        rig.run()
        return rig.ended(order.number)


def joined(asked: Asked, kind: str) -> str:
    """All pieces of a kind."""
    return "".join(r.text for r in asked.reports if isinstance(r, Piece) and r.kind == kind)


def check_order(asked: Asked) -> Ended | None:
    """A start, pieces, one end; or a refusal and nothing else. Returns the end."""
    *before, last = asked.reports
    if isinstance(last, Refused):
        assert before == []
        assert last.code == "expired"
        assert asked.order.deadline is not None
        return None
    assert isinstance(last, Ended)
    kinds = [type(report) for report in before]
    assert kinds == [Started, *[Piece] * (len(kinds) - 1)] or (kinds == [] and last.outcome == "cancelled")
    assert all(report.text for report in before if isinstance(report, Piece))
    return last


def check_counts(asked: Asked, ended: Ended, context: int) -> None:
    """The numbers of the end are those of the sequence, within all bounds."""
    usage = ended.usage
    assert usage.prompt_tokens == len(asked.tokens)
    assert 0 <= usage.cached_tokens < usage.prompt_tokens
    assert asked.order.reuse or usage.cached_tokens == 0
    assert usage.prompt_tokens + usage.completion_tokens <= context
    assert usage.completion_tokens <= asked.room
    assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
    assert asked.order.max_tokens is None or usage.completion_tokens <= asked.order.max_tokens
    assert usage.reasoning_tokens <= max(1, asked.sequence.budget) + asked.closing or asked.hurried
    assert ended.outcome != "length" or usage.completion_tokens > asked.room - asked.closing - 1
    assert ended.trimmed == 0 or asked.order.overflow == "trim_history"
    timings = ended.timings
    assert min(timings.queue_ms, timings.prefill_ms, timings.decode_ms) >= 0


def check_text(asked: Asked, ended: Ended) -> None:
    """The pieces are the end's text; what is not wanted is not there; stop strings never show."""
    order = asked.order
    if order.stream:
        assert joined(asked, "text") == ended.text
        assert joined(asked, "reasoning") == ended.reasoning
    else:
        assert not any(isinstance(report, Piece) for report in asked.reports)
    if order.reasoning_mode != "separate":
        assert ended.reasoning == ""
    if order.reasoning_mode != "inline":
        assert not any(word in ended.text for word in order.stop)
        assert "think>" not in ended.text + ended.reasoning


def check_alone(asked: Asked, ended: Ended, alone: Ended) -> None:
    """Alone the same question has the same answer, of which a shorter life shows the beginning."""
    if asked.hurried:
        if ended.outcome == alone.outcome == "stop" and asked.order.reasoning_mode != "inline":
            assert ended.text == alone.text
        return
    if ended.outcome in {"stop", "length"}:
        assert (ended.text, ended.reasoning, ended.outcome) == (alone.text, alone.reasoning, alone.outcome)
        assert ended.usage.completion_tokens == alone.usage.completion_tokens
        assert ended.usage.reasoning_tokens == alone.usage.reasoning_tokens
    elif not asked.order.stop:
        whole = "".join(ended.text).rstrip("\ufffd")
        assert alone.text.startswith(whole) or "</think" in alone.text + whole
        assert alone.reasoning.startswith(ended.reasoning.rstrip("\ufffd")) or "</thin" in ended.reasoning


@pytest.mark.parametrize("group", range(GROUPS))
def test_mixes(group: int) -> None:
    """Arrivals, cancels, deadlines, aborts, budgets, stops, sizes, priorities: one sound end for each question."""
    seen = set()
    for seed in range(group * MIXES, (group + 1) * MIXES):
        mix = Mix(seed)
        try:
            mix.run()
            mix.rig.check_idle()
            for asked in mix.asked.values():
                ended = check_order(asked)
                if ended is None:
                    seen.add("expired")
                    continue
                seen.add(ended.outcome)
                check_counts(asked, ended, mix.shape["context"])
                check_text(asked, ended)
                check_alone(asked, ended, mix.alone(asked.order))
            check_no_slot_lost(mix)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    assert seen == {"expired", "stop", "length", "cancelled", "deadline"}


def check_no_slot_lost(mix: Mix) -> None:
    """Afterwards as many questions as there are slots start at once."""
    rig, told = mix.rig, len(mix.rig.reports)
    rig.model.passes.abort = set()
    for number in range(1000, 1000 + mix.shape["streams"]):
        rig.ask(number, "?")
    rig.scheduler.step()
    assert len(list(starts(rig.reports[told:]))) == mix.shape["streams"]
    rig.run()
    rig.check_idle()


def starts(reports: list[Report]) -> Iterator[int]:
    """Numbers of the questions that got a slot."""
    return (report.number for report in reports if isinstance(report, Started))
