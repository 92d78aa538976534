"""Answers from elsewhere are held to their schemas, and what would take long to check is not taken on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapters.judge import SUBSCHEMAS_MAX, Judge
from edged.core.schema import SCHEMA_BYTES_MAX, unrolled

SCHEMAS = sorted((Path(__file__).parents[1] / "schemas").glob("*.json"))
VERDICT: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": "string", "pattern": "^[a-z]+$"}, "celsius": {"$ref": "#/$defs/celsius"}},
    "required": ["id", "celsius"],
    "additionalProperties": False,
    "$defs": {"celsius": {"type": "integer", "minimum": 0, "maximum": 150}},
}


def doubling(levels: int) -> dict[str, Any]:
    """A schema of a few hundred bytes whose check takes 2 ** levels steps."""
    ends: dict[str, Any] = {f"d{levels}": {"type": "integer"}}
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": steps | ends, "$ref": "#/$defs/d0"}


def hidden(levels: int) -> dict[str, Any]:
    """The same below a property whose name is a keyword's."""
    inner = doubling(levels)
    return {"properties": {"enum": {"$ref": inner["$ref"]}}, "$defs": inner["$defs"]}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"id": "a", "celsius": 85}', None),
        ('{"celsius": 85, "id": "a"}', None),
        ('{"id": "a", "celsius": 850}', "breaks"),
        ('{"id": "A", "celsius": 85}', "breaks"),
        ('{"id": "a"}', "breaks"),
        ('{"id": "a", "celsius": 85, "more": 1}', "breaks"),
        ('{"id": "a", "celsius": 85', "not the JSON"),
        ("It is hot.", "not the JSON"),
        ('"' + "a" * 300_000 + '"', "too many"),
    ],
)
def test_answers(text: str, fault: str | None) -> None:
    """In whatever order the properties stand; a fault is told in words."""
    told = Judge().fault(json.dumps(VERDICT), text)
    assert told is None if fault is None else fault in (told or "")


@pytest.mark.parametrize(
    ("schema", "takes"),
    [
        (VERDICT, True),
        (doubling(3), True),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}, True),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/anyOf/0"}]}, True),
        (doubling(40), False),
        (hidden(40), False),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, False),
        ({"$ref": "#"}, False),
        ({"$ref": "https://192.0.2.1/x"}, False),
        ({"$ref": "file:///etc/passwd"}, False),
        ({"$ref": "#/%24defs/a", "$defs": {"a": {"type": "null"}}}, False),
        ({"$ref": "#/$defs/none"}, False),
        ({"type": "intege"}, False),
        ({"pattern": "(?=a)b"}, False),
        ({"pattern": "("}, False),
    ],
)
def test_schemas(schema: dict[str, Any], *, takes: bool) -> None:
    """What refers to itself or elsewhere, doubles its work, or cannot be compiled is left alone."""
    assert Judge().takes(json.dumps(schema)) is takes


def test_patterns_take_linear_time() -> None:
    """One that takes other engines for ever is matched at once."""
    assert Judge().fault('{"pattern": "(a+)+$"}', json.dumps("a" * 50_000 + "b")) is not None


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.stem)
def test_the_schemas_of_devices(file: Path) -> None:
    """All that these tests know can be sent on."""
    assert Judge().takes(json.dumps(json.loads(file.read_text())["schema"]))


SMALL = st.recursive(
    st.sampled_from([{"type": "integer"}, {"type": "string", "maxLength": 2}, {"enum": [1, "a", None]}]),
    lambda inner: st.one_of(
        st.builds(lambda a, b: {"type": "object", "properties": {"a": a, "b": b}}, inner, inner),
        st.builds(lambda a: {"type": "array", "items": a, "maxItems": 2}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"$defs": {"x": a}, "allOf": [{"not": a}, {"type": "object"}]}, inner),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.none() | st.integers(-2, 2) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(SMALL, VALUES)
def test_as_another_validator_says(schema: dict[str, Any], value: Any) -> None:
    """jsonschema, written apart from this one, says the same of any value."""
    fault = Judge().fault(json.dumps(schema), json.dumps(value))
    assert (fault is None) is jsonschema.Draft202012Validator(schema).is_valid(value)


@given(st.integers(0, 12))
def test_every_reference_is_counted(levels: int) -> None:
    """As often as it is followed: a doubling chain has 2 ** levels ends."""
    schemas = 3 * 2**levels - 1  # on each level the holder, and each reference in it
    assert unrolled(doubling(levels), 4 * schemas)
    assert not unrolled(doubling(levels), schemas // 2)


@pytest.mark.parametrize("values", [["a"], [1], [[]]])
@pytest.mark.parametrize(("references", "takes"), [(20, True), (450, False)])
def test_what_references_lead_to_is_counted(values: list[Any], references: int, *, takes: bool) -> None:
    """A list of hundreds may be met some times, whatever is in it; not again and again: each look takes time."""
    schema = {"allOf": [{"$ref": "#/$defs/a"}] * references, "$defs": {"a": {"required": values * 500}}}
    assert unrolled(schema, SUBSCHEMAS_MAX) is takes


def test_a_schema_without_references_is_never_too_long() -> None:
    """All that stands in one of the largest size: names are the least that tells something."""
    names = [f"{number:x}" for number in range(2600)]
    schema = {"type": "object", "required": names}
    assert SCHEMA_BYTES_MAX * 0.9 < len(json.dumps(schema, separators=(",", ":"))) < SCHEMA_BYTES_MAX
    assert unrolled(schema, SUBSCHEMAS_MAX)
