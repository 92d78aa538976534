"""Requests to OpenAI's chat completions and completions as the contract's questions. Pure.

Every field of a request is passed on, passed over (`HARMLESS`), accepted at the one value that changes nothing
(`NEUTRAL`), or refused by name: none that would change the answer is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.core.question import TOP_K
from edged.errors import Refusal

from .asking import Wish

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
    "top_k": (0, -1, TOP_K),
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
    fields["stream"] = streams(body, unasked=False)
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    if most is not None:
        fields["max_tokens"] = most
    effort = body.get("reasoning_effort")
    if isinstance(effort, str) and effort in EFFORT_NONE:
        fields.setdefault("reasoning", {"budget": 0})
    return fields


def streams(body: Mapping[str, Any], *, unasked: bool) -> bool:
    """Whether the answer is to come in pieces; `unasked`: where the request says nothing of it."""
    stream = body.get("stream")
    if stream is None:
        return unasked
    if not isinstance(stream, bool):
        raise Refusal("bad_request", "stream must be true or false")
    return stream


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
        if turns and _is_instruction(turns[-1]) and _is_instruction(turn):
            turns[-1]["content"] = f"{turns[-1].get('content', '')}\n\n{turn.get('content', '')}"
        else:
            turns.append(turn)
    return turns


def _is_instruction(turn: Mapping[str, Any]) -> bool:
    """Whether it is a system's turn; one whose content is no text is left for the node to refuse."""
    return turn.get("role") == "system" and isinstance(turn.get("content", ""), str)


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
