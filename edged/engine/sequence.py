"""One question inside the engine: its tokens, how many of them stand in the KV cache, and its text so far.

A sequence is a list of tokens of which the first `past` are in the cache. What is missing is what the next
pass computes: many rows while the prompt is read, one while the answer is written, a few when the thinking is
closed by us. Belongs to the model thread once it is submitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edged.core.answer_text import AnswerText, Kind, Part
from edged.core.chunker import Chunker
from edged.core.drafting import Guesses
from edged.core.numerals import Numerals
from edged.core.outlook import Left
from edged.core.reply import FinishReason, Timings, Usage
from edged.core.thinking import THINK
from edged.core.tools import Call
from edged.engine.calls import CallForm
from edged.engine.messages import Ended, Piece, Said, Submit
from edged.engine.ports import Chooser
from edged.engine.slots import Slots, Stored, common
from edged.errors import Refusal

if TYPE_CHECKING:
    from edged.engine.constraint import Constraint

NO_SLOT = -1


@dataclass(slots=True, eq=False)
class Sequence:
    """A question that was measured and waits or runs.

    Attributes:
        order: what was asked.
        tokens: prompt and everything written so far.
        prompt_tokens: how many of them are the prompt.
        text: splits what is written.
        closing: tokens that end the thinking.
        room: tokens that may still be written, all together: from `max_tokens` and the context.
        budget: tokens of thinking.
        constraint: holds the answer to a schema, from its first token after the thinking.
        stored: what was found on disk for the prompt; until it has a slot.
        form: how the model writes tool calls, where it may.
        past: tokens that stand in the cache, in slot `slot`.
        cached: prompt tokens that were there already.
        foreseen: how many these will be, by the looks of it when its answer's time was told; until it has a slot.
        closed: we wrote the end of the thinking for the model.
        hurried: heat leaves it a smaller budget than it would have had on a cool board.
        tag_shown: the tag that ends an inline thinking stands in a delta.
        guesses: what its drafts are made of; None before the first.
        numerals: follows what is held to a form, a call from its first byte on.
    """

    order: Submit
    tokens: list[int]
    prompt_tokens: int
    text: AnswerText
    closing: list[int]
    room: int
    budget: int
    context: int
    arrived: float
    chunker: Chunker
    trimmed: int = 0
    constraint: Constraint | None = None
    stored: Stored | None = None
    form: CallForm | None = None
    slot: int = NO_SLOT
    past: int = 0
    cached: int = 0
    foreseen: int = 0
    reasoning_tokens: int = 0
    chooser: Chooser | None = None
    started: float = math.nan
    first: float = math.nan
    closed: bool = False
    hurried: bool = False
    tag_shown: bool = False
    guesses: Guesses | None = None
    numerals: Numerals = field(default_factory=Numerals)

    @property
    def number(self) -> int:
        """Name of the question between daemon and engine."""
        return self.order.number

    @property
    def written(self) -> int:
        """Tokens of the answer and its thinking so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def rows(self) -> int:
        """Tokens that wait for a pass."""
        return len(self.tokens) - self.past

    @property
    def reading(self) -> bool:
        """True until the prompt, or tokens forced upon the answer, have all been read."""
        return self.rows > 1 or self.past < self.prompt_tokens

    @property
    def answering(self) -> bool:
        """True from when the prompt was read: what waits is the answer's own, be it forced or chosen."""
        return self.past >= self.prompt_tokens

    @property
    def fresh(self) -> bool:
        """True while nothing of the answer was computed: its first token came with the prompt."""
        return self.past == self.prompt_tokens

    @property
    def left(self) -> Left:
        """What it has still before it."""
        done = self.foreseen if self.slot == NO_SLOT else self.past
        return Left(self.prompt_tokens - done, self.room, self.written)

    def known(self, slots: Slots, without: Container[int] = ()) -> int:
        """How many tokens of its prompt need not be computed, as things stand; some streams left out."""
        if not self.order.reuse:
            return 0
        stored = common(self.stored.tokens, self.tokens) if self.stored is not None else 0
        return max(stored, slots.longest(self.tokens, without))

    @property
    def broken(self) -> bool:
        """True while what is written is held to a form and is not whole: half a JSON value, half a tool call."""
        if self.constraint is None:
            return False
        order = self.order
        if order.tools and order.schema is None and order.tool_mode != "required" and not self.text.calling:
            return False  # text, which may end anywhere, in the midst of a character too
        return self.text.stopped or not (self.constraint.closed or self.constraint.complete)

    def write(self, token: int, data: bytes) -> list[Part]:
        """Append a token with the bytes to show for it; returns the pieces that it completes."""
        was_thinking, was_calling = self.text.thinking, self.text.calling
        self.tokens.append(token)
        if was_thinking:
            self.reasoning_tokens += 1
        pieces = self.show(data)
        if was_calling or (self.order.schema is not None and not was_thinking):
            self.numerals.feed(data)
        elif self.text.calling:
            self.numerals.feed(self.text.call.encode())
        return pieces

    def show(self, data: bytes) -> list[Part]:
        """Take bytes into the text; returns the pieces that this device wants to see."""
        return self._wanted(self.text.feed(data))

    def finish_text(self, *, cut: bool) -> list[Part]:
        """The pieces that were held back until the end; `cut` when the model had not come to it."""
        return self._wanted(self.text.finish(cut=cut))

    def _wanted(self, pieces: list[Part]) -> list[Part]:
        if not self.order.stream:
            return []
        mode = self.order.reasoning_mode
        if mode == "separate":
            return pieces
        if mode == "hide":
            return [piece for piece in pieces if piece[0] == "text"]
        inline: list[Part] = []
        thought = [text for kind, text in pieces if kind == "reasoning"]
        first = self.text.reasoning == "".join(thought)
        if thought:
            inline.append(("text", (THINK.open if first else "") + "".join(thought)))
        if self.text.reasoning and not self.text.thinking and not self.tag_shown:
            self.tag_shown = True
            inline.append(("text", f"{THINK.close}\n\n"))
        inline.extend(piece for piece in pieces if piece[0] == "text")
        return inline

    def deltas(self, now: float, pieces: list[Part]) -> list[Piece]:
        """The messages that are due after these pieces."""
        return [self.piece(kind, text) for kind, text in self.chunker.add(pieces, now)]

    def piece(self, kind: Kind, text: str) -> Piece:
        """A message with the next text."""
        return Piece(self.number, kind, text, self.written, self.reasoning_tokens)

    def calls(self) -> tuple[Call, ...]:
        """The tool calls that were made.

        Raises:
            Refusal: `bad_request`; no tool should allow what is no JSON to us, such as thousands of digits.
        """
        if self.form is None:
            return ()
        try:
            return self.form.read(self.text.call)
        except (ValueError, RecursionError) as error:
            raise Refusal(
                "bad_request",
                f"the tools allowed a call that cannot be read: {str(error)[:100]}; bound its numbers and depth",
            ) from None

    def said(self, piece: Callable[[int], bytes]) -> Said:
        """The answer so far as a session keeps it; `piece` gives the bytes of a token."""
        text = self.text.text
        data, tokens, size = text.encode(), list[int](), 0
        for token in reversed(self.tokens[self.prompt_tokens :]):
            if size >= len(data):
                break
            tokens.append(token)
            size += len(piece(token))
        tokens.reverse()
        return Said(text, tuple(tokens) if b"".join(map(piece, tokens)) == data else ())

    def ending(
        self, outcome: FinishReason | Literal["cancelled"], now: float, piece: Callable[[int], bytes]
    ) -> Ended:
        """The last message of this sequence; `piece` gives the bytes of a token.

        Raises:
            Refusal: see `calls`.
        """
        started = now if math.isnan(self.started) else self.started
        first = now if math.isnan(self.first) else self.first
        read_s, write_s = first - started, now - first
        text, reasoning = self.text.text, self.text.reasoning
        mode = self.order.reasoning_mode
        if mode == "inline" and reasoning:
            text = f"{THINK.open}{reasoning}" + ("" if self.text.thinking else f"{THINK.close}\n\n{text}")
        return Ended(
            number=self.number,
            outcome=outcome,
            text=text,
            reasoning=reasoning if mode == "separate" else "",
            usage=Usage(self.prompt_tokens, self.cached, self.written, self.reasoning_tokens),
            timings=Timings(
                queue_ms=round(1000 * (started - self.arrived)),
                prefill_ms=round(1000 * read_s),
                decode_ms=round(1000 * write_s),
                prefill_tokens_per_s=_rate(self.prompt_tokens - self.cached, read_s),
                decode_tokens_per_s=_rate(self.written - 1, write_s),
            ),
            trimmed=self.trimmed,
            calls=self.calls() if outcome == "tool_calls" else (),
            said=self.said(piece) if self.order.session else None,
            hurried=self.hurried and (self.closed or self.budget == 0),
        )


def _rate(tokens: int, seconds: float) -> float:
    return round(tokens / seconds, 1) if seconds > 0 and tokens > 0 else 0.0
