"""From the bytes of a PUBLISH to a `Question`, or to a refusal that says what to change.

Pure; runs in the daemon's dispatcher. The only place that reads a question's JSON. Sizes are checked before
anything is parsed, and what cannot be parsed still yields an id where one can be found, so that its device
gets an answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec

from edged.core.question import Message, Priority, Properties, Question, ReasoningMode, Role
from edged.core.schema import schema_text
from edged.core.tools import is_call_id, offer, read_calls
from edged.core.topics import Topics, is_job_id
from edged.errors import Refusal, own_defect


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a reasoning model's thinking is shown and how long it may last.

    Attributes:
        mode: `hide` drops it, `separate` sends `reasoning` messages, `inline` leaves it in the text.
        budget: tokens of thinking; None leaves it to the node, 0 means no thinking at all.
    """

    mode: ReasoningMode | None = None
    budget: int | None = None


class _Payload(msgspec.Struct, frozen=True):
    """The JSON object as it stands on the wire; unknown keys are named in the refusal, see `_read_json`."""

    id: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    session: str | None = None
    stream: bool = True
    max_tokens: int | None = None
    deadline_ms: int | None = None
    priority: Priority = "normal"
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    reasoning: Reasoning | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any] | str] | None = None
    parallel_tool_calls: bool = True
    tool_choice: str | dict[str, Any] | None = None
    cache: Literal["use", "bypass"] | None = None
    overflow: Literal["error", "trim_history"] = "error"
    model: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a question may be at most; the numbers come from settings `[limits]`.

    Attributes:
        models: names of larger models that it may ask for.
    """

    payload_bytes: int = 65_536
    messages: int = 64
    stop_sequences: int = 8
    deadline_max_s: float = 86_400.0
    models: tuple[str, ...] = ()


@dataclass(slots=True)
class Address:
    """Where replies to a question go; filled in as far as the payload could be read."""

    id: str
    reply_to: str
    correlation: bytes | None = None


class Misread(Exception):  # noqa: N818 - carries a refusal to the device it can be told to
    """A payload that is no question, with as much of its address as could be made out.

    Its cause is a defect of ours, where there is one.
    """

    def __init__(self, refusal: Refusal, address: Address) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.address = address


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds the payload: who sent it and what the node adds.

    Attributes:
        client: a legal client name, out of the topic.
        new_id: the id that the node gives if the device gave none.
    """

    client: str
    new_id: str
    properties: Properties = field(default_factory=Properties)


_KEYS = frozenset(f.name for f in msgspec.structs.fields(_Payload))
_WHOLE = ("max_tokens", "deadline_ms", "seed", "budget")
_STOP_CHARS_MAX = 64
_SEED_MAX = 0xFFFF_FFFE  # 0xFFFFFFFF is llama.cpp's LLAMA_DEFAULT_SEED, "choose one at random"
_WORDS = {
    ".priority": get_args(Priority),
    ".mode": get_args(ReasoningMode),
    ".role": get_args(Role),
    ".cache": ("use", "bypass"),
    ".overflow": ("error", "trim_history"),
}
"""What is accepted where msgspec says only what is not."""
_DIGITS_MAX = 18  # more digits than any bounded number has


def parse(payload: bytes, envelope: Envelope, topics: Topics, bounds: Bounds) -> Question:
    """Read a question.

    Args:
        payload: bytes of the PUBLISH, of any content.
        envelope: client, properties, and an id to fall back on.
        topics: this node's topics, for the default reply topic and the check of a given one.
        bounds: sizes.

    Raises:
        Misread: with the refusal, and the address to send it to. Nothing else, whatever the payload.
    """
    properties = envelope.properties
    job_id = _first_id(envelope)
    address = Address(job_id, topics.answer(envelope.client, job_id), properties.correlation)
    try:
        wanted = properties.response_topic
        if wanted is not None and topics.may_reply_to(envelope.client, wanted):
            address.reply_to = wanted
        if len(payload) > bounds.payload_bytes:
            raise Refusal(  # noqa: TRY301 - every refusal leaves by the one door below
                "too_large",
                f"the payload has {len(payload)} bytes; send at most {bounds.payload_bytes}",
                details={"bytes": len(payload), "limit": bounds.payload_bytes},
            )
        text = _decode_text(payload)
        plain = not _is_json(text, properties.content_type)
        fields = _Payload(prompt=text) if plain else _read_json(text, envelope, topics, address)
        if properties.fault is not None:
            raise Refusal(  # noqa: TRY301
                "bad_request",
                f"the message's MQTT properties cannot be read: {properties.fault[:80]}; mend or leave them out",
            )
        if wanted is not None:  # only now, so that the refusal carries the question's own id
            _checked_reply_topic(wanted, envelope.client, topics)
        return _complete(fields, envelope, address, bounds, plain=plain)
    except Refusal as refusal:
        raise Misread(refusal, address) from None
    except Exception as defect:
        # Around one question: it would end the daemon, and again each time that the broker brings it.
        raise Misread(own_defect(), address) from defect


