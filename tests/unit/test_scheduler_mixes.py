"""A thousand random mixes of everything that can happen to questions: each ends once, whole, and as it would alone.

Conversations go on from one question to the next, prompts go to disk and come back in later mixes, the context
shrinks and grows. The scripted model checks every row; this file checks what the devices see.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted import PLAIN, TAGGED, THINKING, Clock, ScriptedModel, Story, submit
from scripted_constraints import ScriptedConstraints
from scripted_rig import Rig

from edged.core.question import Message
from edged.core.tools import Call, Tool
from edged.core.wear import DAY_S
from edged.engine.calls import CallForm
from edged.engine.messages import Ended, Piece, Refused, Report, SetLimits, Started, Submit
from edged.engine.prefixes import TOKENS_MIN, Prefixes
from edged.engine.sequence import Sequence
from edged.errors import Refusal

GROUPS, MIXES = 20, 50
WORDS = ("a", "STOP", "é", "🙂", "\n\n", " ", "no ", "ST", "</thin")
STOPS = ("STOP", "o S", "🙂", "\n\n", "a")
VALUE = b'{"ok":true}'
FORM = CallForm("<c>", ":", "</c>", "</c><c>")
CALL = FORM.write([Call("", "f", "{}")])
TOOL = Tool("f")
OPENING = (
    "You are a device in a hall. Answer in short. "  # shared by many, so that streams are reused and copied
)
LONG_OPENING = "The hall has presses, pumps and fans; each has a number, a load and a temperature. " + OPENING
"""The same, long enough to go to disk."""
STORE_BYTES = 8_000  # a token has two bytes in the cache, four in the file's head
SLOW_S = 1.0  # seconds to compute a token: reading from disk always pays


def with_tools(template: str) -> str:
    """A template that lists tools, and writes calls in `FORM`."""
    listed = "{% for t in tools or [] %}{{ t.function.name }}{{ t.function.parameters | tojson }}{% endfor %}"
    call = "<c>{{ c.function.name }}:{{ c.function.arguments | tojson }}</c>"
    calls = f"{{% for c in turn.tool_calls or [] %}}{call}{{% endfor %}}"
    return listed + template.replace("{{ turn.content }}", f"{{{{ turn.content }}}}{calls}")


@functools.cache
def story(text: bytes, *, opens: bool) -> Story:
    """What the model says to a text: always the same, and something else to another text."""
    rng = random.Random(text)  # noqa: S311 - repeatable, not secret
    answer = "".join(rng.choices(WORDS, k=rng.randrange(10))) + "."
    if rng.random() < 0.3:
        answer = (
            answer[: rng.randrange(9)] + FORM.trigger + answer
        )  # a call, where there are tools; else text
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
    talk: str | None = None
    reports: list[Report] = field(default_factory=list)

    @property
    def order(self) -> Submit:
        """What was asked."""
        return self.sequence.order


class Mix:
    """One run of random questions and orders.

    Args:
        seed: all of it follows from this number.
        prefixes: what mixes before this one have left on disk.
    """

    def __init__(self, seed: int, prefixes: Prefixes) -> None:
        self.prefixes = prefixes
        self.rng = rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.opens = rng.choice([False, False, True])
        self.template = with_tools(TAGGED if self.opens else rng.choice([PLAIN, THINKING]))
        self.settings = {
            "delta_interval_s": rng.choice([0.0, 0.02]),
            "system_prompt": rng.choice(["", "Be short."]),
            "make_constraints": lambda: ScriptedConstraints(VALUE, CALL.encode()),
        }
        slots = rng.randint(1, 4)
        self.shape = {
            "streams": slots,
            "context": rng.randint(70, 300),
            "batch_tokens": rng.randint(slots, 48),
        }
        self.rig = self.fresh()
        self.rig.model.passes.cuts = rng.random() < 0.9
        self.rig.model.passes.abort = set(rng.sample(range(60), rng.randrange(5)))
        self.rig.flat = seed % 2 == 0
        self.rig.scheduler.drafts.most = rng.choice([0, 1, 3])
        self.asked: dict[int, Asked] = {}
        self.talks: dict[str, list[Message]] = {}
        self.sampled: dict[str, dict[int, tuple[int, ...]]] = {}
        self.talking: set[str] = set()
        self.heard = 0

    def fresh(self) -> Rig:
        """A new engine of the same shape."""
        model = ScriptedModel(lambda text: story(text, opens=self.opens), **self.shape)
        return Rig(model, self.template, **self.settings)

    def order(self, number: int) -> Submit:
        """A random question."""
        rng = self.rng
        opening = rng.choice(["", OPENING, LONG_OPENING, LONG_OPENING])
        text = opening + "".join(rng.choices("abc ", k=rng.randrange(30)))
        messages = [Message("user", text + "?")]
        client = rng.choice("xyz")
        talk = client not in self.talking and rng.random() < 0.3
        if talk:
            messages[:0] = self.talks.get(client, [])
        else:
            for _ in range(rng.randrange(3)):
                messages[:0] = [Message("user", text[:20] + "!"), Message("assistant", "so <|user|> so")]
        held: dict[str, Any] = rng.choice(
            [
                {},
                {},
                {},
                {"schema": "{}"},
                {"tools": (TOOL,), "tool_mode": rng.choice(["auto", "required", "none"])},
            ]
        )
        optional: dict[str, Any] = {
            "max_tokens": rng.randint(1, 40),
            "deadline": self.rig.clock() + rng.choice([0.0, 0.05, 0.2, 0.5]),
            "stop": tuple(rng.sample(STOPS, rng.randint(1, 2))),
            "reasoning_budget": rng.choice([0, 1, 5, 1000]),
            "context": self.shape["context"],  # of a round before this one, when the board was cool
        }
        return submit(
            number,
            *messages,
            client=client,
            session=talk,
            sampled=self.sampled.get(client, {}) if talk else {},
            priority=rng.choice(["interactive", "normal", "background"]),
            reasoning_mode=rng.choice(["separate", "separate", "hide", "inline"]),
            stream=rng.random() < 0.8,
            overflow=rng.choice(["error", "trim_history"]),
            reuse=rng.random() < 0.9,
            seed=rng.choice([None, None, 1]),
            **held,
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
            self.disturb(last + 1)
            resting = not rig.scheduler.step()
            rig.check_books()
            if resting and (rig.scheduler.limits.paused or rig.scheduler.rest_s):
                resting = False
                rig.clock.advance(0.01)
            self.listen()
            if resting or rng.random() < 0.1:
                self.keep()
            if resting and number == last:
                break
        else:
            pytest.fail("the mix does not come to an end")
        for report in rig.reports:
            assert isinstance(report, Started | Piece | Ended | Refused)
            self.asked[report.number].reports.append(report)

    def disturb(self, highest: int) -> None:
        """Now and then a cancel, an end of the thinking, another context, or other limits."""
        rng = self.rng
        if rng.random() < 0.04:
            self.rig.scheduler.cancel(rng.randint(1, highest))
        if rng.random() < 0.04:
            self.hurry(rng.randint(1, highest))
        if rng.random() < 0.02:
            self.rig.preparation.context = rng.randint(60, self.shape["context"])
        if rng.random() < (0.2 if self.rig.scheduler.limits.paused else 0.04):
            self.limit(rng.randint(1, 4), pace=rng.choice([0.3, 1.0]), paused=rng.random() < 0.2)

    def limit(self, slots: int, *, pace: float = 1.0, paused: bool = False) -> None:
        """What the engine may do from now on."""
        self.rig.scheduler.limit(SetLimits(0, slots, 1, 1, pace=pace, paused=paused))

    def ask(self, number: int) -> None:
        """Submit a random question, if it is not too long."""
        order = self.order(number)
        try:
            sequence = self.rig.measure(order)
        except Refusal as refusal:
            if refusal.code != "too_long":
                raise
            return
        if order.reuse:
            known = self.rig.scheduler.slots.longest(sequence.tokens)
            sequence.stored = self.prefixes.fetch(sequence.tokens, known, SLOW_S)
        self.rig.put_in_line(sequence)
        self.asked[number] = Asked(sequence, list(sequence.tokens), sequence.room, len(sequence.closing))
        if order.session:
            self.talking.add(order.client)

    def listen(self) -> None:
        """Go on with the conversations whose answers have come, as the daemon does."""
        for report in self.rig.reports[self.heard :]:
            if not isinstance(report, Ended | Refused) or not self.asked[report.number].order.session:
                continue
            order = self.asked[report.number].order
            self.talking.discard(order.client)
            if isinstance(report, Ended) and report.said is not None and report.said.text:
                if report.outcome == "cancelled":
                    continue
                messages = list(order.messages)
                self.sampled[order.client] = {**order.sampled, len(messages): report.said.tokens}
                self.talks[order.client] = [*messages, Message("assistant", report.said.text)]
        self.heard = len(self.rig.reports)

    def keep(self) -> None:
        """Have written what may be wanted again, as the engine does when it rests; here also while others run."""
        scheduler = self.rig.scheduler
        for index, tokens in scheduler.slots.worthwhile(talks=self.rng.random() < 0.5):
            if (
                self.prefixes.wants(tokens)
                and (state := scheduler.slots.state(index, len(tokens))) is not None
            ):
                assert len(tokens) >= TOKENS_MIN
                self.prefixes.put(tokens, state)
                self.prefixes.settle()

    def hurry(self, number: int) -> None:
        """End a question's thinking."""
        self.rig.scheduler.end_reasoning(number)
        if number in self.asked:
            self.asked[number].hurried = True

    def alone(self, order: Submit, context: int) -> Ended | None:
        """The same question with the engine to itself, what it was given, and all the time; None if refused."""
        rig = self.fresh()
        rig.preparation.context = context
        rig.submit(msgspec.structs.replace(order, deadline=None))
        rig.run()
        refused = any(isinstance(report, Refused) for report in rig.reports)
        return None if refused else rig.ended(order.number)


