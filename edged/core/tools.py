"""Tools that a model may call: what a question may offer, which call the model made, both in OpenAI's shape. Pure.

A tool is the device's own, described in the question, or one of the node's own, named in it. Bounded before
anything compiles or renders it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from edged.core.schema import checked
from edged.core.schema_cost import Cost, cost
from edged.errors import Refusal

TOOLS_MAX = 64
"""Home Assistant offers some twenty for a home with a media player, and one more for each script."""
TOOLS_BYTES_MAX = 32 * 1024
CALLS_MAX = 8
"""Calls in one message of a conversation."""
CALLS_MADE_MAX = 4
"""Calls in one reply: a small model that may make many repeats itself."""
NO_PARAMETERS = '{"type":"object","properties":{},"additionalProperties":false}'

Mode = Literal["none", "auto", "required"]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Tool(msgspec.Struct, frozen=True):
    """A function that a model may call; `parameters` is the JSON schema of its arguments, as text."""

    name: str
    description: str = ""
    parameters: str = NO_PARAMETERS

    def shape(self) -> dict[str, Any]:
        """As OpenAI writes it, and as chat templates expect it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": msgspec.json.decode(self.parameters),
            },
        }


class Call(msgspec.Struct, frozen=True):
    """A call that a model made; `arguments` is a JSON object, as text."""

    id: str
    name: str
    arguments: str

    def shape(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


class Offer(msgspec.Struct, frozen=True):
    """What a question lets the model call.

    Attributes:
        tools: the device's own.
        local: names of the node's own.
        mode: whether it may, must or must not call one.
        named: the one that it must call, with mode `required`.
        parallel: it may make several calls at once.
    """

    tools: tuple[Tool, ...] = ()
    local: tuple[str, ...] = ()
    mode: Mode = "auto"
    named: str | None = None
    parallel: bool = True


def offer(tools: Sequence[object] | None, choice: object, *, parallel: bool) -> Offer | None:
    """Read `tools`, `tool_choice` and `parallel_tool_calls`; None where nothing is offered.

    Args:
        tools: objects in OpenAI's shape for the device's own tools; strings name the node's own.
        choice: `none`, `auto`, `required` or `{"type": "function", "function": {"name": ...}}`.
        parallel: several calls at once are welcome.

    Raises:
        Refusal: `bad_request`.
    """
    if not tools:
        if choice not in (None, "auto", "none"):
            raise Refusal("bad_request", "tool_choice asks for a call, but the question offers no tools")
        return None
    if len(tools) > TOOLS_MAX:
        raise Refusal("bad_request", f"tools may hold {TOOLS_MAX}, got {len(tools)}")
    own = tuple(_tool(index, one) for index, one in enumerate(tools) if not isinstance(one, str))
    local = tuple(one for one in tools if isinstance(one, str))
    size = sum(len(tool.name + tool.description + tool.parameters) for tool in own)
    if size > TOOLS_BYTES_MAX:
        raise Refusal("bad_request", f"tools have {size} bytes; describe them with at most {TOOLS_BYTES_MAX}")
    together = Cost(multiples=sum(cost(msgspec.json.decode(tool.parameters)).multiples for tool in own))
    if together.objection:  # each alone was looked at before; they are compiled into one
        raise Refusal("bad_request", f"the schemas of tools together: {together.objection}")
    names = [*(tool.name for tool in own), *local]
    bad = next((name for name in names if not _NAME.fullmatch(name)), None)
    if bad is not None:
        raise Refusal("bad_request", "a tool's name must be 1 to 64 characters A-Z a-z 0-9 _ -")
    if len(set(names)) < len(names):
        raise Refusal("bad_request", "tools must have names of their own; one stands twice")
    mode, named = _choice(choice, names)
    # A reply's calls are answered by the device or by the node, never by both.
    return Offer(own, local, mode, named, parallel and not (own and local))


def _tool(index: int, one: object) -> Tool:
    where = f"tools[{index}]"
    function = one.get("function") if isinstance(one, dict) and one.get("type") == "function" else None
    if not isinstance(function, dict):
        raise Refusal(
            "bad_request",
            f'{where} must be {{"type": "function", "function": {{...}}}}, or the name of a tool of the node',
        )
    name, description = function.get("name"), function.get("description")
    if description is None:  # null too, from clients that write out what they were not given
        description = ""
    if not isinstance(name, str) or not isinstance(description, str):
        raise Refusal("bad_request", f"{where}.function must have a name and a description, both strings")
    parameters = function.get("parameters")
    if parameters is None:
        return Tool(name, description)
    return described(name, description, parameters, f"{where}.function.parameters")


def described(name: str, description: str, parameters: object, where: str) -> Tool:
    """A tool whose arguments have this schema, which counts as closed; `where` it stands is for complaints.

    Raises:
        Refusal: `bad_request`; the schema is not one of an object, or out of bounds.
    """
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise Refusal("bad_request", f"{where} must be a JSON schema of type object")
    closed = {"type": "object", **parameters}
    if not {"additionalProperties", "$ref", "anyOf", "oneOf", "allOf"} & closed.keys():
        # OpenAI's models do not invent arguments that no schema names; a small one would.
        closed["additionalProperties"] = False
    return Tool(name, description, checked(closed, where))


def _choice(choice: object, names: Sequence[str]) -> tuple[Mode, str | None]:
    match choice:
        case None:
            return "auto", None
        case "none" | "auto" | "required":
            return choice, None
        case {"type": "function", "function": {"name": str(name)}}:
            if name not in names:
                raise Refusal("bad_request", "tool_choice names a tool that is not among tools")
            return "required", name
    raise Refusal(
        "bad_request",
        'tool_choice must be none, auto, required or {"type": "function", "function": {"name": "..."}}',
    )


def read_calls(shapes: Sequence[dict[str, Any]], where: str) -> tuple[Call, ...]:
    """The calls of an assistant's message in a conversation.

    Raises:
        Refusal: `bad_request`.
    """
    if not 0 < len(shapes) <= CALLS_MAX:
        raise Refusal("bad_request", f"{where}.tool_calls may hold 1 to {CALLS_MAX} calls, got {len(shapes)}")
    calls = []
    for shape in shapes:
        match shape:
            case {"id": str(name), "function": {"name": str(tool), "arguments": str(arguments)}}:
                call = Call(name, tool, arguments)
            case _:
                raise Refusal(
                    "bad_request",
                    f'{where}.tool_calls must be {{"id": "...", "type": "function", "function": '
                    '{"name": "...", "arguments": "<JSON object as text>"}}',
                )
        if not _ID.fullmatch(call.id) or not _NAME.fullmatch(call.name):
            raise Refusal(
                "bad_request", f"{where}.tool_calls: id or name has characters that are not allowed"
            )
        if not is_object(call.arguments):
            raise Refusal("bad_request", f"{where}.tool_calls: arguments must be a JSON object, as text")
        calls.append(call)
    return tuple(calls)


def is_object(text: str) -> bool:
    """Whether a text is one JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def is_call_id(text: str) -> bool:
    """Whether a text may name a call."""
    return _ID.fullmatch(text) is not None
