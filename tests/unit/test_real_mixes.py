"""The scheduler over llama.cpp and the real small model: one end for each question, no KV cell lost or found."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp as C  # noqa: N812 - as edged.engine.llama has it
import pytest
from fixed_padding import FixedPadding
from scripted import submit

from edged.core.question import Message
from edged.engine import llama
from edged.engine.chat import ChatTemplate
from edged.engine.messages import Ended, Piece, Refused, Report, SetLimits, Submit
from edged.engine.prefixes import Prefixes
from edged.engine.prepare import Preparation
from edged.engine.scheduler import Scheduler
from edged.errors import Refusal

CACHES = (("f16", "auto"), ("q8_0", "auto"), ("f16", "off"))
"""Types of the cache, and whether attention is fused: without it values stand transposed in the cache."""
MIXES = 25
"""With each kind of cache: 50 of them and more."""
STREAMS, CONTEXT = 3, 224
SLOW_S = 1.0  # seconds to compute a token, for the store: reading from disk always pays
HALL = (
    "The hall has presses, pumps and fans; each has a number, a load, a temperature and a bearing at either end. "
    "Presses stand by the wall, pumps in the cellar and fans on the roof. Answer in short. "
)
TEXTS = (
    "Is 85 C hot?",
    "Name a colour.",
    "Why?",
    "Count to three, then stop. " * 3,
    "And now in German, please.",
)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Iterator[llama.Model]:
    """The weights."""
    llama.start(lambda _level, _line: None)
    loaded = llama.Model(small_model)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module", params=CACHES)
def context(request: pytest.FixtureRequest, model: llama.Model) -> Iterator[llama.Context]:
    """A cache of each kind; in those of f16 each pass that can be padded is."""
    kv_type, flash_attention = request.param
    padding = FixedPadding(pays=True)
    made = llama.Context(
        model,
        sequences=STREAMS,
        context=CONTEXT,
        batch_tokens=64,
        threads=1,
        kv_type=kv_type,
        flash_attention=flash_attention,
        padding=padding if kv_type == "f16" else None,
    )
    yield made
    made.close()
    assert kv_type != "f16" or padding.padded


@dataclass
class Node:
    """An engine without its process: everything that it says is kept."""

    model: llama.Model
    context: llama.Context
    prefixes: Prefixes
    clock: Callable[[], float] = time.monotonic
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream in range(STREAMS):
            self.context.forget(stream)
        assert self.model.chat_template is not None
        self.preparation = Preparation(
            self.model, ChatTemplate(self.model.chat_template), CONTEXT, "Be short.", None, 0.0
        )
        self.scheduler = Scheduler(
            self.model,
            self.context,
            self.choose,
            slots=STREAMS,
            decode_threads=1,
            prefill_threads=1,
            emit=self.reports.extend,
            clock=self.clock,
        )

    def choose(self, *, temperature: float, top_p: float, seed: int) -> llama.Sampler:
        """A sampler."""
        return llama.Sampler(self.context, temperature=temperature, top_p=top_p, seed=seed)

    def ask(self, order: Submit) -> bool:
        """Submit a question; False where it is too long."""
        try:
            sequence = self.preparation.prepare(order, 0.0)
        except Refusal:
            return False
        if order.reuse:
            known = self.scheduler.slots.longest(sequence.tokens)
            sequence.stored = self.prefixes.fetch(sequence.tokens, known, SLOW_S)
        self.scheduler.submit(sequence)
        return True

    def run(self) -> None:
        """Step until there is nothing to do."""
        while self.scheduler.step():
            pass

    def keep(self) -> None:
        """Write what may be wanted again."""
        for index, tokens in self.scheduler.slots.worthwhile(talks=True):
            if (
                self.prefixes.wants(tokens)
                and (state := self.scheduler.slots.state(index, len(tokens))) is not None
            ):
                self.prefixes.put(tokens, state)
                self.prefixes.settle()

    def check_cells(self) -> None:
        """The cache holds what the books say, no more and no less, in no more room than it has."""
        memory = C.llama_get_memory(self.context.pointer)
        cells = [C.llama_memory_seq_pos_max(memory, stream) + 1 for stream in range(STREAMS)]
        assert sum(cells) == self.scheduler.slots.held_tokens
        assert max(cells) <= CONTEXT


def random_order(rng: random.Random, number: int, now: float) -> Submit:
    """A question of a mix; the last of a conversation where it has earlier turns."""
    messages = [Message("user", rng.choice(["", "", HALL]) + rng.choice(TEXTS))]
    if rng.random() < 0.3:
        messages = [Message("user", rng.choice(TEXTS)), Message("assistant", "Yes."), *messages]
    return submit(
        number,
        *messages,
        client=rng.choice("xyz"),
        session=rng.random() < 0.3,
        max_tokens=rng.randint(1, 6),
        temperature=rng.choice([0.0, 0.0, 1.5]),
        reuse=rng.random() < 0.9,
        deadline=now + rng.choice([0.0, 0.1]) if rng.random() < 0.1 else None,
        overflow=rng.choice(["error", "trim_history"]),
    )


def test_mixes(model: llama.Model, context: llama.Context, tmp_path: Path) -> None:
    """Arrivals, cancels, deadlines, sizes, conversations, the disk: one end each, no slot or cell lost."""
    outcomes, loads, lines = set[str](), 0, list[str]()
    for seed in range(MIXES):
        rng = random.Random(f"{seed}")  # noqa: S311 - repeatable, not secret
        prefixes = Prefixes(
            tmp_path / "prefixes", "small", 1 << 28, lambda _l, event, _f: lines.append(event)
        )
        node = Node(model, context, prefixes)
        last = rng.randint(2, 4)
        asked = []
        for number in range(1, last + 1):
            if node.ask(random_order(rng, number, node.clock())):
                asked.append(number)
            for _ in range(rng.randint(0, 3)):
                node.scheduler.step()
            if rng.random() < 0.2:
                node.scheduler.interrupt(rng.randint(1, number))
                node.scheduler.cancel(rng.randint(1, number))
        node.run()
        node.keep()
        ends = [report for report in node.reports if isinstance(report, Ended | Refused)]
        assert sorted(end.number for end in ends) == asked, f"seed {seed}: {node.reports}"
        outcomes |= {end.outcome if isinstance(end, Ended) else end.code for end in ends}
        assert (node.scheduler.running, node.scheduler.waiting) == (0, 0)
        node.check_cells()
        loads += prefixes.loads
        if seed % 5 == 0:
            check_no_slot_lost(node)
    assert outcomes >= {"stop", "length", "cancelled"}
    assert loads > 0
    assert set(lines) <= {"prefix_written"}


def check_no_slot_lost(node: Node) -> None:
    """Afterwards as many questions as there are slots start at once."""
    for number in range(100, 100 + STREAMS):
        node.ask(submit(number, Message("user", f"{number}?"), max_tokens=3, reuse=False))
    node.scheduler.step()
    assert node.scheduler.running == STREAMS
    node.run()
    node.check_cells()


def test_a_prompt_from_disk_is_the_same_prompt(
    model: llama.Model, context: llama.Context, tmp_path: Path
) -> None:
    """An answer goes on from a state read from disk as from the one in memory, token by token."""
    prefixes = Prefixes(tmp_path / "prefixes", "small", 1 << 28, lambda *_: None)
    first = Node(model, context, prefixes)
    question = Message("user", HALL + TEXTS[0])
    more = (question, Message("assistant", "Yes."), Message("user", "Why is that so?"))
    first.ask(submit(1, question, session=True, max_tokens=1, temperature=0.0))
    first.run()
    first.keep()
    first.ask(submit(2, *more, max_tokens=12, temperature=0.0))
    first.run()
    second = Node(model, context, prefixes)  # its cache is empty
    # Something else stands in the first stream, so that it goes into another one.
    second.ask(submit(1, Message("system", "Short."), Message("user", "Hi"), max_tokens=1))
    second.run()
    second.ask(submit(2, *more, max_tokens=12, temperature=0.0))
    second.run()
    [before] = [report for report in first.reports if isinstance(report, Ended) and report.number == 2]
    [_, after] = [report for report in second.reports if isinstance(report, Ended)]
    assert prefixes.loads == 1
    assert after.usage.cached_tokens == before.usage.cached_tokens > 40
    assert after.text == before.text
    second.check_cells()


def test_a_copy_in_a_rest_is_the_same_prompt(
    model: llama.Model, context: llama.Context, tmp_path: Path
) -> None:
    """What is copied in a rest stands there with the next pass only: until then it is not moved."""
    texts = []
    for pace in (1.0, 0.05):
        prefixes = Prefixes(tmp_path / "prefixes", "small", 1 << 28, lambda *_: None)
        node = Node(model, context, prefixes, clock=itertools.count().__next__)  # a pass takes a second
        node.ask(submit(1, Message("user", HALL + "Where are the fans?"), max_tokens=60, temperature=0.0))
        node.ask(submit(2, Message("user", "Count to a hundred."), max_tokens=150, temperature=0.0))
        while len({report.number for report in node.reports if isinstance(report, Piece)}) < 2:
            node.scheduler.step()
        node.scheduler.limit(SetLimits(CONTEXT, STREAMS, 1, 1, pace=pace))
        node.scheduler.step()
        node.ask(submit(3, Message("user", HALL + "Where are the pumps?"), max_tokens=20, temperature=0.0))
        assert node.scheduler.step() == (pace == 1)
        node.scheduler.cancel(2)
        node.scheduler.step()
        node.scheduler.limit(SetLimits(CONTEXT, STREAMS, 1, 1))
        node.run()
        [text] = [end.text for end in node.reports if isinstance(end, Ended) and end.number == 3]
        texts.append(text)
    assert texts[0] == texts[1]


def test_a_damaged_state_is_not_taken(model: llama.Model, context: llama.Context, tmp_path: Path) -> None:
    """llama.cpp refuses half a state, and the stream is empty afterwards."""
    node = Node(model, context, Prefixes(tmp_path / "prefixes", "small", 1 << 28, lambda *_: None))
    node.ask(submit(1, Message("user", HALL), max_tokens=1))
    node.run()
    state = context.save(0)
    assert context.load(1, state)
    assert not context.load(1, state[: len(state) // 2])
    assert context.load(2, state)
    memory = C.llama_get_memory(context.pointer)
    assert C.llama_memory_seq_pos_max(memory, 1) == -1