def joined(asked: Asked, kind: str) -> str:
    """All pieces of a kind."""
    return "".join(r.text for r in asked.reports if isinstance(r, Piece) and r.kind == kind)


def check_order(asked: Asked) -> Ended | None:
    """A start, pieces, one end; or a refusal and nothing else. Returns the end."""
    *before, last = asked.reports
    if asked.order.tools and asked.order.tool_mode == "none":  # text, wherever it ends
        assert isinstance(last, Ended) or before == []
    if isinstance(last, Refused) and (asked.order.schema or asked.order.tools) and last.code == "too_long":
        assert [type(report) for report in before] == [Started, *[Piece] * (len(before) - 1)]
        return None
    if isinstance(last, Refused) and before and (asked.order.schema or asked.order.tools):
        assert isinstance(before[0], Started)
        assert last.code == "expired"
        return None
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
    if order.tools:
        assert order.reasoning_mode == "inline" or FORM.trigger not in ended.text
        assert bool(ended.calls) == (ended.outcome == "tool_calls")
        assert all((call.name, call.arguments) == ("f", "{}") for call in ended.calls)
        assert ended.calls or order.tool_mode != "required" or ended.outcome == "cancelled"
        assert not ended.calls or order.tool_mode != "none"
    if order.schema and ended.outcome != "cancelled":
        assert ended.text.endswith(VALUE.decode())
    if order.reasoning_mode != "inline":
        assert not any(word in ended.text for word in order.stop)
        assert "think>" not in ended.text + ended.reasoning


