"""Replies as Ollama's lines of JSON, and what it tells of a model. Pure.

As much of https://github.com/ollama/ollama/blob/main/docs/api.md as its Python client and Home Assistant's
integration use.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import HttpError
from .openai_replies import extras_of, one_line

STAYS = "2300-01-01T00:00:00Z"
"""When a model is unloaded that never is: `ollama ps` calls what lies more than 20 years ahead "Forever", and
what is past or missing "Stopping..."."""


def now() -> str:
    """The wall clock, as Ollama writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def error_body(error: HttpError) -> dict[str, Any]:
    """Ollama's error object."""
    return {"error": error.message}


def arguments_of(text: object) -> dict[str, Any]:
    """The arguments of a call as the object that Ollama's clients expect."""
    try:
        value = msgspec.json.decode(text) if isinstance(text, str) else text
    except msgspec.MsgspecError:
        return {}
    return value if isinstance(value, dict) else {}


def calls_of(calls: list[Any]) -> list[dict[str, Any]]:
    """OpenAI's calls in Ollama's shape."""
    functions = [call.get("function", {}) for call in calls]
    return [
        {"function": {"name": f.get("name", ""), "arguments": arguments_of(f.get("arguments"))}}
        for f in functions
    ]


def totals_of(done: Mapping[str, Any]) -> dict[str, Any]:
    """Counts, and times in nanoseconds."""
    usage, timings = done.get("usage", {}), done.get("timings", {})
    ns = {name: 1_000_000 * timings.get(f"{name}_ms", 0) for name in ("queue", "prefill", "decode")}
    return {
        "done_reason": "stop" if done["finish_reason"] == "tool_calls" else done["finish_reason"],
        "total_duration": sum(ns.values()),
        "load_duration": 0,
        "prompt_eval_count": usage.get("prompt_tokens", 0),
        "prompt_eval_duration": ns["prefill"],
        "eval_count": usage.get("completion_tokens", 0),
        "eval_duration": ns["decode"],
        "edged": extras_of(done),
    }


@dataclass(slots=True)
class OllamaChat:
    """Replies as lines of a chat."""

    model: str
    stream_type: str = "application/x-ndjson"
    _role: dict[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": ""})

    def begin(self) -> bytes:
        """Nothing: the first line is the first text."""
        return b""

    def part(self, kind: str, text: str) -> bytes:
        """The next text."""
        return self._line({"message": {**self._role, "content" if kind == "text" else "thinking": text}})

    def calls(self, calls: list[Any]) -> bytes:
        """What the model wants to be called."""
        return self._line({"message": {**self._role, "tool_calls": calls_of(calls)}})

    def end(self, done: Mapping[str, Any]) -> bytes:
        """The last line."""
        return self._line({"message": self._role, **totals_of(done)}, done=True)

    def silence(self) -> bytes:
        """A piece without text: lines have no comments, and a client would take an empty one for an error."""
        return self.part("text", "")

    def error(self, error: HttpError) -> bytes:
        """The end of a stream that cannot go on."""
        return one_line(error_body(error)) + b"\n"

    def whole(self, done: Mapping[str, Any], calls: list[Any]) -> dict[str, Any]:
        """The answer in one piece."""
        message = {**self._role, "content": done["text"]}
        if done.get("reasoning"):
            message["thinking"] = done["reasoning"]
        if calls:
            message["tool_calls"] = calls_of(calls)
        return {**self._head(), "message": message, "done": True, **totals_of(done)}

    def loaded(self) -> dict[str, Any]:
        """The answer to a request without a question."""
        return {**self._head(), "message": self._role, "done": True, "done_reason": "load"}

    def error_body(self, error: HttpError) -> dict[str, Any]:
        """An error in place of the answer."""
        return error_body(error)

    def _head(self) -> dict[str, Any]:
        return {"model": self.model, "created_at": now()}

    def _line(self, value: Mapping[str, Any], *, done: bool = False) -> bytes:
        return one_line({**self._head(), **value, "done": done}) + b"\n"


class OllamaGenerate(OllamaChat):
    """Replies as lines of a generation."""

    def part(self, kind: str, text: str) -> bytes:
        """The next text."""
        return self._line({"response": "", "response" if kind == "text" else "thinking": text})

    def end(self, done: Mapping[str, Any]) -> bytes:
        """The last line."""
        return self._line({"response": "", **totals_of(done)}, done=True)

    def whole(self, done: Mapping[str, Any], calls: list[Any]) -> dict[str, Any]:
        """The answer in one piece."""
        del calls
        told: dict[str, Any] = {**self._head(), "response": done["text"], "done": True, **totals_of(done)}
        if done.get("reasoning"):
            told["thinking"] = done["reasoning"]
        return told

    def loaded(self) -> dict[str, Any]:
        """The answer to a request without a question."""
        return {**self._head(), "response": "", "done": True, "done_reason": "load"}


def model_card(name: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `/api/tags`, from the node's `info`."""
    model = info.get("model", {})
    told = details(info)
    # Always 64 digits: `ollama list` prints the first 12, and ends with a panic where there are fewer. Ollama's own
    # is that of a description too, not of the weights.
    described = msgspec.json.encode([name, model.get("bytes", 0), told])
    return {
        "name": name,
        "model": name,
        "modified_at": now(),
        "size": model.get("bytes", 0),
        "digest": model.get("sha256") or hashlib.sha256(described).hexdigest(),
        "details": told,
    }


def running_card(name: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `/api/ps`: the model stays loaded."""
    return {**model_card(name, info), "expires_at": STAYS, "context_length": info.get("context_max", 0)}


def details(info: Mapping[str, Any]) -> dict[str, Any]:
    """What Ollama tells of a model."""
    model = info.get("model", {})
    family = model.get("architecture", "")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": f"{model.get('parameters', 0) / 1e6:.0f}M",
        "quantization_level": model.get("quantisation", ""),
    }


def show(info: Mapping[str, Any]) -> dict[str, Any]:
    """`/api/show`."""
    model = info.get("model", {})
    can = ["completion"]
    if "tools" in info.get("capabilities", ()):
        can.append("tools")
    if model.get("reasoning"):
        can.append("thinking")
    family = model.get("architecture", "model")
    return {
        "license": "",
        "modelfile": "",
        "parameters": f"num_ctx {info.get('context_max', 0)}",
        "template": "",
        "details": details(info),
        "model_info": {
            "general.architecture": family,
            "general.parameter_count": model.get("parameters", 0),
            f"{family}.context_length": info.get("context_max", 0),
        },
        "capabilities": can,
        "modified_at": now(),
    }
