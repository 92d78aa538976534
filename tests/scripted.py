"""A scripted model in place of llama.cpp: deterministic, instant, and strict about what the scheduler does to it.

It fulfils edged/engine/ports.py. A token is a byte, or one of a few special words; what the model says to a
prompt is told by a `Story`. It keeps the contents of each KV stream and asserts what llama.cpp leaves to its
caller: positions without gaps, streams within the context, batches within their size, copies into empty streams
only, no choice from a row that has no logits, every sampler freed once. Runs in the test's own thread.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edged.engine.chat import ChatTemplate
from edged.engine.messages import Submit
from edged.engine.ports import ABORTED, Chooser
from edged.engine.prepare import Preparation

BEGIN, END, OPEN, CLOSE, SYSTEM, USER, ASSISTANT = range(256, 263)
SPECIALS = {
    "<|begin|>": BEGIN,
    "<|end|>": END,
    "<think>": OPEN,
    "</think>": CLOSE,
    "<|system|>": SYSTEM,
    "<|user|>": USER,
    "<|assistant|>": ASSISTANT,
}
"""Texts of the tokens that are no bytes."""
PLAIN = "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}{% endfor %}<|assistant|>"
"""A chat template that costs one token a turn."""
THINKING = PLAIN + "{{ '<think>\n' }}"
"""The same for a model whose answer starts inside its thinking, as R1-Distill's does."""
TAGGED = PLAIN + "{# <think> #}"
"""The same for a model that writes its opening tag itself."""

_TEXT = {number: text.encode() for text, number in SPECIALS.items()}
_SPLIT = re.compile("(" + "|".join(map(re.escape, SPECIALS)) + ")")


@dataclass(frozen=True, slots=True)
class Story:
    """What the model says, bytes or tokens: `thinking` (where the prompt opened it), then `answer`, then the end.

    Attributes:
        closes: the model ends its thinking by itself; else it says `END` there and waits to be told.
        opens: the model opens its thinking by itself, under a template that does not.
    """

    answer: Sequence[int]
    thinking: Sequence[int] = b""
    closes: bool = True
    opens: bool = False


Script = Callable[[bytes], Story]
"""From the last user's text to what the model says to it."""


def say(text: str, thinking: str = "") -> Script:
    """A script that says the same to everybody."""
    return lambda _: Story(text.encode(), thinking.encode())


class ByteVocabulary:
    """A token for each byte, and the special ones."""

    def __init__(self, begin: int | None = None) -> None:
        self.begin = begin

    def tokenize(self, text: str, *, special: bool, first: bool = False) -> list[int]:  # noqa: ARG002 - no space is put in front
        """Bytes; special words as one token each where `special` allows it."""
        if not special:
            return list(text.encode())
        tokens: list[int] = []
        for part in _SPLIT.split(text):
            tokens += [SPECIALS[part]] if part in SPECIALS else part.encode()
        return tokens

    def piece(self, token: int) -> bytes:
        """The byte, or the special word."""
        return _TEXT[token] if token in _TEXT else bytes([token])

    def ends_answer(self, token: int) -> bool:
        """Only `END` does."""
        return token == END

    def is_special(self, token: int) -> bool:
        """The same ones."""
        return self.is_control(token)

    def is_control(self, token: int) -> bool:
        """Whatever is no byte."""
        return token in _TEXT


