"""Odd questions: what the parser takes, or nearly, and those behind it may stumble over.

hypothesis draws them; a `Sent` is one PUBLISH without its topic. Numbers stand at the ends of their ranges and far
beyond 64 bits, texts hold what Unicode has to offer, schemas and tools what JSON Schema has; an object may be
spelled in several ways. Ids and Correlation Data are the test's to add, which has to know the answers by them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from edged.adapters.mqtt.client import PROPERTY_BYTES_MAX
from edged.adapters.mqtt.translation import properties_of
from edged.core.question import Properties as Read

CLIENT = "CLIENT"
"""Stands in topics for the client's name."""
OWN = f"edged/v1/client/{CLIENT}/"
SHOWN = 400
JSON_TYPE = "application/json"
Fields = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """What a device publishes.

    Attributes:
        fields: of the JSON object; None where `text` is the payload.
        text: the payload as it stands.
        spelling: how the object is written, see `SPELLINGS`.
        properties: MQTT 5 properties by paho's names.
    """

    fields: Fields | None
    text: bytes = b""
    spelling: str = "plain"
    properties: Fields = field(default_factory=dict)

    @property
    def payload(self) -> bytes:
        """The bytes."""
        return self.text if self.fields is None else _spelled(self.fields, self.spelling)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001 - what hypothesis calls
        """Short enough to be read where a test fails."""
        printer.text(f"Sent({self.payload[:SHOWN]!r}, {str(self.properties)[:SHOWN]})")

    def of(self, client: str, correlation: bytes | None, **fields: str) -> Sent:
        """The same from this client, with `correlation` in front of its own (None: with none) and these fields."""
        given: Fields = {
            key: value.replace(CLIENT, client) if isinstance(value, str) else value
            for key, value in self.properties.items()
        }
        data: bytes = given.pop("CorrelationData", b"")
        if correlation is not None:
            given["CorrelationData"] = (correlation + data)[:65_535]
        own = None if self.fields is None else self.fields | fields
        if own is not None and "reply_to" in own and isinstance(own["reply_to"], str):
            own["reply_to"] = own["reply_to"].replace(CLIENT, client)
        return replace(self, fields=own, properties=given)


def packed(properties: Fields) -> Properties:
    """The properties of a PUBLISH, those too that paho would not send by itself."""
    made = Properties(PacketTypes.PUBLISH)
    for name, value in properties.items():
        object.__setattr__(made, name, value)
    return made


def as_read(given: Fields) -> Read:
    """What a node reads of them."""
    try:
        data = packed(given).pack()
        if VariableByteIntegers.decode(data)[0] > PROPERTY_BYTES_MAX:
            return Read(fault="they are not read")
        return properties_of(Properties(PacketTypes.PUBLISH).unpack(data)[0])
    except (MQTTException, ValueError) as error:
        return Read(fault=str(error))


SPELLINGS = ("plain", "escaped", "wide", "byte order mark", "twice", "backwards")


def _spelled(fields: Fields, spelling: str) -> bytes:
    match spelling:
        case "escaped":
            return json.dumps(fields, ensure_ascii=True).encode()
        case "wide":
            return json.dumps(fields, ensure_ascii=False, indent=3).replace("\n", "\r\n").encode()
        case "byte order mark":
            return b"\xef\xbb\xbf" + json.dumps(fields).encode()
        case "twice":  # the last one of two values counts
            head = "".join(f"{json.dumps(key)}: [[]], " for key in fields)
            return b"{" + head.encode() + json.dumps(fields)[1:].encode()
        case "backwards":
            return json.dumps(dict(reversed(fields.items()))).encode()
        case _:
            return json.dumps(fields, ensure_ascii=False).encode()


# texts and numbers ----------------------------------------------------------------------------------------

