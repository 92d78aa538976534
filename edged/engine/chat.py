"""Chat templates: from messages to tokens, with no way for a user's text to become a control token.

A template comes out of a model file, so it runs in Jinja's immutable sandbox (CVE-2024-34359). It is rendered
with every message's text between two marks (`edged.engine.marks`); afterwards the text between marks is tokenized
with specials off, and the template's own text with specials on.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from edged.core.question import Message
from edged.core.thinking import THINK, Tags, tags_of
from edged.core.tools import Call, Tool
from edged.engine.calls import IDS, NAMES, OURS, SAID, CallForm, arguments, learn
from edged.engine.marks import Marks, Span
from edged.engine.plain_turns import without_system, without_tools
from edged.engine.ports import Tokenize, Vocabulary
from edged.errors import ModelError, Refusal

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Used for a model file that brings no template."""
_ASKED, _TOLD = "edged-asked", "edged-told"
"""Texts to look for in what a template makes of them."""
_TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template raises that refuses the messages, or does not work at all."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks for training what a model wrote; here that is rendered like the rest."""

    tags = {"generation"}  # noqa: RUF012 - Jinja reads it so

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """What stands between the tags."""
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(
            parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
        )


class ChatTemplate:
    """One model's way of writing a conversation.

    Args:
        source: Jinja text.
        bos, eos: texts of the model's special tokens.

    Attributes:
        tags: of the model's thinking; None where the template knows none.
        own_form: how the model writes a tool call; None where the template does not list tools, or writes calls
            in a way that we cannot hold an answer to. Then `calls.OURS` is used, and told to the model.
        takes_system: the template writes a system message. One that refuses it or leaves it out, as Gemma's and
            early Mistral's do, gets its text at the beginning of the first user's.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        self._marks = Marks()
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
        )
        environment.globals["raise_exception"] = _complain
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = self._tojson
        environment.filters["trim"] = self._marks.trim
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            where = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise ModelError(f"the chat template cannot be read: {where}{error.message}") from error
        except (SyntaxError, ValueError, RecursionError) as error:  # of Python, for which Jinja translates it
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise ModelError(f"the chat template cannot be read: {reason}") from error
        self._bos, self._eos = bos, eos
        self.tags = tags_of(source)
        self._text_arguments = False
        self.own_form = self._learn_form()
        asked = self._try([Message("user", _ASKED)], (), answer=True)
        self._deaf = asked is not None and _ASKED not in asked
        self.takes_system = asked is None or self._learn_system()

    def hearing(self) -> Self:
        """Itself, to answer questions by.

        Raises:
            ModelError: it leaves out what is asked, as one does of which a power cut has left an empty file.
        """
        if self._deaf:
            raise ModelError("the chat template leaves out what is asked")
        return self

    @property
    def form(self) -> CallForm:
        """How the model is held to write a tool call."""
        return self.own_form or OURS

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, thinks: bool = True
    ) -> list[Span]:
        """Spans of the prompt, ready for the answer to follow.

        Args:
            messages: the conversation.
            tools: what the model may call.
            thinks: False where the answer shall have no thinking, if the template has a way to say so. What it
                opens all the same is closed by who asks, see `Tags.closing`.

        Raises:
            Refusal: the template does not accept these messages (`bad_request`).
        """
        origins: Sequence[int | None] = range(len(messages))
        if self.own_form is None:
            messages, origins = without_tools(messages, tools)
            tools = ()
        if not self.takes_system:
            messages, origins = without_system(messages, origins)
        try:
            text = self._render(messages, tools, thinks=thinks)
        except _TEMPLATE_FAULTS as error:
            raise Refusal(
                "bad_request", f"the model's chat template refuses these messages: {str(error)[:200]}"
            ) from error
        return self._marks.split(text, origins)

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        *,
        answer: bool = True,
        thinks: bool = True,
    ) -> str:
        """The template's text, with marks."""
        turns = [self._turn(at, turn) for at, turn in enumerate(messages)]
        listed = [self._marks.mark_each(tool.shape()) for tool in tools]
        return self._template.render(
            messages=turns,
            add_generation_prompt=answer,
            # Thinking in tags that we do not know could not be told from the answer.
            enable_thinking=thinks and self.tags is not None,
            bos_token=self._bos,
            eos_token=self._eos,
            tools=listed or None,
        )

    def _turn(self, at: int, turn: Message) -> dict[str, Any]:
        text = self._without_thinking(turn)
        told: dict[str, Any] = {"role": turn.role, "content": self._marks.mark(text, at) if text else ""}
        if turn.tool_calls:
            calls = [dict(call, function=dict(call["function"])) for call in turn.tool_calls]
            if not self._text_arguments:
                for call in calls:
                    call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            told["tool_calls"] = self._marks.mark_each(calls)
        if turn.role == "tool":
            told |= {"tool_call_id": turn.tool_call_id, "name": self._marks.mark_each(turn.name or "")}
        return told

    def _tojson(  # the filter that templates are written for
        self,
        value: object,
        ensure_ascii: bool = False,  # noqa: FBT001, FBT002
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,  # noqa: FBT001, FBT002
    ) -> str:
        """JSON as Hugging Face's templates expect it: not escaped for HTML. All of it is text of the wire."""
        text = self._marks.unmark(
            json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
        )
        if ensure_ascii:  # only now: no mark is ASCII
            text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
        return self._marks.mark(text)

    def _without_thinking(self, turn: Message) -> str:
        """A turn's text, of an earlier answer without its thinking.

        Templates of reasoning models drop it themselves, by cutting at the tag: our mark would go with it.
        """
        text = turn.content or ""
        if self.tags is not None and turn.role == "assistant":
            # Our `inline` has the first, whatever the model writes.
            for close in (THINK.close, self.tags.close):
                text = text.rpartition(close)[2]
        return text

    def _learn_system(self) -> bool:
        """See whether a system message comes through."""
        told = self._try([Message("system", _TOLD), Message("user", _ASKED)], (), answer=True)
        return told is not None and _TOLD in told

    # tools ----------------------------------------------------------------------------------------------

    def _learn_form(self) -> CallForm | None:
        """See whether the template lists a tool that it is given, and how it writes calls of it."""
        schema = '{"type":"object","properties":{"edged_key":{"type":"string"}}}'
        tools = [Tool(name, "edged-about", schema) for name in NAMES]
        listed = self._try([Message("user", _ASKED)], tools, answer=True)
        if listed is None or not all(name in listed for name in (*NAMES, "edged_key")):
            return None
        plain = self._try([Message("user", _ASKED), Message("assistant", SAID)], tools)
        for self._text_arguments in (False, True):
            one, two = (self._try(_calling(count), tools) for count in (1, 2))
            form = None if plain is None or one is None else learn(plain, one, two)
            if form is not None:
                return form
            if one is not None and repr("edged_key") not in one:
                break  # it writes a mapping in a way of its own: what it makes of a text is another
        self._text_arguments = False
        return None

    def _try(self, messages: Sequence[Message], tools: Sequence[Tool], *, answer: bool = False) -> str | None:
        try:
            return self._marks.unmark(self._render(messages, tools, answer=answer))
        except _TEMPLATE_FAULTS:
            return None


