"""Conversations for chat templates that cannot write all of one: tools and system messages as plain turns.

Each function returns the messages and their origins: for each its place in the conversation as it was asked, None
where it was made here. Belongs to the engine; pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edged.core.question import Message
from edged.core.tools import Tool, read_calls
from edged.engine.calls import OURS

PROMPT = """# Tools

You may call functions to help with the question. These are their signatures:
<tools>
{tools}
</tools>

To call one, write a JSON object with its name and its arguments within <tool_call></tool_call>:
<tool_call>
{{"name": <name of the function>, "arguments": <JSON object of its arguments>}}
</tool_call>"""
"""What the system prompt ends with, where the template cannot say it."""


def without_tools(
    messages: Sequence[Message], tools: Sequence[Tool]
) -> tuple[list[Message], list[int | None]]:
    """Tools stand in the system prompt, calls in the assistant's text, results in a user's turn."""
    turns: list[Message] = []
    origins: list[int | None] = []
    for at, message in enumerate(messages):
        turn, origin = message, at if message.role != "tool" and not message.tool_calls else None
        if message.tool_calls:
            said = [message.content] if message.content else []
            calls = read_calls(message.tool_calls, "messages")
            turn = Message("assistant", "\n".join([*said, OURS.write(calls)]))
        elif message.role == "tool":
            text = f"<tool_response>\n{message.content}\n</tool_response>"
            if at and messages[at - 1].role == "tool":
                turns[-1] = Message("user", f"{turns[-1].content}\n{text}")
                continue
            turn = Message("user", text)
        turns.append(turn)
        origins.append(origin)
    if tools:
        listed = "\n".join(json.dumps(tool.shape(), ensure_ascii=False) for tool in tools)
        told = PROMPT.format(tools=listed)
        if turns[0].role == "system":
            turns[0], origins[0] = Message("system", f"{turns[0].content}\n\n{told}"), None
        else:
            turns.insert(0, Message("system", told))
            origins.insert(0, None)
    return turns, origins


def without_system(
    messages: Sequence[Message], origins: Sequence[int | None]
) -> tuple[list[Message], list[int | None]]:
    """The first user's message begins with what the system message says."""
    if messages[0].role != "system":
        return list(messages), list(origins)
    told, turns, places = messages[0].content or "", list(messages[1:]), list(origins[1:])
    if not told:
        return turns, places
    if turns and turns[0].role == "user":
        turns[0], places[0] = Message("user", f"{told}\n\n{turns[0].content or ''}"), None
    else:
        turns.insert(0, Message("user", told))
        places.insert(0, None)
    return turns, places
