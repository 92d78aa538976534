"""Replies as OpenAI's chat completions and completions. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import HttpError

LINE_ENDS = {"\u0085".encode(): b"\\u0085", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
"""Next line, line separator and paragraph separator, as UTF-8 and as JSON may write them too."""


def error_body(error: HttpError) -> dict[str, Any]:
    """OpenAI's error object."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")  # noqa: PLR2004
    # Programs shorten the conversation and ask again for this code, which helps where the context is full.
    full = error.code == "too_long" and error.param is None
    code = "context_length_exceeded" if full else error.code
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}


def usage_of(done: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's usage, of a `done`."""
    usage = done.get("usage", {})
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
    }


def finish_of(done: Mapping[str, Any]) -> str:
    """OpenAI knows no deadline: what it cut is as incomplete as what a limit of tokens cut."""
    reason = str(done["finish_reason"])
    return "length" if reason == "deadline" else reason


def extras_of(done: Mapping[str, Any]) -> dict[str, Any]:
    """What a `done` tells beyond OpenAI's fields."""
    names = ("node", "attempt", "level", "trimmed", "timings", "upstream", "session")
    return {name: done[name] for name in names if name in done}


def one_line(value: Mapping[str, Any]) -> bytes:
    """JSON that is one line to all who read it.

    JSON escapes the ends of lines below U+0020 alone; Python's `str.splitlines` knows three more, and httpx, with
    it Ollama's own client, goes by that: an answer with one of them was half a line of JSON to it.
    """
    text = msgspec.json.encode(value)
    for character, escaped in LINE_ENDS.items():
        text = text.replace(character, escaped)
    return text


def event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + one_line(value) + b"\n\n"


@dataclass(slots=True)
class ChatShape:
    """Replies as chat completions.

    Attributes:
        model: the name that the client asked for.
        with_usage: the stream ends with a chunk of usage.
    """

    id: str
    model: str
    with_usage: bool = False
    stream_type: str = "text/event-stream"
    _created: int = field(default_factory=lambda: int(time.time()))

    def begin(self) -> bytes:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def part(self, kind: str, text: str) -> bytes:
        """The next text."""
        return self._chunk({"content" if kind == "text" else "reasoning_content": text})

    def calls(self, calls: list[Any]) -> bytes:
        """What the model wants to be called."""
        return self._chunk({"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})

    def end(self, done: Mapping[str, Any]) -> bytes:
        """The last chunks."""
        last = self._chunk({}, finish_of(done), edged=extras_of(done))
        return last + self._stream_end("chat.completion.chunk", done)

    def silence(self) -> bytes:
        """A comment, so that nobody on the way takes the connection for dead."""
        return b": waiting\n\n"

    def error(self, error: HttpError) -> bytes:
        """The end of a stream that cannot go on."""
        return event(error_body(error))

    def whole(self, done: Mapping[str, Any], calls: list[Any]) -> dict[str, Any]:
        """The answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": done["text"]}
        if done.get("reasoning"):
            message["reasoning_content"] = done["reasoning"]
        if calls:
            message["tool_calls"] = calls
            message["content"] = done["text"] or None
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(done)}
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": usage_of(done), "edged": extras_of(done)}

    def error_body(self, error: HttpError) -> dict[str, Any]:
        """An error in place of the answer."""
        return error_body(error)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.id}", "object": kind, "created": self._created, "model": self.model}

    def _stream_end(self, kind: str, done: Mapping[str, Any]) -> bytes:
        usage = {**self._head(kind), "choices": [], "usage": usage_of(done)}
        return (event(usage) if self.with_usage else b"") + b"data: [DONE]\n\n"

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **more})


class CompletionShape(ChatShape):
    """Replies as completions: text alone."""

    def begin(self) -> bytes:
        """Nothing: the first chunk is the first text."""
        return b""

    def part(self, kind: str, text: str) -> bytes:
        """The next text."""
        return self._text(text) if kind == "text" else b""

    def end(self, done: Mapping[str, Any]) -> bytes:
        """The last chunks."""
        return self._text("", finish_of(done)) + self._stream_end("text_completion", done)

    def whole(self, done: Mapping[str, Any], calls: list[Any]) -> dict[str, Any]:
        """The answer in one piece."""
        del calls
        choice = {"index": 0, "text": done["text"], "logprobs": None, "finish_reason": finish_of(done)}
        head = self._head("text_completion")
        return {**head, "choices": [choice], "usage": usage_of(done), "edged": extras_of(done)}

    def _text(self, text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return event({**self._head("text_completion"), "choices": [choice]})
