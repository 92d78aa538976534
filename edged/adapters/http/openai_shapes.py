"""OpenAI's chat completions and completions: requests to the contract's questions, replies to its JSON. Pure.

Every field of a request is passed on, passed over (`HARMLESS`), accepted at the one value that changes nothing
(`NEUTRAL`), or refused by name: none that would change the answer is dropped in silence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edged.errors import Refusal

from .asking import Wish
from .errors import HttpError

PASSED = frozenset(
    {
        *("temperature", "top_p", "seed", "stop", "response_format"),
        *("tools", "tool_choice", "parallel_tool_calls"),
    }
)
"""Passed on as they are."""
OWN = frozenset({"deadline_ms", "priority", "session", "reasoning", "cache", "overflow"})
"""The contract's own, beside OpenAI's (`extra_body` in its client)."""
READ = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *("user", "reasoning_effort"),
    }
)
HARMLESS = frozenset(
    {
        *(
            "metadata",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
        ),
        *("service_tier", "store", "verbosity"),
    }
)
"""They do not change what a model of this size answers, and clients send them unasked."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "repeat_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
"""Values that ask for nothing; any other would change the answer, and this node could not follow."""
MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
MESSAGE_ECHO = frozenset({"reasoning_content", "reasoning", "refusal", "annotations"})
"""What clients send back of an earlier answer."""
EFFORT_NONE = frozenset({"none", "minimal"})
LINE_ENDS = {"\u0085".encode(): b"\\u0085", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
"""Next line, line separator and paragraph separator, as UTF-8 and as JSON may write them too."""


def chat_wish(body: Mapping[str, Any], key: str | None) -> Wish:
    """A chat completion's question.

    Raises:
        Refusal: `bad_request` or `unsupported`, naming the field.
    """
    fields = _common(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or "prompt" in body:
        raise Refusal("bad_request", "messages must be a list of turns, and there is no prompt here")
    fields["messages"] = _messages(messages)
    return Wish(fields, _user(body), key)


def completion_wish(body: Mapping[str, Any], key: str | None) -> Wish:
    """A completion's question: its prompt is the one turn of a user.

    Raises:
        Refusal: `bad_request` or `unsupported`, naming the field.
    """
    fields = _common(body)
    if fields.get("tools"):
        raise Refusal("unsupported", "tools have no place in a completion; ask /v1/chat/completions")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or "messages" in body:
        raise Refusal("bad_request", "prompt must be one text, and there are no messages here")
    fields["prompt"] = prompt
    fields.setdefault("reasoning", {"mode": "hide"})
    return Wish(fields, _user(body), key)


def wants_usage(body: Mapping[str, Any]) -> bool:
    """`stream_options.include_usage`."""
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in HARMLESS or name in READ:
            continue
        if name in PASSED or name in OWN:
            fields[name] = value
        elif name in NEUTRAL:
            if not is_one_of(value, NEUTRAL[name]):
                raise Refusal("unsupported", f"{name} is not supported by this node; leave it out")
        else:
            raise Refusal("bad_request", f"unknown field {name[:80]!a}; leave it out")
    fields["stream"] = body.get("stream") is True
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    if most is not None:
        fields["max_tokens"] = most
    effort = body.get("reasoning_effort")
    if isinstance(effort, str) and effort in EFFORT_NONE:
        fields.setdefault("reasoning", {"budget": 0})
    return fields


def is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    """Whether a value is among these. To Python 0 equals False, but `logprobs` of 0 asks for something."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _user(body: Mapping[str, Any]) -> str | None:
    user = body.get("user")
    return user if isinstance(user, str) else None


def _messages(messages: list[Any]) -> list[dict[str, Any]]:
    """Turns in the contract's shape: parts of text joined, the system's first turns made one.

    An assistant's turn without content or calls, as of an answer that was thinking or a refusal alone, has an
    empty one: vLLM, llama.cpp's server and Ollama's own shape take it too.
    """
    turns: list[dict[str, Any]] = []
    for index, given in enumerate(messages):
        if not isinstance(given, Mapping):
            raise Refusal("bad_request", f"messages[{index}] must be an object")
        turn = {name: value for name, value in given.items() if value is not None}
        strange = sorted(turn.keys() - MESSAGE - MESSAGE_ECHO)
        if strange:
            raise Refusal(
                "unsupported", f"messages[{index}].{strange[0][:40]} is not supported; leave it out"
            )
        turn = {name: value for name, value in turn.items() if name in MESSAGE}
        if "content" in turn:
            turn["content"] = text_of(turn["content"], f"messages[{index}].content")
        elif turn.get("role") == "assistant" and not turn.get("tool_calls"):
            turn["content"] = ""
        if turn.get("role") == "developer":
            turn["role"] = "system"
        if turns and all(one.get("role") == "system" for one in (turns[-1], turn)):
            turns[-1]["content"] = f"{turns[-1].get('content', '')}\n\n{turn.get('content', '')}"
        else:
            turns.append(turn)
    return turns


def text_of(content: object, where: str) -> object:
    """A text, or OpenAI's list of parts of text as one; other kinds of parts are refused."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise Refusal("unsupported", f"{where}: this node reads text only; leave other parts out")
    return "\n".join(texts)


# replies ------------------------------------------------------------------------------------------------


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