def _first_id(envelope: Envelope) -> str:
    """The id if the payload gives none: the Correlation Data where it can be a name, else the node's own."""
    correlation = envelope.properties.correlation
    if correlation is None:
        return envelope.new_id
    text = correlation.decode("ascii", "replace")
    # Correlation Data is any binary (MQTT 5, 3.3.2.3.6): one that is no legal id still gets a stable one,
    # so that a device's second try is recognised.
    return text if is_job_id(text) else f"x{hashlib.sha256(correlation).hexdigest()[:32]}"


def _checked_reply_topic(wanted: str, client: str, topics: Topics) -> str:
    if not topics.may_reply_to(client, wanted):
        own = f"{topics.prefix}/v1/client/{client}/"
        # The wildcard of one's own subscription, most likely, which lies there: said alone that would puzzle.
        bare = " and hold no + or #" if any(c in wanted for c in "+#") else ""
        raise Refusal("bad_request", f"the reply topic {_quote(wanted)} must lie under {own}{bare}")
    return wanted


def _decode_text(payload: bytes) -> str:
    if not payload.strip():
        raise Refusal("bad_request", "the payload is empty; send a JSON object or the prompt as text")
    try:
        text = payload.decode("utf-8").removeprefix("\ufeff")  # Windows writes a byte order mark
    except UnicodeDecodeError as error:
        raise Refusal(
            "bad_request", f"the payload is not UTF-8: byte {error.start} is 0x{payload[error.start]:02x}"
        ) from None
    if "\0" in text:
        raise Refusal(
            "bad_request",
            f"the payload holds a NUL byte at character {text.index(chr(0))}; send the text by its own length "
            "(strlen), not by its buffer's (sizeof)",
        )
    return text


def _is_json(text: str, content_type: str | None) -> bool:
    """A payload that opens with a brace is meant as JSON, unless its Content Type says text."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind == "application/json":
        return True
    return kind != "text/plain" and text.lstrip().startswith("{")


def _read_json(text: str, envelope: Envelope, topics: Topics, address: Address) -> _Payload:
    """The payload's fields. `address` is brought up to date first, so that a refusal reaches its device."""
    try:
        loose = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refusal("bad_request", f"the payload is no JSON object: {_reason(error)}") from None
    named = loose.get("id")
    if named is not None:
        if not (isinstance(named, str) and is_job_id(named)):
            raise Refusal("bad_request", "id must be a string of 1 to 128 characters A-Z a-z 0-9 _ . : -")
        address.id = named
        wanted = envelope.properties.response_topic
        if wanted is None or not topics.may_reply_to(envelope.client, wanted):
            address.reply_to = topics.answer(envelope.client, named)
    wanted = loose.get("reply_to")
    if isinstance(wanted, str):
        address.reply_to = _checked_reply_topic(wanted, envelope.client, topics)
    unknown = sorted(loose.keys() - _KEYS)
    if unknown:
        keys = ", ".join(_quote(key) for key in unknown[:4])
        raise Refusal("bad_request", f"unknown field {keys}; known are {', '.join(sorted(_KEYS))}")
    for holder in (loose, loose.get("reasoning")):
        if isinstance(holder, dict):
            holder.update({name: _whole(holder[name]) for name in _WHOLE if name in holder})
    try:
        return msgspec.convert(loose, _Payload)
    except msgspec.MsgspecError as error:
        raise Refusal("bad_request", _reason(error)) from None


