"""Objects of a schema are closed where that keeps every value valid."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.schema_closed import BRANCHES_MAX, closed

INT = {"type": "integer"}


def obj(**more: Any) -> dict[str, Any]:
    """An object with one integer."""
    return {"type": "object", "properties": {"a": INT}, **more}


def only(name: str, text: str) -> dict[str, Any]:
    """An object with one text."""
    return {"type": "object", "properties": {name: {"const": text}}, "required": [name]}


def test_an_object_that_says_nothing_of_further_properties_is_closed() -> None:
    """At every depth: below properties, items, definitions and alternatives."""
    schema = {
        **obj(required=["a"]),
        "properties": {"a": {"type": "array", "items": obj()}, "b": {"anyOf": [obj(), {"type": "null"}]}},
        "$defs": {"x": obj(), "y": obj(additionalProperties={"properties": {"c": INT}})},
    }
    shut = closed(schema)
    assert shut["additionalProperties"] is False
    assert shut["properties"]["a"]["items"]["additionalProperties"] is False
    assert shut["properties"]["b"]["anyOf"][0]["additionalProperties"] is False
    assert shut["$defs"]["x"]["additionalProperties"] is False
    assert shut["$defs"]["y"]["additionalProperties"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        obj(additionalProperties=True),
        obj(additionalProperties=INT),
        obj(required=["b"]),
        obj(allOf=[obj()]),
        obj(oneOf=[obj(), obj()]),
        obj(oneOf=[{"required": ["a"]}, {"required": ["b"]}]),
        {"oneOf": [{"type": "number"}, INT]},
        {"oneOf": [obj(type=["object", "null"]), {"type": ["null", "string"]}]},
        {"oneOf": [{"type": "null"}, obj(), obj()]},
        {"oneOf": [only("a", "x"), only("b", "x")]},
        {"anyOf": [obj()], "oneOf": [obj()]},
        obj(**{"$ref": "#/$defs/x", "$defs": {"x": obj()}}),
        obj(anyOf=[{"$ref": "#/$defs/x"}], **{"$defs": {"x": obj()}}),
        obj(minProperties=2),
        obj(patternProperties={"^b": INT}),
        {"type": "object"},
        {"const": {"properties": {}}},
        {"type": "object", "properties": {"not": INT}},
        {"properties": 5},
        {"oneOf": 5},
    ],
)
def test_what_may_need_other_properties_is_left_alone(schema: dict[str, Any]) -> None:
    """It said so, or a keyword beside it makes closing unsafe, or it is no schema."""
    assert closed(schema) == schema


def told(text: str, *names: str) -> dict[str, Any]:
    """An object that a text in it tells from others."""
    named = {"kind": {"const": text, "type": "string"}} | dict.fromkeys(names, INT)
    return {"type": "object", "properties": named, "required": ["kind"]}


ACTION = {
    "oneOf": [{"$ref": "#/$defs/heat"}, told("vent", "b"), {"type": "null"}],
    "$defs": {"heat": told("heat", "a")},
}
"""As pydantic writes a discriminated union."""
KINDS = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "kind": {"enum": ["heat", "vent"]}},
    "required": ["name", "kind"],
    "anyOf": [told("heat", "a"), told("vent", "b")],
}
"""What holds for all kinds stands beside what each has of its own."""


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (ACTION, {"kind": "heat", "a": 1}),
        (ACTION, {"kind": "vent", "b": 1}),
        (ACTION, None),
        (KINDS, {"name": "n", "kind": "heat", "a": 1}),
        (obj(anyOf=[obj(required=["a"]), {"required": ["b"]}]), {"a": 1}),
    ],
)
def test_named_properties_stay(schema: dict[str, Any], value: object) -> None:
    """Nothing is lost of what the schema speaks of."""
    jsonschema.validate(value, closed(schema))


def test_alternatives_that_exclude_each_other_are_closed() -> None:
    """By a text in them or by their types: no value is one of two, open or closed."""
    shut = closed(ACTION)
    assert not jsonschema.Draft202012Validator(shut).is_valid({"kind": "heat", "a": 1, "x": 1})
    assert not jsonschema.Draft202012Validator(shut).is_valid({"kind": "vent", "b": 1, "x": 1})


def test_very_many_alternatives_are_left_alone() -> None:
    """To compare each with each other would take long."""
    many = [told(f"kind{at}") for at in range(BRANCHES_MAX + 1)]
    assert closed({"oneOf": many}) == {"oneOf": many}
    assert closed({"oneOf": many[1:]}) != {"oneOf": many[1:]}


@given(
    st.recursive(
        st.sampled_from([INT, {"type": "string"}, {"enum": [{"properties": {"a": 1}}]}]),
        lambda inner: st.one_of(
            st.builds(
                lambda named, keep: {"type": "object", "properties": named, "required": sorted(named)[:keep]},
                st.dictionaries(st.sampled_from("abc"), inner),
                st.integers(0, 3),
            ),
            st.builds(lambda items: {"type": "array", "items": items}, inner),
            st.builds(
                lambda key, one, two: {key: [one, two]}, st.sampled_from(["anyOf", "oneOf"]), inner, inner
            ),
            st.builds(
                lambda named, one, two: {"properties": named, "oneOf": [told("d", *one), told("e", *two)]},
                st.dictionaries(st.sampled_from("abc"), inner),
                st.sets(st.sampled_from("abc")),
                st.sets(st.sampled_from("abc")),
            ),
        ),
        max_leaves=8,
    ),
    st.recursive(
        st.one_of(
            st.integers(), st.text(max_size=2), st.sampled_from([{"kind": "d", "a": 1}, {"kind": "e"}])
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("abcd"), inner)),
        max_leaves=8,
    ),
)
def test_a_value_of_the_closed_schema_is_one_of_the_given(schema: dict[str, Any], value: object) -> None:
    """Closing takes values away and adds none."""
    if jsonschema.Draft202012Validator(closed(schema)).is_valid(value):
        jsonschema.validate(value, schema)
