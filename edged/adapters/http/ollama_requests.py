"""Requests to Ollama's chat and generate as the contract's questions. Pure.

As much of https://github.com/ollama/ollama/blob/main/docs/api.md as its Python client and Home Assistant's
integration use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edged.core.question import TOP_K
from edged.errors import Refusal

from .asking import Wish
from .openai_requests import is_one_of, streams

OPTIONS = {
    "num_predict": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
}
"""Ollama's options, and the contract's fields that they set."""
BESIDE = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
"""Vercel's AI SDK (ollama-ai-provider-v2) sets them beside the options, as `tool_choice`; Ollama hears none."""
OPEN_BELOW_ZERO = frozenset({"num_predict", "seed"})
"""Below zero, as Ollama's own defaults are, they ask for what comes without them: as much as fits, any seed."""
OPTIONS_HARMLESS = frozenset(
    {
        *("num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "use_mmap"),
        *("use_mlock", "low_vram", "f16_kv", "vocab_only", "logits_all", "penalize_newline", "repeat_last_n"),
    }
)
"""How Ollama would load the model: here the board's settings decide that. A prompt that is too long for them is
refused, not cut, whatever `num_ctx` says."""
OPTIONS_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "top_k": (0, -1, TOP_K),
    "min_p": (0,),
    "typical_p": (1,),
    "tfs_z": (1,),
    "mirostat": (0,),
    "repeat_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""Values that ask for nothing."""
KNOWN = frozenset(
    {"model", "stream", "keep_alive", "options", "format", "think", "logprobs", "top_logprobs", *BESIDE}
)
CHAT = KNOWN | {"messages", "tools", "tool_choice"}
GENERATE = KNOWN | {"prompt", "system", "raw", "template", "suffix", "images", "context"}
MESSAGE = frozenset(
    {"role", "content", "tool_calls", "tool_name", "tool_call_id", "thinking", "images", "name"}
)


def chat_wish(body: Mapping[str, Any], key: str | None) -> Wish | None:
    """A chat's question; None for a request without messages, which only asks to load the model.

    Raises:
        Refusal: `bad_request` or `unsupported`, naming the field.
    """
    fields = _common(body, CHAT)
    messages = body.get("messages")
    if not messages:
        return None
    if not isinstance(messages, list):
        raise Refusal("bad_request", "messages must be a list of turns")
    fields["messages"] = _messages(messages)
    if body.get("tools"):
        fields["tools"] = _tools(body["tools"])
        if body.get("tool_choice") is not None:
            fields["tool_choice"] = body["tool_choice"]
    return Wish(fields, None, key)


def generate_wish(body: Mapping[str, Any], key: str | None) -> Wish | None:
    """A generation's question; None for an empty prompt, which only asks to load the model.

    Raises:
        Refusal: `bad_request` or `unsupported`, naming the field.
    """
    fields = _common(body, GENERATE)
    for name in ("raw", "template", "suffix", "images", "context"):
        if body.get(name):
            raise Refusal("unsupported", f"{name} is not supported by this node; leave it out")
    if not body.get("prompt"):
        return None
    messages = [{"role": "user", "content": body["prompt"]}]
    if body.get("system"):
        messages.insert(0, {"role": "system", "content": body["system"]})
    fields["messages"] = messages
    return Wish(fields, None, key)


def _common(body: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"stream": streams(body, unasked=True)}
    unknown = sorted(name for name, value in body.items() if value is not None and name not in known)
    if unknown:
        raise Refusal("bad_request", f"unknown field {unknown[0][:80]!a}; leave it out")
    if body.get("logprobs"):
        raise Refusal("unsupported", "logprobs is not supported by this node; leave it out")
    fields |= {field: body[name] for name, field in BESIDE.items() if body.get(name) is not None}
    fields |= _options(body.get("options") or {})
    form = body.get("format")
    if form == "json":
        fields["response_format"] = {"type": "json_object"}
    elif isinstance(form, Mapping):
        fields["response_format"] = {"type": "json_schema", "json_schema": {"schema": form}}
    elif form:
        raise Refusal("bad_request", "format must be json or a JSON schema, an object")
    if body.get("think") is False:
        fields["reasoning"] = {"mode": "hide", "budget": 0}
    return fields


def _options(options: object) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise Refusal("bad_request", "options must be an object")
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or name in OPTIONS_HARMLESS:
            continue
        if name in OPTIONS_NEUTRAL:
            if not is_one_of(value, OPTIONS_NEUTRAL[name]):
                raise Refusal("unsupported", f"options.{name} is not supported by this node; leave it out")
        elif name not in OPTIONS:
            raise Refusal("bad_request", f"unknown option {name[:80]!a}; leave it out")
        elif not (name in OPEN_BELOW_ZERO and isinstance(value, int | float) and value < 0):
            fields[OPTIONS[name]] = value
    return fields


def _tools(tools: object) -> object:
    """The same, with nothing where parameters have null: Ollama's Go client sends that for no `properties`."""
    if not isinstance(tools, list):
        return tools
    told: list[object] = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        parameters = function.get("parameters") if isinstance(function, Mapping) else None
        if isinstance(function, Mapping) and isinstance(parameters, Mapping):
            given = {name: value for name, value in parameters.items() if value is not None}
            told.append({**tool, "function": {**function, "parameters": given}})
        else:
            told.append(tool)
    return told


def _messages(messages: list[Any]) -> list[dict[str, Any]]:
    """Turns in the contract's shape. Ollama's calls have no ids: results follow them in their order.

    A turn without content gets an empty one: Home Assistant sends it of an answer that was thinking alone. A result
    without a call before it is left out: Home Assistant sends one where it has cut the call off its history. As the
    last turn it is what is asked, and is refused.
    """
    turns: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for index, given in enumerate(messages):
        if not isinstance(given, Mapping):
            raise Refusal("bad_request", f"messages[{index}] must be an object")
        strange = sorted(name for name, value in given.items() if value is not None and name not in MESSAGE)
        if strange or given.get("images"):
            name = strange[0][:40] if strange else "images"
            raise Refusal("unsupported", f"messages[{index}].{name} is not supported; leave it out")
        content = given.get("content")
        turn: dict[str, Any] = {"role": given.get("role"), "content": "" if content is None else content}
        if given.get("tool_calls"):
            turn["tool_calls"] = calls = _calls(given["tool_calls"], index)
            open_calls = [call["id"] for call in calls]
            turn["content"] = turn["content"] or None
        if turn["role"] == "tool":
            answered = given.get("tool_call_id") or (open_calls.pop(0) if open_calls else None)
            if answered is None and index < len(messages) - 1:
                continue
            if answered is None:
                raise Refusal(
                    "bad_request", f"messages[{index}]: there is no call before this result of a tool"
                )
            turn["tool_call_id"] = answered
        turns.append({name: value for name, value in turn.items() if value is not None})
    return turns


def _calls(calls: object, index: int) -> list[dict[str, Any]]:
    """Ollama's calls, whose arguments are an object, in OpenAI's shape, where they are text."""
    told: list[dict[str, Any]] = []
    for place, call in enumerate(calls if isinstance(calls, list) else [None]):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Refusal(
                "bad_request", f"messages[{index}].tool_calls must hold a function with a name each"
            )
        arguments = function.get("arguments") or {}
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        name = call.get("id") or f"call_{index}_{place}"
        told.append(
            {"id": name, "type": "function", "function": {"name": function["name"], "arguments": text}}
        )
    return told