def _whole(value: object) -> object:
    """A number without a fraction is an integer to JSON Schema, and some programs write all numbers as 120.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _complete(
    fields: _Payload, envelope: Envelope, address: Address, bounds: Bounds, *, plain: bool
) -> Question:
    messages = _messages(fields, bounds)
    _check_numbers(fields, bounds)
    stop = _stop(fields, bounds)
    schema = schema_text(fields.response_format)
    tools = offer(fields.tools, fields.tool_choice, parallel=fields.parallel_tool_calls)
    if fields.session is not None and not is_job_id(fields.session):
        raise Refusal("bad_request", "session must be 1 to 128 characters A-Z a-z 0-9 _ . : -")
    reasoning = fields.reasoning or Reasoning()
    expiry_s = envelope.properties.expiry_s
    expiry_ms = None if expiry_s is None else int(1000 * min(expiry_s, bounds.deadline_max_s))
    deadlines_ms = [ms for ms in (fields.deadline_ms, expiry_ms) if ms is not None]
    return Question(
        client=envelope.client,
        id=address.id,
        made_id=address.id == envelope.new_id,
        plain=plain,
        messages=messages,
        reply_to=address.reply_to,
        correlation=address.correlation,
        session=fields.session,
        stream=fields.stream,
        max_tokens=fields.max_tokens,
        deadline_ms=min(deadlines_ms) if deadlines_ms else None,
        priority=fields.priority,
        temperature=fields.temperature,
        top_p=fields.top_p,
        seed=fields.seed,
        stop=stop,
        schema=schema,
        tools=tools,
        reasoning_mode=reasoning.mode or ("hide" if plain else "separate"),
        reasoning_budget=reasoning.budget,
        cache=fields.cache or "auto",
        overflow=fields.overflow,
        model=_model(fields.model, bounds),
    )


def _model(name: str | None, bounds: Bounds) -> str | None:
    if name is None or name in bounds.models:
        return name
    if not bounds.models:
        raise Refusal(
            "unsupported", "this node has one model and no larger server behind it; leave model out"
        )
    known = ", ".join(bounds.models)
    raise Refusal(
        "bad_request", f"there is no model {_quote(name)} here; leave it out or name one of {known}"
    )


def _messages(fields: _Payload, bounds: Bounds) -> tuple[Message, ...]:
    if (fields.prompt is None) == (fields.messages is None):
        raise Refusal("bad_request", "give exactly one of prompt and messages")
    if fields.prompt is not None:
        if not fields.prompt.strip():
            raise Refusal("bad_request", "the prompt is empty")
        _refuse_nul("prompt", fields.prompt)
        return (Message("user", fields.prompt),)
    messages = fields.messages or []
    if not 0 < len(messages) <= bounds.messages:
        raise Refusal("bad_request", f"messages must hold 1 to {bounds.messages} turns, got {len(messages)}")
    called: set[str] = set()
    read: list[Message] = []
    for index, message in enumerate(messages):
        if message.role == "system" and index:
            raise Refusal("bad_request", f"messages[{index}]: a system message can only be the first")
        if message.content is None and not message.tool_calls:
            raise Refusal("bad_request", f"messages[{index}]: content is missing")
        _refuse_nul(f"messages[{index}]", message.content or "")
        read.append(_tool_turn(f"messages[{index}]", message, None if fields.session is not None else called))
    if messages[-1].role not in {"user", "tool"}:
        raise Refusal("bad_request", "the last message must be the user's, or a tool's")
    return tuple(read)


def _tool_turn(where: str, message: Message, called: set[str] | None) -> Message:
    """The message with its calls as we write them, and no more: what else stood there may be of any size and depth.

    `called` are the ids of the calls so far, None where the node's session knows them too.
    """
    if message.tool_calls:
        if message.role != "assistant":
            raise Refusal("bad_request", f"{where}: only an assistant's message has tool_calls")
        calls = read_calls(message.tool_calls, where)
        if called is not None:
            called |= {call.id for call in calls}
        message = msgspec.structs.replace(message, tool_calls=[call.shape() for call in calls])
    if message.role == "tool":
        name = message.tool_call_id
        if name is None or not is_call_id(name) or (called is not None and name not in called):
            raise Refusal("bad_request", f"{where}: tool_call_id must be the id of a call before it")
    elif message.tool_call_id is not None:
        raise Refusal("bad_request", f"{where}: only a tool's message has tool_call_id")
    return message


def _refuse_nul(where: str, text: str) -> None:
    if "\0" in text:
        raise Refusal("bad_request", f"{where} holds a NUL at character {text.index(chr(0))}; leave it out")


def _check_numbers(fields: _Payload, bounds: Bounds) -> None:
    deadline_max_ms = int(bounds.deadline_max_s * 1000)
    budget = fields.reasoning.budget if fields.reasoning else None
    for name, value, low, high in (
        ("max_tokens", fields.max_tokens, 1, 1_000_000),
        ("deadline_ms", fields.deadline_ms, 1, deadline_max_ms),
        ("temperature", fields.temperature, 0, 2),
        ("seed", fields.seed, 0, _SEED_MAX),
        ("reasoning.budget", budget, 0, 1_000_000),
    ):
        if value is not None and not low <= value <= high:
            raise Refusal("bad_request", f"{name} must be {low} to {high}, got {_number(value)}")
    if fields.top_p is not None and not 0 < fields.top_p <= 1:
        raise Refusal("bad_request", f"top_p must be above 0 and at most 1, got {_number(fields.top_p)}")


def _stop(fields: _Payload, bounds: Bounds) -> tuple[str, ...]:
    stop = [fields.stop] if isinstance(fields.stop, str) else fields.stop or []
    if len(stop) > bounds.stop_sequences:
        raise Refusal("bad_request", f"stop may hold {bounds.stop_sequences} strings, got {len(stop)}")
    if any(not 0 < len(text) <= _STOP_CHARS_MAX for text in stop):
        raise Refusal("bad_request", f"each stop string must have 1 to {_STOP_CHARS_MAX} characters")
    return tuple(stop)


def _number(value: float) -> str:
    text = str(value)
    return text if len(text) <= _DIGITS_MAX else f"{text[:_DIGITS_MAX]}..."


def _quote(text: str) -> str:
    """At most 80 characters of a device's own text, printable, in quotes."""
    return ascii(text[:80])


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)[:200]
    if text.startswith("Expected `str | null`, got `array`") and text.endswith(".content`"):
        where = text.rpartition("$.")[2].rstrip("`")
        return f"{where} must be one text, no list of parts: this node reads no images"
    for end, words in _WORDS.items():
        if text.startswith("Invalid enum value") and text.endswith(f"{end}`"):
            return f"{text}; use one of {', '.join(words)}"
    return text