def _calling(count: int) -> list[Message]:
    """A conversation that ends with so many calls."""
    calls = [Call(IDS[at], NAMES[at], json.dumps(arguments(at))).shape() for at in range(count)]
    return [Message("user", _ASKED), Message("assistant", None, tool_calls=calls)]


def opens_thinking(spans: Sequence[Span], tags: Tags | None) -> bool:
    """True when the prompt ends inside a thinking that the template opened."""
    tail = spans[-1].text if spans and spans[-1].special else ""
    return tags is not None and tail.rfind(tags.open) > tail.rfind(tags.close)


def to_tokens(
    spans: Sequence[Span],
    vocabulary: Vocabulary,
    tokenize: Tokenize | None = None,
    sampled: Callable[[Span], Sequence[int]] = lambda _: (),
) -> list[int]:
    """Tokens of a rendered prompt.

    Args:
        spans: from `ChatTemplate.render`.
        vocabulary: its `begin` stands first, where the template has not put it there.
        tokenize: what stands for the vocabulary's own, where anything does.
        sampled: the tokens in which a message's text came from the model; none where the text is to be tokenized.
    """
    tokenize, begin = tokenize or vocabulary.tokenize, vocabulary.begin
    tokens: list[int] = []
    texts, said = [span.text for span in spans], [sampled(span) for span in spans]
    for at, (span, after) in enumerate(itertools.pairwise(spans)):
        if span.special and not after.special:
            # A word is one token with the space before it, also where that is the template's: `USER: Hi`,
            # `[INST] Hi`. What a model wrote behind a prompt that ends with `ASSISTANT:` has none but its own.
            # An indented text is cut together with the line break before it, as ChatML has one.
            indented = not said[at + 1] and after.text[:1].isspace()
            words = texts[at].rstrip() if indented else texts[at].rstrip(" ")
            if not said[at + 1]:
                texts[at + 1] = texts[at][len(words) :] + after.text
            if not (said[at + 1] and texts[-1].endswith(" ")):
                texts[at] = words
    for span, text, own in zip(spans, texts, said, strict=True):
        first = not tokens or vocabulary.is_special(tokens[-1])
        tokens += own or tokenize(text, special=span.special, first=first)
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
    return datetime.datetime.now().astimezone().strftime(form)
