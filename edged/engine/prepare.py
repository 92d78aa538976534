"""From an order to a measured sequence: rendered, tokenized, trimmed or refused, before anything is computed.

Runs in the intake thread, beside the running pass: it needs the vocabulary and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edged.core.answer_text import AnswerText
from edged.core.chunker import Chunker
from edged.core.question import Message
from edged.engine.chat import ChatTemplate, opens_thinking, to_tokens, turns_of
from edged.engine.marks import Span
from edged.engine.messages import Submit
from edged.engine.ports import Vocabulary
from edged.engine.sequence import Sequence as Measured
from edged.engine.tokenizer import Tokenizer
from edged.errors import Refusal

if TYPE_CHECKING:
    from edged.engine.constraint import Constraint, Constraints

ANSWER_TOKENS_MIN = 16
"""A prompt that leaves less room than this for its answer is refused as too long."""
ROOM_SHARE = 4
"""Trimming a session leaves a quarter of the context to the answer, or `max_tokens` where that is less: a history
that is cut so that it just fits would be cut again, and read anew, with every question."""
BUDGET_SHARE = 3
"""Without a budget of its own a question may think for a third of the context."""


@dataclass(slots=True)
class Preparation:
    """How questions of one model are measured.

    Attributes:
        context: tokens of prompt and answer together; may change between questions, to no more than at first.
        system_prompt: stands before every conversation that brings none of its own; may be empty.
        reasoning_budget: tokens of thinking for questions that name none; None is a third of the context.
        reasoning_max: tokens of thinking that no question gets more of; None for no bound.
        since: monotonic seconds since when a question is being measured; None where none is. From any thread.
        delta_interval_s: least time between two deltas of one answer.
        make_constraints: makes what compiles JSON schemas, once, when the first one comes; None where the model
            has no support for them.
    """

    vocabulary: Vocabulary
    template: ChatTemplate
    context: int
    system_prompt: str
    reasoning_budget: int | None
    delta_interval_s: float
    make_constraints: Callable[[], Constraints] | None = None
    reasoning_max: int | None = None
    since: float | None = field(default=None, init=False)
    _constraints: Constraints | None = field(default=None, init=False)
    _context_most: int = field(init=False)
    _tokenize: Tokenizer = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no text known."""
        self._context_most = self.context
        self._tokenize = Tokenizer(self.vocabulary)

    def forget_texts(self) -> None:
        """Keep no text of a question that was measured."""
        self._tokenize.forget()

    def prepare(self, order: Submit, now: float) -> Measured:
        """Measure a question.

        Raises:
            Refusal: `too_long` with both numbers, or `bad_request` if the template refuses the messages.
        """
        self.since = now
        try:
            return self._prepare(order, now)
        finally:
            self.since = None

    def _prepare(self, order: Submit, now: float) -> Measured:
        messages = list(order.messages)
        sampled = {id(messages[at]): tokens for at, tokens in order.sampled.items() if at < len(messages)}
        if self.system_prompt and messages[0].role != "system":
            messages.insert(0, Message("system", self.system_prompt))
        limit, trimmed = max(self.context, order.context), 0
        tokens, opening = self._measure(messages, sampled, order)
        # A thinking that the prompt opens is closed by us in the end: those tokens need a place too.
        reserve = ANSWER_TOKENS_MIN + (len(self._closing()) if opening else 0)
        wanted = reserve
        if order.session:
            wanted = max(reserve, min(order.max_tokens or limit, limit // ROOM_SHARE))
        if len(tokens) + wanted > limit and order.overflow == "trim_history":

            def fits(left: list[Message]) -> bool:
                return len(self._measure(left, sampled, order)[0]) + wanted <= limit

            kept = _trimmed(messages, fits)
            trimmed, messages = len(messages) - len(kept), kept
            tokens, opening = self._measure(messages, sampled, order)
        if len(tokens) + reserve > limit:
            raise Refusal(
                "too_long",
                f"the prompt has {len(tokens)} tokens and the context holds {limit}, of which "
                f"{reserve} stay for the answer; shorten the prompt",
                details={"prompt_tokens": len(tokens), "context": limit},
            )
        room = _room(order, limit - len(tokens))
        budget = self._budget(order, room, limit)
        most = self._granted(order, _room(order, self._context_most - len(tokens)), self._context_most)
        if opening and budget == 0:
            # As one text: "<think>\n" and "\n</think>" hold a token between the tags where they meet, not two.
            own = len(self._tokenize(opening, special=True))
            tokens[-own:] = self._tokenize(opening + self._closing_text(), special=True)
            room = max(1, min(room, limit - len(tokens)))
        thinking = bool(opening) and budget > 0
        measured = self._sequence(
            order, tokens, room, budget, now, context=limit, thinking=thinking, trimmed=trimmed
        )
        measured.hurried = self.template.tags is not None and budget < most
        return measured

    def _closing(self) -> list[int]:
        return self._tokenize(self._closing_text(), special=True)

    def _closing_text(self) -> str:
        return self.template.tags.closing if self.template.tags is not None else ""

    def _budget(self, order: Submit, room: int, context: int) -> int:
        """Tokens of thinking for a question, within the bound that heat may set."""
        budget = self._granted(order, room, context)
        return budget if self.reasoning_max is None else min(budget, self.reasoning_max)

    def _granted(self, order: Submit, room: int, context: int) -> int:
        """The same without that; `max_tokens` bounds thinking and answer, half stays for the answer."""
        budget = self._wish(order)
        if budget is None:
            budget = context // BUDGET_SHARE
        return max(0, min(budget, room // 2 - len(self._closing())))

    def _wish(self, order: Submit) -> int | None:
        """Tokens of thinking that the question names, or the node's settings."""
        return self.reasoning_budget if order.reasoning_budget is None else order.reasoning_budget

    def _measure(
        self, messages: list[Message], sampled: Mapping[int, Sequence[int]], order: Submit
    ) -> tuple[list[int], str]:
        """Tokens of a conversation, and the template's words that open its answer's thinking, "" where none do.

        Args:
            messages: all of it.
            order: what was asked; of one that is to leave nothing behind no text is kept.
            sampled: the tokens that made an earlier answer, by the identity of its message. They are taken
                where they still make its very text: another model may have said it.
        """

        def exact(span: Span) -> Sequence[int]:
            tokens = () if span.message is None else sampled.get(id(messages[span.message]), ())
            return tokens if b"".join(map(self.vocabulary.piece, tokens)) == span.text.encode() else ()

        # Not by what heat leaves of it: a conversation would have another beginning on a hot board.
        spans = self.template.render(messages, order.tools, thinks=self._wish(order) != 0)
        tokenize = self._tokenize if order.reuse else self.vocabulary.tokenize
        tokens = to_tokens(spans, self.vocabulary, tokenize, exact)
        return tokens, spans[-1].text if opens_thinking(spans, self.template.tags) else ""

    def _sequence(
        self,
        order: Submit,
        tokens: list[int],
        room: int,
        budget: int,
        now: float,
        *,
        context: int,
        thinking: bool,
        trimmed: int,
    ) -> Measured:
        callable_ = bool(order.tools) and order.tool_mode != "none"
        return Measured(
            order=order,
            tokens=tokens,
            prompt_tokens=len(tokens),
            text=AnswerText(
                () if order.tools and order.tool_mode == "required" else order.stop,  # it has no text
                tags=self.template.tags,
                thinking=thinking,
                trigger=self.template.form.trigger if callable_ else "",
                trigger_first=order.schema is not None,
            ),
            closing=self._closing(),
            room=room,
            budget=budget,
            context=context,
            arrived=now,
            chunker=Chunker(self.delta_interval_s),
            trimmed=trimmed,
            constraint=self._constraint(order),
            form=self.template.form if callable_ else None,
        )

    def _constraint(self, order: Submit) -> Constraint | None:
        if order.schema is None and not order.tools:
            return None
        if self.make_constraints is None:
            raise Refusal(
                "unsupported", "this node's model cannot be held to a schema or tools; leave them out"
            )
        if self._constraints is None:
            self._constraints = self.make_constraints()
        if not order.tools:
            return self._constraints.compile(order.schema or "{}")
        named = [tool for tool in order.tools if tool.name == order.tool_named]
        return self._constraints.compile_calls(
            self.template.form,
            named or order.tools,
            order.tool_mode,
            literal=self._literal,
            parallel=order.tools_parallel and not named,
            schema=order.schema,
        )

    def _literal(self, text: str) -> list[str | int]:
        """A text of the template as llguidance sees it: stretches of text, and special tokens by their number."""
        parts: list[str | int] = []
        for token in filter(self.vocabulary.is_special, self.vocabulary.tokenize(text, special=True)):
            run, _, text = text.partition(self.vocabulary.piece(token).decode())
            parts += [run, token] if run else [token]
        return [*parts, text] if text else parts


def _room(order: Submit, left: int) -> int:
    """Tokens that may be written where the context has so many left."""
    return left if order.max_tokens is None else min(left, order.max_tokens)


def _trimmed(messages: list[Message], fits: Callable[[list[Message]], bool]) -> list[Message]:
    """A conversation without so many of its oldest turns that it fits; the last one is left in any case.

    How many stay is searched from the end, by doubling, then halving: each look renders and tokenizes all that it
    leaves, and a question may bring thousands of turns, of which the context holds a few.
    """
    turns = turns_of(messages)

    def last(count: int) -> list[Message]:
        dropped = {id(message) for turn in turns[:-count] for message in turn}
        return [message for message in messages if id(message) not in dropped]

    few, many = 1, len(turns)  # all do not fit
    while many - few > 1:
        middle = min(2 * few, (few + many) // 2)
        few, many = (middle, many) if fits(last(middle)) else (few, middle)
    return last(few)