@dataclass(slots=True)
class ScriptedPasses:
    """KV streams that are lists, and a pass that appends to them.

    Attributes:
        streams: how many sequences can run at once.
        context: tokens that one stream can hold.
        batch_tokens: rows of one pass.
        cuts: False imitates recurrent memory: cutting empties the stream.
        abort: numbers of passes (from 0) that are aborted halfway.
        fail: numbers of passes and the code that they return.
        during: called inside each pass, where another thread could act.
        rows_of: rows of each pass so far; `threads` beside it.
        copying: source and target of each copy that waits for the next pass.
    """

    streams: int
    context: int
    batch_tokens: int
    cuts: bool = True
    abort: set[int] = field(default_factory=set)
    fail: dict[int, int] = field(default_factory=dict)
    during: Callable[[], None] = lambda: None
    kv: list[list[int]] = field(default_factory=list)
    logits: dict[int, tuple[int, ...]] = field(default_factory=dict)
    rows_of: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    copies: int = 0
    copying: set[tuple[int, int]] = field(default_factory=set)
    loads: int = 0
    _pending: list[tuple[int, int, int, bool]] = field(default_factory=list)
    _stop: bool = False

    def __post_init__(self) -> None:
        self.kv = [[] for _ in range(self.streams)]

    @property
    def rewinds(self) -> bool:
        """What cannot be cut cannot go back either."""
        return self.cuts

    def least(self, loaded: int) -> int:
        """All of a state, where nothing can be cut."""
        return 0 if self.cuts else loaded

    def add(self, token: int, position: int, sequence: int, *, logits: bool) -> int:
        """Append a row to the next pass."""
        assert 0 <= token <= ASSISTANT, f"no such token: {token}"
        assert 0 <= sequence < self.streams, f"no such stream: {sequence}"
        assert len(self._pending) < self.batch_tokens, "the batch is full"
        assert not self._pending or self._pending[-1][2] <= sequence, "streams out of order: none go together"
        self._pending.append((token, position, sequence, logits))
        return len(self._pending) - 1

    def decode(self, threads: int) -> int:
        """Put the rows into their streams; half of them only when the pass is aborted."""
        rows, self._pending = self._pending, []
        assert rows, "an empty pass"
        assert threads > 0
        number = len(self.rows_of)
        self.rows_of.append(len(rows))
        self.threads.append(threads)
        self.logits = {}
        self.copying.clear()
        self.during()
        aborted = self._stop or number in self.abort
        for row, (token, position, sequence, wanted) in enumerate(
            rows[: len(rows) // 2] if aborted else rows
        ):
            stream = self.kv[sequence]
            assert position == len(stream), f"row {row}: position {position}, stream holds {len(stream)}"
            assert position < self.context, f"row {row}: stream {sequence} is full"
            stream.append(token)
            if wanted and not aborted:
                self.logits[row] = tuple(stream)
        return ABORTED if aborted else self.fail.get(number, 0)

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Cut a stream."""
        assert not self._pending, "rows wait for a pass"
        if start and start < len(self.kv[sequence]) and not self.cuts:
            self.kv[sequence].clear()
            return False
        del self.kv[sequence][start:]
        return True

    def copy(self, source: int, target: int) -> None:
        """Copy a stream into an empty one; as with llama.cpp, not before the next pass."""
        assert source != target
        assert not self.kv[target], "the target of a copy must be empty"
        self.copies += 1
        self.copying.add((source, target))
        self.kv[target] = list(self.kv[source])

    def save(self, sequence: int) -> bytearray:
        """The tokens of a stream, two bytes each."""
        assert not self._pending, "rows wait for a pass"
        assert all(sequence != target for _, target in self.copying), "its copy is still to be made"
        return bytearray(b"".join(token.to_bytes(2, "little") for token in self.kv[sequence]))

    def load(self, sequence: int, data: bytearray) -> bool:
        """Put them back; an odd number of bytes is nothing of ours."""
        assert not self._pending, "rows wait for a pass"
        assert not any(sequence in copy for copy in self.copying), "a copy is still to be made here"
        self.loads += 1
        pairs = [data[at : at + 2] for at in range(0, len(data), 2)]
        sound = bool(data) and len(data) % 2 == 0 and len(pairs) <= self.context
        self.kv[sequence] = [int.from_bytes(pair, "little") for pair in pairs] if sound else []
        return sound

    def stop_pass(self, stop: bool = True) -> None:  # noqa: FBT001, FBT002 - the shape of the port
        """Raise or lower the flag that `decode` looks at."""
        self._stop = stop


class ScriptedModel:
    """Vocabulary, passes and choosers of one model.

    Args:
        script: what it says.
        streams, context, batch_tokens: shape of its cache.
        begin: token that must stand first.
    """

    def __init__(
        self,
        script: Script,
        *,
        streams: int = 2,
        context: int = 256,
        batch_tokens: int = 32,
        begin: int | None = None,
    ) -> None:
        self.vocabulary = ByteVocabulary(begin)
        self.passes = ScriptedPasses(streams, context, batch_tokens)
        self.script = script
        self.open_choosers = 0
        self.asked: list[dict[str, Any]] = []

    def make_chooser(self, *, temperature: float, top_p: float, seed: int) -> Chooser:
        """A chooser that must be closed once."""
        self.asked.append({"temperature": temperature, "top_p": top_p, "seed": seed})
        self.open_choosers += 1
        return _ScriptedChooser(self)

    def next_token(self, tokens: Sequence[int]) -> int:
        """What the model says after these tokens."""
        opened = _last(tokens, ASSISTANT)
        asked = bytes(tokens[_last(tokens, USER) + 1 : opened])
        story, said = self.script(asked), tokens[opened + 1 :]
        if said[:2] == (OPEN, ord("\n")):  # the template opened the thinking
            said = said[2:]
            if CLOSE in said:
                at = said.index(CLOSE) + 1
                said = said[at:]
                story = Story((*b"\n\n", *story.answer))  # we close with these, and so does the model
            else:
                thoughts: list[int] = [*story.thinking, CLOSE if story.closes else END]
                return thoughts[len(said)]
        elif story.opens:
            opening = [OPEN, ord("\n")]
            return opening[len(said)]
        answer: list[int] = [*story.answer, END]
        return answer[len(said)]


class _ScriptedChooser:
    def __init__(self, model: ScriptedModel) -> None:
        self._model = model
        self._closed = False

    def choose(self, row: int) -> int:
        """The next token of the script; the row must have logits of the last pass."""
        assert not self._closed, "this sampler was freed"
        assert row in self._model.passes.logits, f"row {row} has no logits"
        return self._model.next_token(self._model.passes.logits[row])

    def choose_among(self, row: int, mask: bytes) -> int:
        """What the script says where the mask has its bit, else the lowest token that is allowed."""
        allowed = [at for at in range(8 * len(mask)) if mask[at // 8] >> at % 8 & 1]
        wanted = self.choose(row)
        return wanted if wanted in allowed else allowed[0]

    def close(self) -> None:
        """Count it as freed."""
        assert not self._closed, "freed twice"
        self._closed = True
        self._model.open_choosers -= 1


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def preparation(model: ScriptedModel, template: str = PLAIN, **changes: Any) -> Preparation:
    """How questions to a scripted model are measured; deltas are never gathered unless told."""
    settings: dict[str, Any] = {
        "context": model.passes.context,
        "system_prompt": "",
        "reasoning_budget": None,
        "delta_interval_s": 0.0,
    }
    return Preparation(vocabulary=model.vocabulary, template=_compiled(template), **(settings | changes))


@functools.cache
def _compiled(template: str) -> ChatTemplate:
    return ChatTemplate(template)  # it has no state, and Jinja takes its time


def submit(number: int, *messages: Any, **changes: Any) -> Submit:
    """An order with everything at its default."""
    order: dict[str, Any] = {
        "number": number,
        "client": f"client-{number}",
        "messages": messages,
        "priority": "normal",
        "max_tokens": None,
        "deadline": None,
        "temperature": None,
        "top_p": None,
        "seed": 1,
        "stop": (),
        "reasoning_mode": "separate",
        "reasoning_budget": None,
        "stream": True,
    }
    return Submit(**(order | changes))


def _last(tokens: Sequence[int], mark: int) -> int:
    """Where the last `mark` stands."""
    return len(tokens) - 1 - tokens[::-1].index(mark)
