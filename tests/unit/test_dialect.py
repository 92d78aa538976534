"""A schema as llguidance is given it: not refused for what asks for nothing, and kept where it would not be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLTokenizer

from edged.core.dialect import adapted
from edged.core.schema import schema_text
from edged.core.tools import TOOLS_MAX, Mode, offer
from edged.engine.calls import OURS
from edged.engine.constraint import Constraint, Constraints
from edged.errors import OutgrownError, Refusal

BYTES = Constraints(LLTokenizer("byte"))
"""Every byte is a token of its own number."""
TEXT = {"type": "string"}
DEFINED = {"$defs": {"a": {"$ref": "#/$defs/a"}}}
ITSELF = {"$ref": "#/$defs/a", **DEFINED}
"""Says no more than that it is itself."""


def compiled(schema: dict[str, Any]) -> Constraint:
    """The schema of a question."""
    text = schema_text({"type": "json_schema", "json_schema": {"schema": schema}})
    assert text is not None
    return BYTES.compile(text)


def calls(tools: list[Any], mode: Mode, schema: dict[str, Any] | None = None) -> Constraint:
    """What an answer is held to that may call tools."""
    offered = offer(tools, mode, parallel=True)
    assert offered is not None
    text = None if schema is None else json.dumps(schema)
    return BYTES.compile_calls(
        OURS, offered.tools, mode, literal=lambda text: [text], parallel=True, schema=text
    )


def allows(schema: dict[str, Any], value: object) -> bool:
    """Whether an answer may be this value; a text is taken for JSON."""
    constraint = compiled(schema)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return all(constraint.allows(byte) and constraint.take(byte) for byte in text.encode()) and (
        constraint.complete
    )


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "format": "entity_id"}, "light.hall"),
        (
            {"type": "object", "properties": {"format": {"type": "string", "format": "int64"}}},
            {"format": "x"},
        ),
        ({"type": "array", "items": TEXT, "uniqueItems": False}, ["a", "a"]),
        ({"type": "object", "propertyNames": TEXT, "additionalProperties": TEXT}, {"a": "b"}),
        ({"$ref": "#/$defs/Gerät", "$defs": {"Gerät": {"const": 1}}}, 1),
        ({"$ref": "#/$defs/List[int]", "$defs": {"List[int]": {"const": 1}}}, 1),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": {"const": 1}}}, 1),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, 1),
        (
            {"const": {"format": "entity_id", "uniqueItems": False}},
            {"format": "entity_id", "uniqueItems": False},
        ),
    ],
)
def test_what_asks_for_nothing_refuses_nothing(schema: dict[str, Any], value: object) -> None:
    """Formats of nobody's standard, keywords at the value that changes nothing, names outside ASCII."""
    assert allows(schema, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "format": "uri-reference"}, "uri-reference"),
        ({"type": "array", "items": TEXT, "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "string", "pattern": "^(?=.*x).*$"}, r"\(\?=\.\*x\).* look-ahead"),
        ({"type": "string", "pattern": "((((" + "a" * 400}, r"\(\(\(\(a.* unclosed group"),
        ({"type": "string", "pattern": "[^,]$["}, r" \[\^,\]\$\[ .* unclosed character class"),
        ({"properties": 5}, "properties must be an object$"),
        (ITSELF, "the schema requires itself, so no answer could end"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "used: two branches of a oneOf .* use anyOf$"),
        ({"type": "number", "multipleOf": 0.07}, "multipleOf .* whole numbers of a smaller unit$"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema: dict[str, Any], named: str) -> None:
    """The refusal, one line, says what to change: of a pattern which it is, and what is wrong with it."""
    with pytest.raises(Refusal, match=named) as refused:
        compiled(schema)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"not": TEXT}, r'Unimplemented keys: \["not"\]'),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "two branches of a oneOf .* use anyOf"),
        ({**TEXT, "pattern": "(?=a)b"}, "regex parse error: .* look-behind, is not supported"),
    ],
)
def test_which_schema_cannot_be_kept(bad: dict[str, Any], reason: str) -> None:
    """Of many tools the one is named, and nothing is told of our own grammar around it."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"properties": {"a": one}}}}
        for name, one in {"first": TEXT, "second": bad}.items()
    ]
    for mode in ("auto", "required"):
        with pytest.raises(Refusal, match=f"the schema of tool second cannot be used: {reason}$"):
            calls(tools, mode)
    with pytest.raises(Refusal, match=f"the schema of response_format cannot be used: {reason}$"):
        calls(tools[:1], "auto", bad)


def test_an_answer_that_cannot_go_on() -> None:
    """The reason is in words too, without the compiler's state."""
    constraint = compiled({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, **DEFINED})
    for byte in b'{"a":':
        assert constraint.take(byte)
    with pytest.raises(OutgrownError, match=r"^no value fits it$"):
        constraint.mask()