def check_alone(asked: Asked, ended: Ended, alone: Ended) -> None:
    """Alone the same question has the same answer, of which a shorter life shows the beginning."""
    if asked.hurried:
        if ended.outcome == alone.outcome == "stop" and asked.order.reasoning_mode != "inline":
            assert ended.text == alone.text
        return
    if ended.outcome in {"stop", "length", "tool_calls"}:
        assert (ended.text, ended.reasoning, ended.outcome) == (alone.text, alone.reasoning, alone.outcome)
        assert ended.usage.completion_tokens == alone.usage.completion_tokens
        assert ended.usage.reasoning_tokens == alone.usage.reasoning_tokens
    elif not asked.order.stop:
        whole = "".join(ended.text).rstrip("\ufffd")
        assert alone.text.startswith(whole) or "</think" in alone.text + whole
        assert alone.reasoning.startswith(ended.reasoning.rstrip("\ufffd")) or "</thin" in ended.reasoning


@pytest.mark.parametrize("group", range(GROUPS))
def test_mixes(group: int, tmp_path: Path) -> None:
    """Arrivals, cancels, deadlines, aborts, budgets, stops, sizes, priorities, limits: one sound end each."""
    seen, loads, drafted, lines = set(), 0, 0, list[Any]()
    clock = Clock(0.0)
    for seed in range(group * MIXES, (group + 1) * MIXES):
        # A new engine a day later, the disk as the last one left it.
        folder = tmp_path / "prefixes"
        prefixes = Prefixes(folder, "scripted", STORE_BYTES, lambda *line: lines.append(line), clock)
        clock.advance(DAY_S)
        mix = Mix(seed, prefixes)
        try:
            mix.run()
            mix.rig.check_idle()
            for asked in mix.asked.values():
                ended = check_order(asked)
                if ended is None:
                    last = asked.reports[-1]
                    seen.add("expired" if isinstance(last, Refused) and last.code == "expired" else "refused")
                    continue
                seen.add(ended.outcome)
                check_counts(asked, ended, asked.sequence.context)
                check_text(asked, ended)
                alone = mix.alone(asked.order, asked.sequence.context)
                if alone is None:  # with all the time it came to the end of its room, with half a value
                    assert ended.outcome in {"cancelled", "deadline"} or asked.hurried
                else:
                    check_alone(asked, ended, alone)
            check_no_slot_lost(mix)
            loads += prefixes.loads
            drafted += mix.rig.scheduler.counters.drafted_right
            assert prefixes.size_bytes <= STORE_BYTES
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    ends = {"expired", "refused", "stop", "length", "tool_calls", "cancelled", "deadline"}
    assert seen | {"refused"} == ends  # so rare that a group may have none
    assert loads > 0
    assert drafted > 0
    removed = {fields["reason"] for _, event, fields in lines if event == "prefix_removed"}
    assert removed <= {"llama.cpp does not take it"}  # a longer one than this mix's streams
    assert "prefix_written" in {event for _, event, _ in lines}


def check_no_slot_lost(mix: Mix) -> None:
    """Afterwards as many questions as there are slots start at once."""
    rig, told = mix.rig, len(mix.rig.reports)
    rig.model.passes.abort = set()
    mix.limit(mix.shape["streams"])
    for number in range(1000, 1000 + mix.shape["streams"]):
        rig.ask(number, "?")
    rig.scheduler.step()
    assert len(list(starts(rig.reports[told:]))) == mix.shape["streams"]
    rig.run()
    rig.check_idle()


def starts(reports: list[Report]) -> Iterator[int]:
    """Numbers of the questions that got a slot."""
    return (report.number for report in reports if isinstance(report, Started))
