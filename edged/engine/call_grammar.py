"""The grammar of an answer that may be text or tool calls, as llguidance's Lark dialect has it. Pure.

All text of devices stands in it as JSON: names of tools are letters and digits, schemas are `%json` values that
were parsed and written anew. Nothing else of the wire gets in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from edged.core.dialect import adapted
from edged.core.tools import CALLS_MADE_MAX, Mode, Tool
from edged.engine.calls import CallForm
from edged.engine.unique_grammar import answer

ANY = r"/(.|\n)*/"
UNSPELLED = '%llguidance {"no_forcing": true}'
"""In front of what is to be written token by token, also where there is no choice."""


def grammar(
    form: CallForm,
    tools: Sequence[Tool],
    mode: Mode,
    *,
    literal: Callable[[str], Sequence[str | int]],
    parallel: bool,
    schema: str | None,
    options: dict[str, Any],
    at_once: bool,
) -> str:
    """Lark text.

    Args:
        form: how the model writes calls.
        tools: those that it may call; with a named one, that one alone.
        mode: `required` leaves no place for text, `none` none for calls.
        literal: a text of the template as the vocabulary has it: stretches of text, and numbers of special tokens.
        parallel: several calls are allowed.
        schema: what an answer that is no call must follow; None for any text.
        options: llguidance's for the schemas.
        at_once: what they leave no choice about is spelled out at once.
    """
    lines = [header(at_once=at_once)]
    trigger = literal(form.trigger)
    text = f"answer: TEXT\nTEXT: {ANY}" if schema is None else answer(json.loads(schema), options)
    if mode == "none":
        if schema is None and isinstance(trigger[0], str):  # a special token is no text anyway
            text = f"answer: TEXT\nTEXT: {ANY} & ~({ANY} {_terminal(trigger[:1])} {ANY})"
        return "\n".join([*lines, "start: answer", text, ""])
    lines.append("start: calls" if mode == "required" else "start: answer | calls")
    if mode != "required":
        lines.append(text)
    tail = _terminal(literal(form.opening[len(form.trigger) :]))
    by_token = isinstance(trigger[0], int)
    if mode == "required" or schema is not None:
        # Where the tag is a token the model may spell it too: so it stands in our description of the tools.
        spelled = f" | {_terminal([form.trigger])}" if by_token and mode != "required" else ""
        lines.append(f"calls: ({_terminal(trigger)}{spelled}) {tail} rest")
    else:
        # Lazy: as soon as the trigger stands there, it is a call and no text any more.
        first, *others = [form.trigger] if by_token else trigger
        begin = f"head {_terminal(others)}"
        if by_token:
            begin = f"(TEXT {_terminal(trigger)} | {begin})"
        lines += [f"calls: {begin} {tail} rest", f"head[lazy]: {ANY} {_terminal([first])}"]
    more = ""
    if parallel and form.between is not None:
        more = f"({_terminal(literal(form.between))} call){{0,{CALLS_MADE_MAX - 1}}}"
    lines.append(f"rest: call {more} {_terminal(literal(form.closing))}")
    lines.append("call: " + " | ".join(f"call_{at}" for at in range(len(tools))))
    spaced = {**options, "item_separator": ", ", "key_separator": ": "}
    for at, tool in enumerate(tools):
        lead = _terminal(literal(tool.name + form.middle))
        lines.append(f"call_{at}: {lead} %json {_json(tool.parameters, spaced)}")
    return "\n".join([*lines, ""])


def header(*, at_once: bool) -> str:
    """A grammar's first line."""
    return "%llguidance {}" if at_once else UNSPELLED


def _json(schema: str, options: dict[str, Any]) -> str:
    """A tool's schema with the compiler's options in it: the only place that a grammar has for them.

    That items are unique is left to a tool to see, which has to check its arguments anyway: programs that offer a
    list of such tools (Home Assistant with each of its scripts) would get no answer at all for one of them.
    """
    return json.dumps({**adapted(json.loads(schema), unique=False), "x-guidance": options})


def _terminal(parts: Sequence[str | int]) -> str:
    return " ".join(f"<[{part}]>" if isinstance(part, int) else json.dumps(part) for part in parts)