def test_an_answer_that_goes_on_and_on() -> None:
    """That is seen where tokens are forced and where one is taken: what is broken off there is no whole answer."""
    schema = {"type": "object", "required": ["a"], "additionalProperties": {"$ref": "#"}}
    too_many = "parser error: Too many items"
    with pytest.raises(OutgrownError, match=too_many):
        compiled(schema).forced()
    with pytest.raises(OutgrownError, match=too_many):  # noqa: PT012 - with which byte is its own affair
        constraint = compiled(schema)
        for byte in b'{"a":' * 10_000:
            assert constraint.take(byte)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"exclusiveMinimum": 0, "maximum": 0.5}, "0"),
        ({"exclusiveMinimum": 1, "minimum": -9, "exclusiveMaximum": 1.1}, "1"),
        ({"exclusiveMaximum": 0, "minimum": -0.0001}, "-0"),
        ({"exclusiveMaximum": -1, "minimum": -1.5, "maximum": 8}, "-1"),
    ],
)
def test_a_bound_that_is_excluded(schema: dict[str, Any], text: str) -> None:
    """Zero is not above zero."""
    assert not allows({"type": "number", **schema}, text)


@pytest.mark.parametrize(
    "pattern",
    ['^[^"]*$', r'^[^"\\]*$', r"^[^\\]+x?$", '^[^-"]*$', '^[^]"]*$', '^[^,"\n]*$', r'^[\[^"]*$', r'^\\[^"]$'],
)
def test_characters_that_a_pattern_excludes(pattern: str) -> None:
    """Quotation marks and backslashes too, which stand behind a backslash in JSON; of the rest none is lost."""
    schema = {"type": "string", "pattern": pattern}
    for text in ("a", 'a"', "a\\", "-", "]", "[^", "\\é", '\\"', "[\t^", "\n,", '[^"'):
        assert allows(schema, json.dumps(text, ensure_ascii=False)) == bool(re.search(pattern, text)), text


NAMES: list[dict[str, Any]] = [
    {"properties": {"a": {"type": "integer"}, "b\n": {"type": "integer"}}, "additionalProperties": TEXT},
    {"patternProperties": {"^[ab]": {"type": "integer"}}, "additionalProperties": TEXT},
    {
        "properties": {"a": {"type": "integer"}, "b\n": {"type": "null"}},
        "patternProperties": {'^[^a"]': {"type": "integer"}},
        "additionalProperties": TEXT,
    },
]


@pytest.mark.parametrize("schema", NAMES)
@pytest.mark.parametrize(
    "name", ["a", r"\u0061", r"b\n", r"b\u000a", r"\u0062\u000A", "c", r"\"", r"\\", r"\/", "é"]
)
def test_names_are_what_they_mean(schema: dict[str, Any], name: str) -> None:
    """However they are written: by an escape a name got round what is asked of it."""
    for value in (1, "x", None):
        text = f'{{"{name}":{json.dumps(value)}}}'
        valid = jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
        written = name == json.dumps(json.loads(f'"{name}"'), ensure_ascii=False)[1:-1]
        assert allows({"type": "object", **schema}, text) == (valid and written)


@pytest.mark.parametrize("value", ["a\x01", {"\x1f": "\x02"}])
def test_control_characters_that_are_asked_for(value: Any) -> None:
    """They are written with an escape; where nothing asks for them there are none."""
    text = json.dumps(value, separators=(",", ":"))
    assert allows({"const": value}, text)
    assert not allows({}, text)
    assert allows({"type": "string", "pattern": r"^\x01$"}, json.dumps("\x01"))


@pytest.mark.parametrize("pattern", [r"^\P{P}*$", r"^\PP*$", r"^[a\P{P}]*$", r"^[^\P{P}]*$", r"^\\P$"])
def test_properties_that_a_pattern_excludes(pattern: str) -> None:
    """Quotation marks and backslashes are punctuation."""
    schema = {"type": "string", "pattern": pattern}
    wanted = {r"^[^\P{P}]*$": ('"', ".", "\\", '."'), r"^\\P$": ("\\P",)}.get(pattern, ("a", "é\t", "+"))
    for text in ("a", 'a"', "a\\", ".", '"', "\\", "é\t", '."', "\\P", "+"):
        assert allows(schema, json.dumps(text, ensure_ascii=False)) == (text in wanted), text


