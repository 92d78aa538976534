"""Chat templates: from messages to tokens, with no way for a user's text to become a control token.

A template comes out of a model file, so it runs in Jinja's immutable sandbox (CVE-2024-34359). It is rendered
with every message's text between two marks; afterwards the text between marks is tokenized with specials off,
and the template's own text with specials on.
"""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from edged.core.answer_text import CLOSE, OPEN
from edged.core.question import Message
from edged.errors import ModelError, Refusal

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Used for a model file that brings no template."""
_MARKS = "\ue000\ue001\ue002\ue003"
_TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template raises that does not fit the messages, or does not work at all."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the rendered prompt; `special` where it may hold control tokens, else `message` is its place."""

    text: str
    special: bool
    message: int | None = field(default=None, compare=False)


class ChatTemplate:
    """One model's way of writing a conversation.

    Args:
        source: Jinja text.
        bos, eos: texts of the model's special tokens.

    Attributes:
        thinks: the template knows thinking tags: this is a reasoning model.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.globals["raise_exception"] = _complain
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template cannot be read: {error}") from error
        self._bos, self._eos = bos, eos
        self.thinks = CLOSE in source or OPEN in source
        # A nonce that no device can know: private-use characters that bracket text from the wire.
        nonce = secrets.token_hex(8)
        self._begin, self._end = f"{_MARKS[0]}{nonce}.", f"{_MARKS[2]}{nonce}{_MARKS[3]}"
        self._opening = re.compile(rf"{re.escape(self._begin)}([0-9]+){_MARKS[1]}")

    def render(self, messages: Sequence[Message]) -> list[Span]:
        """Spans of the prompt, ready for the answer to follow.

        Raises:
            Refusal: the template does not accept these messages (`bad_request`).
        """
        texts = [self._without_thinking(turn) for turn in messages]
        turns = [
            {
                "role": turn.role,
                "content": f"{self._begin}{at}{_MARKS[1]}{text}{self._end}" if text else "",
            }
            for at, (turn, text) in enumerate(zip(messages, texts, strict=True))
        ]
        try:
            text = self._template.render(
                messages=turns,
                add_generation_prompt=True,
                enable_thinking=True,
                bos_token=self._bos,
                eos_token=self._eos,
                tools=None,
            )
        except _TEMPLATE_FAULTS as error:
            raise Refusal(
                "bad_request", f"the model's chat template refuses these messages: {str(error)[:200]}"
            ) from error
        return self._split(text, texts)

    def _without_thinking(self, turn: Message) -> str:
        """A turn's text, of an earlier answer without its thinking.

        Templates of reasoning models drop it themselves, by cutting at the tag: our mark would go with it.
        """
        text = turn.content or ""
        return text.rpartition(CLOSE)[2] if self.thinks and turn.role == "assistant" else text

    def _split(self, text: str, texts: Sequence[str]) -> list[Span]:
        own, *marked = self._opening.split(text)
        spans = [Span(own, special=True)]
        whole = True
        for place, rest in zip(marked[::2], marked[1::2], strict=True):
            user, end, own = rest.partition(self._end)
            at = int(place)
            whole = whole and bool(end) and at < len(texts) and user == texts[at]
            spans += [Span(user, special=False, message=at), Span(own, special=True)]
        # Any trace of a mark outside a user's text means that some of that text stands there as well.
        if not whole or any(mark in span.text for span in spans if span.special for mark in _MARKS):
            raise Refusal(
                "bad_request", "the model's chat template takes these messages apart; ask otherwise"
            )
        return [span for span in spans if span.text]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in tokens. `thinking` tells that the answer starts inside the reasoning."""

    tokens: list[int]
    thinking: bool


def opens_thinking(spans: Sequence[Span]) -> bool:
    """True when the prompt ends inside a reasoning block that the template opened."""
    tail = spans[-1].text if spans and spans[-1].special else ""
    return tail.rfind(OPEN) > tail.rfind(CLOSE)


def to_tokens(
    spans: Sequence[Span],
    tokenize: Callable[[str, bool], list[int]],
    begin: int | None,
    sampled: Callable[[Span], Sequence[int]] = lambda _: (),
) -> list[int]:
    """Tokens of a rendered prompt.

    Args:
        spans: from `ChatTemplate.render`.
        tokenize: takes text and whether control tokens may come out of it.
        begin: token that must stand first, unless the template has put it there.
        sampled: the tokens in which a message's text came from the model; none where the text is to be tokenized.
    """
    tokens: list[int] = []
    for span in spans:
        tokens += sampled(span) or tokenize(span.text, span.special)
    if begin is not None and tokens[:1] != [begin]:
        tokens.insert(0, begin)
    return tokens


def turns_of(messages: Sequence[Message]) -> list[list[Message]]:
    """A conversation as turns: a user's message and all that answers it; a system message is not among them."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _complain(message: object) -> NoReturn:
    raise jinja2.TemplateRuntimeError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime(form)
