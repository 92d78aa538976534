"""A question as the node understands it: complete, bounded, every default filled in. Pure values.

How one is read from a device's bytes is `edged.core.parsing`.

Questions stand in the journal until they are answered, messages for as long as their session, and another version
of edged may read them there. So what stands at its default is not written (`omit_defaults`): a field that a release
adds keeps none from the release before it on the way back, but those that name it. What is named and not known is
refused there as at the door, for the answer would be one to another question.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from edged.core.tools import Offer

Role = Literal["system", "user", "assistant", "tool"]
Priority = Literal["interactive", "normal", "background"]
ReasoningMode = Literal["hide", "separate", "inline"]
TOP_K = 40
"""Candidates for a sampled token, whatever is asked: llama.cpp's own default, keeps a large vocabulary cheap."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn of a conversation, in OpenAI's shape."""

    role: Role
    content: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Properties(msgspec.Struct, frozen=True):
    """The MQTT 5 properties of a PUBLISH that the contract honours; all absent for an MQTT 3.1.1 device.

    `fault` says why they could not be read; then none of them is known.
    """

    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    content_type: str | None = None
    fault: str | None = None


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question as the node understands it: complete, bounded, every default filled in.

    Attributes:
        client: who asks, from the topic.
        id: the question's name, unique for its client.
        made_id: True when the node made the id itself: such a question cannot be deduplicated.
        plain: True when the payload was plain text: the answer also goes out as plain text.
        deadline_ms: from arrival, or None for the node's default.
        temperature, top_p: None leaves them to the node's sampling defaults; 0 <= temperature <= 2,
            0 < top_p <= 1.
        reply_to: topic of every reply.
        cache: `use` any earlier answer, `bypass` all, `auto` where sampling leaves nothing to chance.
        model: None for the board's own; else a name of the larger server's, which answers it.
        schema: JSON schema, as text, that the answer must follow.
        tools: what the model may call; None for nothing.
    """

    client: str
    id: str
    made_id: bool
    plain: bool
    messages: tuple[Message, ...]
    reply_to: str
    correlation: bytes | None = None
    session: str | None = None
    stream: bool = True
    max_tokens: int | None = None
    deadline_ms: int | None = None
    priority: Priority = "normal"
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    tools: Offer | None = None
    reasoning_mode: ReasoningMode = "separate"
    reasoning_budget: int | None = None
    cache: Literal["auto", "use", "bypass"] = "auto"
    overflow: Literal["error", "trim_history"] = "error"
    model: str | None = None

    def digest(self) -> bytes:
        """SHA-256 over what was asked: a second copy of the same question has the same digest.

        Correlation and reply topic may differ between two tries of one device and are left out, and so is the
        deadline: a broker counts the Message Expiry down before it delivers again (MQTT 5, 3.3.2.3.3).

        It stands in the journal, where the next version of edged meets the copies of questions that this one took
        on. So what stands at its default is left out: a field that is added, or another default, makes no question
        another one that does not name it.
        """
        asked = _told(self)
        for passing in ("correlation", "reply_to", "made_id", "deadline_ms"):
            asked.pop(passing, None)
        return hashlib.sha256(msgspec.msgpack.encode(asked)).digest()


def _told(struct: msgspec.Struct) -> dict[str, Any]:
    """Fields of a struct that do not stand at their defaults, by name; structs in it likewise."""
    names = struct.__struct_fields__
    defaults = struct.__struct_defaults__
    usual = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    said = {name: getattr(struct, name) for name in sorted(names)}
    return {name: _plain(value) for name, value in said.items() if name not in usual or value != usual[name]}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a field of a question
    if isinstance(value, msgspec.Struct):
        return _told(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