LARGE = """
from llguidance import LLTokenizer
from edged.engine.constraint import Constraints
from edged.errors import Refusal
compiler = Constraints(LLTokenizer("byte"))
for high in ('"maximum": -1e19', '"exclusiveMaximum": -9223372036854775800'):
    for low in ('"minimum": -1e19', '"exclusiveMinimum": -9223372036854775808', '"minimum": -1' + "0" * 400):
        try:
            compiler.compile('{"type": "integer", ' + high + ", " + low + "}")
        except Refusal as refusal:
            print(refusal)
"""


def test_bounds_beyond_64_bits() -> None:
    """Two of them below that ended the engine; a number between them is none of the schema's."""
    subprocess.run([sys.executable, "-c", LARGE], check=True, timeout=60)
    at_most, whole = {"type": "integer", "maximum": 10**19}, {"type": "integer"}
    for low in (-(2**63), -(10**30), -1e20):
        assert allows({"minimum": low, **at_most}, -(10**18))
        assert allows({"minimum": low, "type": "number"}, "-0.5")
    assert not allows({**at_most, "minimum": 2**53 + 1}, 2**53)  # as a float it is this
    assert allows({**at_most, "minimum": 2**53 + 1}, 2**53 + 2)
    for schema in ({"minimum": 10**30, "maximum": 10**40}, {"minimum": 2**63}, {"maximum": -(2**63)}):
        with pytest.raises(Refusal):
            compiled({**whole, **schema})


LITERAL = """
from llguidance import LLTokenizer
from edged.engine.constraint import Constraints
from edged.errors import Refusal
compiler = Constraints(LLTokenizer("byte"))
for number in range(-2 ** 63, -2 ** 63 + 2048, 128):
    try:
        compiler.compile('{"enum": [1, {"a": [%d]}]}' % number)
    except Refusal as refusal:
        print(refusal)
"""


def test_whole_numbers_that_are_no_floats() -> None:
    """They would come out as others; the least of 64 bits ended the engine."""
    subprocess.run([sys.executable, "-c", LITERAL], check=True, timeout=60)
    serial = 1_234_567_890_123_456_789
    for schema in ({"const": serial}, {"items": {"enum": ["a", {"b": [serial]}]}}):
        reason = f"cannot be used: the number {serial} cannot be kept exactly; ask for it as text$"
        with pytest.raises(Refusal, match=f"the schema of response_format {reason}"):
            compiled(schema)
        tool = {"type": "function", "function": {"name": "t", "parameters": {"properties": {"a": schema}}}}
        with pytest.raises(Refusal, match=f"the schema of tool t {reason}"):
            calls([tool], "auto")
    for kept in (2**53, -(10**18), True, 0.25):
        assert allows({"enum": [kept]}, kept)
    assert allows({"type": "integer", "default": serial, "examples": [serial]}, 1)


BOUNDS = st.integers(-3, 3) | st.sampled_from([0.5, -0.5, 0.001, 1.1, -1.5, 2.25, 10**400, 1e-9, 1e20])


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["number", "integer"])},
        optional=dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), BOUNDS),
    ),
    st.sampled_from([-2, -1, 0, 1, 2, 0.5, 0.25, -0.25, 1.05, 1e-5, 3.5]),
)
def test_numbers_keep_their_bounds(schema: dict[str, Any], value: float) -> None:
    """Whatever the bounds: no number comes in that was kept out, and none is kept out but the nearest."""
    before, after = jsonschema.Draft202012Validator(schema), jsonschema.Draft202012Validator(adapted(schema))
    assert before.is_valid(value) == after.is_valid(value)


def test_the_tools_of_a_home() -> None:
    """Home Assistant's: dozens, and a script's fields among them, of which any may have a format of its own."""
    fields = {
        "area": {**TEXT, "description": "Ä"},
        "who": {"type": "array", "items": {**TEXT, "format": "entity_id"}},
        "modes": {"type": "array", "items": {**TEXT, "enum": ["a", "b"]}, "uniqueItems": True},
        "text": {**TEXT, "format": "jinja2"},
        "colour": {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 3,
            "maxItems": 3,
            "format": "RGB",
        },
        "country": {**TEXT, "format": "ISO 3166-1 alpha-2"},
    }
    about = {"type": "object", "properties": fields, "required": []}
    tools = [
        {"type": "function", "function": {"name": f"script_{at}", "parameters": about}}
        for at in range(TOOLS_MAX // 2)
    ]
    for mode in ("auto", "required"):
        calls(tools, mode)
    offered = offer(tools, "auto", parallel=True)
    assert offered is not None
    assert '"uniqueItems":true' in offered.tools[0].parameters  # the model is told all of it