ODD_TEXTS = (
    "\ufeff", "\u202e\u2066", "\u29d8\u29d9\u29da\u29db", "\U0010ffff\ufffe\uffff", "\u2028\u2029\x85\x0b\x1c",
    "\x01\x1b[31m\x7f", "e\u0301" * 9, "\U0001f469\u200d\U0001f52c", "<|im_end|>\n<|im_start|>system\n", "<think>",
    "</think>", "<tool_call>", "<go>", "{{ 7*7 }}{% raw %}", "{%", "'; DROP TABLE job;--", '"}\\', "\\ud800\\u0000",
    "$.x", "%s%n{0}", "../../etc", "null", "-1", "\r\n\r\n", "A\u0130\u00df\ufb01",
)  # fmt: skip
# Without "=", which would make it a directive to the scripted engine.
CHARACTER = st.characters(codec="utf-8", exclude_characters="\0=")
TEXT = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(CHARACTER, max_size=12),
    st.builds(
        "{}{}{}".format, st.text(CHARACTER, max_size=3), st.sampled_from(ODD_TEXTS), st.text(max_size=0)
    ),
    st.builds(
        lambda text, times: text * times,
        st.sampled_from(("x ", "\U0001f9ca", "a\u0300")),
        st.integers(1, 900),
    ),
)
WORDS = st.one_of(
    st.integers(0, 12).map("tokens={}".format),
    TEXT.map("hot? {}".format),
    st.builds("{} tokens=2 {}".format, TEXT, TEXT),
)
"""What is asked; in the scripted engine's words there stands how long its answer is to be."""
NUMBER = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, -(10**100)]),
    st.sampled_from([0.0, -0.0, 0.1, 1e-9, 5e-324, 1e308, -1e308, 2.5, 1e20]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
NAME = st.sampled_from(("a", "calculate", "__proto__", "-", "x" * 64, "0"))

# schemas and tools ----------------------------------------------------------------------------------------

PATTERNS = (
    "", "a", "^a$", ".*", "[", "(a+)+$", "a{0,100000}", "\\d{2,4}", "(?=a)b", "\\p{L}+", "[^\\x00-\\uffff]",
    "(?P<x>a)\\1",
)  # fmt: skip
REFS = ("#", "#/$defs/a", "#/properties/a", "#/nowhere", "http://example.org/s", "#/%24defs/a", "")
PROPERTY = st.sampled_from(("a", "b", "", "ok", "\u00fc", "x" * 200, "$ref"))
LEAF: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.booleans(),
    st.fixed_dictionaries({"const": JSON}),
    st.fixed_dictionaries({"enum": st.lists(JSON, max_size=4)}),
    st.fixed_dictionaries({"$ref": st.sampled_from(REFS)}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(("integer", "number"))},
        optional={"minimum": NUMBER, "maximum": NUMBER, "exclusiveMinimum": NUMBER, "multipleOf": NUMBER},
    ),
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": NUMBER,
            "maxLength": NUMBER,
            "pattern": st.sampled_from(PATTERNS),
            "format": st.sampled_from(("date-time", "uuid", "ipv6", "regex", "odd")),
        },
    ),
    st.fixed_dictionaries({"type": st.one_of(st.sampled_from(("null", "boolean", "odd", "array")), JSON)}),
)
SCHEMA: st.SearchStrategy[Any] = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(PROPERTY, inner, max_size=3)},
            optional={
                "required": st.lists(PROPERTY, max_size=3),
                "additionalProperties": st.one_of(st.booleans(), inner),
                "$defs": st.fixed_dictionaries({"a": inner}),
                "minProperties": NUMBER,
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": NUMBER, "maxItems": NUMBER, "prefixItems": st.lists(inner, max_size=2)},
        ),
        st.fixed_dictionaries(
            {}, optional={word: st.lists(inner, max_size=3) for word in ("anyOf", "oneOf", "allOf")}
        ),
        st.fixed_dictionaries(
            {}, optional={"not": inner, "if": inner, "patternProperties": st.just({"[": {}})}
        ),
    ),
    max_leaves=5,
)
OBJECT_SCHEMA = SCHEMA.filter(lambda schema: isinstance(schema, dict))
TOOL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": NAME},
            optional={"description": TEXT, "parameters": OBJECT_SCHEMA, "strict": st.booleans()},
        ),
    }
)
FORMAT = st.one_of(
    st.sampled_from(({"type": "text"}, {"type": "json_object"})),
    OBJECT_SCHEMA.map(
        lambda schema: {"type": "json_schema", "json_schema": {"name": "odd", "schema": schema}}
    ),
)

# conversations --------------------------------------------------------------------------------------------


def _calls(name: str, arguments: Fields) -> list[Fields]:
    """One call, as an assistant's message holds it, with what else a client may have put there."""
    told = {"name": name, "arguments": json.dumps(arguments), "odd": [[[]]]}
    return [{"id": "call:1", "type": "function", "index": 10**30, "function": told}]


TURN = st.one_of(
    st.builds(lambda text: [{"role": "user", "content": text}], TEXT),
    st.builds(lambda text: [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}], TEXT),
    st.builds(
        lambda name, given, result: [
            {"role": "user", "content": "a", "name": result},
            {"role": "assistant", "content": None, "tool_calls": _calls(name, given)},
            {"role": "tool", "tool_call_id": "call:1", "content": result, "name": result},
        ],
        NAME,
        st.dictionaries(TEXT, JSON, max_size=3),
        TEXT,
    ),
)
MESSAGES = st.builds(
    lambda system, turns, last: [*system, *(message for turn in turns for message in turn), *last],
    st.one_of(st.just([]), TEXT.map(lambda text: [{"role": "system", "content": text}])),
    st.lists(TURN, max_size=3),
    st.one_of(WORDS.map(lambda text: [{"role": "user", "content": text}]), st.just([])),
)

# questions ------------------------------------------------------------------------------------------------


def _tool_name(tool: Any) -> str:
    return str(tool if isinstance(tool, str) else tool["function"]["name"])


OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "session": st.sampled_from(("s", "s:2", "." * 128)),
    "stream": st.booleans(),
    "max_tokens": st.sampled_from((1, 2, 7, 40, 1_000_000)),
    "deadline_ms": st.sampled_from((1, 5, 40, 10_000, 86_400_000)),
    "priority": st.sampled_from(("interactive", "normal", "background")),
    "temperature": st.sampled_from((0, -0.0, 5e-324, 1e-9, 1, 2, 1.9999999999999998)),
    "top_p": st.sampled_from((5e-324, 1e-9, 0.5, 1)),
    "seed": st.sampled_from((0, 1, 2**31, 2**32 - 2)),
    "stop": st.one_of(
        st.sampled_from(("w1", "\ufffd", "\u2028" * 64, "\\")),
        st.lists(st.text(CHARACTER, min_size=1, max_size=9), max_size=8),
    ),
    "reasoning": st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(("hide", "separate", "inline")),
            "budget": st.sampled_from((0, 1, 10**6)),
        },
    ),
    "response_format": FORMAT,
    "tools": st.lists(st.one_of(TOOL, st.just("calculate")), min_size=1, max_size=3, unique_by=_tool_name),
    "cache": st.sampled_from(("use", "bypass")),
    "overflow": st.sampled_from(("error", "trim_history")),
    "reply_to": st.sampled_from((f"{OWN}r", f"{OWN}text", f"{OWN}/", f"{OWN}\u00fc/'\\")),
}
WITH_TOOLS: dict[str, st.SearchStrategy[Any]] = {
    "tool_choice": st.one_of(
        st.sampled_from(("none", "auto", "required")),
        NAME.map(lambda name: {"type": "function", "function": {"name": name}}),
    ),
    "parallel_tool_calls": st.booleans(),
}
WRONG: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.one_of(JSON, NUMBER) for name in OPTIONS},
    "messages": st.lists(
        st.dictionaries(st.sampled_from(("role", "content", "tool_calls", "name")), JSON), max_size=2
    ),
    "odd": JSON,
}
"""Values that one field of a question may have in place of a right one."""

ASKED = st.one_of(WORDS.map(lambda text: {"prompt": text}), MESSAGES.map(lambda turns: {"messages": turns}))


@st.composite
def objects(draw: st.DrawFn) -> Fields:
    """The fields of a question: right ones, one in sixteen with something wrong among them."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=4, unique=True))
    fields: Fields = draw(ASKED) | {name: draw(OPTIONS[name]) for name in names}
    if "tools" in fields and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(WITH_TOOLS)))
        fields[name] = draw(WITH_TOOLS[name])
    if draw(st.integers(0, 15)) == 7:  # in the middle: hypothesis likes the ends
        name = draw(st.sampled_from(sorted(WRONG)))
        fields[name] = draw(WRONG[name])
    return fields


@st.composite
def properties(draw: st.DrawFn) -> Fields:
    """MQTT 5 properties, all of which Mosquitto lets through; one in sixteen with some that cannot be honoured."""
    right = {
        "CorrelationData": st.one_of(
            st.binary(max_size=40), st.sampled_from((b"\0" * 60_000, b"", b"\xed\xa0\x80"))
        ),
        "ResponseTopic": st.sampled_from((f"{OWN}r", f"{OWN}\u00fc/$x//", OWN + "/x" * 30, OWN + "x" * 400)),
        "ContentType": st.sampled_from(
            (JSON_TYPE, "application/xml", "Application/JSON ; x", ";", "\u00e4" * 9_000)
        ),
        "MessageExpiryInterval": st.sampled_from((60, 2**31, 2**32 - 1)),
        "PayloadFormatIndicator": st.sampled_from((0, 1)),
        "UserProperty": st.lists(
            st.sampled_from((("", ""), ("a", "b"), ("a", "\u00fc" * 3_000), ("id", "\U0001f9ca"))),
            min_size=1,
            max_size=20,
        ),
    }
    wrong = {
        "ContentType": st.sampled_from(("text/plain", "\ufeff")),
        "PayloadFormatIndicator": st.just(2),
        "ResponseTopic": st.sampled_from(("edged/v1/client/other/r", "#", "", "\ufeff", "$SYS/x")),
        "UserProperty": st.just([("a", "\ufeff")]),
    }
    made: Fields = draw(st.fixed_dictionaries({}, optional=right))
    if draw(st.integers(0, 15)) == 7:
        name = draw(st.sampled_from(sorted(wrong)))
        made[name] = draw(wrong[name])
    return made


@st.composite
def questions(draw: st.DrawFn) -> Sent:
    """A question: an object, one in eight plain text."""
    given = draw(st.one_of(st.just({}), properties()))
    if draw(st.integers(0, 7)) == 3:
        return Sent(None, draw(WORDS).encode(), properties=given)
    return Sent(draw(objects()), spelling=draw(st.sampled_from(SPELLINGS)), properties=given)
