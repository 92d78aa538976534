"""Lists whose items must differ: in any order, wherever they stand, and each answer one of the schema's."""

from __future__ import annotations

import json
import random
from enum import Enum
from itertools import permutations
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLTokenizer
from pydantic import BaseModel, Field

from edged.core.schema import schema_text
from edged.core.tools import offer
from edged.engine.calls import OURS
from edged.engine.constraint import Constraint, Constraints
from edged.engine.unique_grammar import CANNOT, VALUES_MAX
from edged.errors import Refusal

BYTES = Constraints(LLTokenizer("byte"))
"""Every byte is a token of its own number."""
NAMES = ["hall", 'a "b"', "Küche, oben", "😀", "", "\\"]


def unique(values: list[Any], **more: Any) -> dict[str, Any]:
    """A list of an enum's values."""
    return {"type": "array", "items": {"enum": values}, "uniqueItems": True, **more}


def compiled(schema: dict[str, Any]) -> Constraint:
    """The schema of a question."""
    text = schema_text({"type": "json_schema", "json_schema": {"schema": schema}})
    assert text is not None
    return BYTES.compile(text)


def allows(schema: dict[str, Any], value: object) -> bool:
    """Whether an answer may be this value."""
    return follows(compiled(schema), json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def follows(constraint: Constraint, text: str) -> bool:
    """Whether it may be this text."""
    return all(constraint.allows(byte) and constraint.take(byte) for byte in text.encode()) and (
        constraint.complete
    )


def drawn(constraint: Constraint, rng: random.Random, most: int = 3_000) -> Any:
    """A value of which every byte was drawn of those that may follow, or was forced."""
    told = bytearray()
    while not constraint.closed and len(told) < most:
        if forced := constraint.forced():
            told += bytes(forced)
            continue
        mask = int.from_bytes(constraint.mask(), "little")
        may = [byte for byte in range(256) if mask >> byte & 1]
        if not may:  # only the end
            break
        # Texts and numbers of their own would go on and on: what ends them comes first.
        byte = next((each for each in b'"' if each in may and len(may) > 60), None) or rng.choice(may)
        assert constraint.take(byte)
        told.append(byte)
    return json.loads(told)


@pytest.mark.parametrize("order", [*permutations(NAMES[:3])])
def test_any_order(order: tuple[str, ...]) -> None:
    """And fewer of them, but none twice."""
    for count in range(len(order) + 1):
        assert allows(unique(NAMES), list(order[:count]))
    assert not allows(unique(NAMES), [*order, order[0]])
    assert not allows(unique(NAMES), [*order, "garden"])


class Room(Enum):
    """Of a house."""

    HALL = "hall"
    KITCHEN = "Küche"


class Device(BaseModel):
    """As Pydantic writes it, with definitions and what may be null."""

    rooms: set[Room]
    days: set[Literal["mon", "tue"]] | None = None
    hours: set[int] = Field(default_factory=set)


def test_what_pydantic_writes() -> None:
    """A set of an enumeration; one of numbers alone cannot be kept."""
    schema = Device.model_json_schema()
    with pytest.raises(Refusal, match="uniqueItems holds where"):
        compiled(schema)
    del schema["properties"]["hours"]
    assert allows(schema, {"rooms": ["Küche", "hall"], "days": None})
    assert allows(schema, {"rooms": [], "days": ["tue"]})
    assert allows(schema, {"rooms": []})
    assert not allows(schema, {"rooms": ["hall", "hall"]})
    assert not allows(schema, {"days": ["tue"]})


def test_a_home_assistant_task() -> None:
    """The field of a selector with several options, among others."""
    schema = {
        "type": "object",
        "properties": {
            "comment": {"type": "string", "maxLength": 9},
            "lights": unique(["on", "off", "dim"], description="what to do"),
            "level": {"type": "number", "minimum": 0, "maximum": 100},
        },
        "required": ["lights"],
        "additionalProperties": False,
    }
    assert allows(schema, {"comment": "ok", "lights": ["dim", "on"], "level": 20})
    assert allows(schema, {"lights": []})
    assert not allows(schema, {"comment": "ok"})
    assert not allows(schema, {"lights": ["on"], "comment": "ok"})  # the order of the schema, as everywhere
    tools = [{"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}]
    offered = offer(tools, "auto", parallel=True)
    assert offered is not None
    for text, fits in (('{"lights":["off","dim"]}', True), ('{"lights":["off","off"]}', False)):
        beside = BYTES.compile_calls(
            OURS,
            offered.tools,
            "auto",
            literal=lambda text: [text],
            parallel=True,
            schema=schema_text({"type": "json_schema", "json_schema": {"schema": schema}}),
        )
        assert follows(beside, text) == fits


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"on": {"type": "boolean"}, "parts": {"items": {"$ref": "#"}}}},
        {"type": "object", "properties": {"on": {"type": "boolean"}, "off": {"$ref": "#/properties/on"}}},
    ],
)
def test_any_other_schema_beside_tools(schema: dict[str, Any]) -> None:
    """One that asks for no such list may refer to whatever stands in it: a tree, as each device's parts are one."""
    offered = offer([{"type": "function", "function": {"name": "look"}}], "auto", parallel=True)
    assert offered is not None
    text = schema_text({"type": "json_schema", "json_schema": {"schema": schema}})
    beside = BYTES.compile_calls(
        OURS, offered.tools, "auto", literal=lambda text: [text], parallel=True, schema=text
    )
    assert follows(beside, '{"on":true}')


@pytest.mark.parametrize(
    ("items", "all_of_them"),
    [
        ({"type": "boolean"}, [True, False]),
        ({"type": "integer", "minimum": 1, "maximum": 7}, [7, 1, 2, 3, 4, 5, 6]),
        ({"type": "integer", "enum": ["a", 1, 2.0, 2, True, None, 0.5]}, [2, 1]),
        ({"enum": [1, 1.0, True, "1", None, 0.5]}, [True, 1, "1", None, 0.5]),
        ({"anyOf": [{"const": "a", "title": "A"}, {"const": "b"}]}, ["b", "a"]),
        ({"enum": [f"room {at}" for at in range(VALUES_MAX)]}, [f"room {at}" for at in range(VALUES_MAX)]),
    ],
)
def test_what_items_may_be(items: dict[str, Any], all_of_them: list[Any]) -> None:
    """Whatever has few values: each of them once."""
    for least in (0, len(all_of_them)):
        schema = {"type": "array", "items": items, "uniqueItems": True, "minItems": least}
        jsonschema.validate(all_of_them, schema)
        assert allows(schema, all_of_them)
        assert not allows(schema, [*all_of_them, all_of_them[0]])
    with pytest.raises(Refusal, match="different items are more than there may be"):
        compiled({**schema, "minItems": len(all_of_them) + 1})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        {"type": "array", "uniqueItems": True},
        unique([*range(VALUES_MAX + 1)]),
        unique([["a"], ["b"]]),
        {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 10**30}, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "array", "uniqueItems": True}]},
        {"type": "array", "items": {"enum": [1, 2], "minimum": 2}, "uniqueItems": True},
        {"type": "object", "additionalProperties": unique(["a"])},
        {"type": "object", "properties": {"a": unique(["a"])}, "minProperties": 1},
        {"oneOf": [unique(["a"]), {"type": "null"}]},
        {"type": ["array", "string"], "items": {"enum": ["a"]}, "uniqueItems": True, "enum": [["a"], "b"]},
        {"properties": {"a": unique(["a"]), "b": {"items": {"$ref": "#/properties/a/items"}}}},
        {"type": "object", "properties": {"a": unique(["a"])}, "required": [["a"]]},
        {"type": [["array"]], "items": {"enum": ["a"]}, "uniqueItems": True},
        {"type": "array", "items": {"anyOf": [{"enum": ["a"], "type": 5}, {}]}, "uniqueItems": True},
    ],
)
def test_what_cannot_be_kept(schema: dict[str, Any]) -> None:
    """Refused, with what to change, alone and beside tools; nothing is left out in silence."""
    with pytest.raises(Refusal) as refused:
        compiled(schema)
    assert refused.value.message == f"the schema of response_format cannot be used: {CANNOT}"


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (False, "no value fits it"),
        (unique(["a"], type=[]), "no value fits it"),
        (unique(["a"], minItems="one"), "minItems and maxItems must be whole numbers"),
        (unique(["a"], maxItems=1.5), "minItems and maxItems must be whole numbers"),
        (
            {"type": "array", "items": unique(["a"]), "minItems": 3, "maxItems": 2},
            "minItems is above maxItems",
        ),
    ],
)
def test_what_nothing_fits(beside: object, words: str) -> None:
    """The device hears what is wrong with it."""
    with pytest.raises(Refusal, match=f"the schema of response_format cannot be used: {words}$"):
        compiled({"type": "object", "properties": {"a": unique(["a"]), "b": beside}, "required": ["b"]})


def test_what_stands_beside() -> None:
    """Anything, and what it refers to, whatever that is called."""
    constraint = compiled(
        {
            "type": "object",
            "properties": {
                "a": unique(["a"]),
                "b": True,
                "c": {"items": {"$ref": "#/$defs/x~1y%20z"}},
                "d": unique(["a", "b"], type=["object", "array"], properties={"e": unique(["a"])}),
            },
            "$defs": {"x/y z": {"const": 1}},
        }
    )
    assert follows(constraint, '{"a":["a"],"b":[{"x":null}],"c":[1,1],"d":{"e":["a"]}}')


SCALARS = st.sampled_from([*NAMES, 0, 1, -3, 2.5, True, False, None])
LISTS = st.builds(
    lambda values, least, more: unique(values, minItems=min(least, len({*map(repr, values)})), **more),
    st.lists(SCALARS, min_size=1, max_size=7),
    st.integers(0, 3),
    st.sampled_from([{}, {"maxItems": 3}, {"maxItems": 20}, {"title": "x"}]),
)
OTHERS = st.sampled_from(
    [
        {"type": "boolean"},
        {"$ref": "#/$defs/plain"},
        {"$ref": "#/$defs/set"},
        {"const": 5},
        {"type": "string", "maxLength": 2},
    ]
)


def held(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects, lists and alternatives around it."""
    names = st.sampled_from(["a", 'b"', "ü", "uniqueItems", "enum"])
    objects = st.builds(
        lambda named, required: {
            "type": "object",
            "properties": named,
            "required": [name for name in named if name in required],
        },
        st.dictionaries(names, inside, min_size=1, max_size=4),
        st.sets(names),
    )
    lists = st.builds(
        lambda items, least, more: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + more,
        },
        inside,
        st.integers(0, 2),
        st.integers(0, 2),
    )
    return objects | lists | st.builds(lambda one, other: {"anyOf": [one, other]}, inside, inside)


@given(st.recursive(LISTS | OTHERS, held, max_leaves=6), st.randoms(use_true_random=False))
def test_whatever_is_drawn_fits(schema: dict[str, Any], rng: random.Random) -> None:
    """Any choice that the masks leave ends in a value of the schema."""
    whole = {
        "type": "object",
        "properties": {"it": schema, "last": unique(["x", "y"])},
        "required": ["it"],
        "$defs": {"plain": {"enum": [1, "zwei"]}, "set": unique([1, "ö", None])},
    }
    jsonschema.validate(drawn(compiled(whole), rng), whole)


@pytest.mark.parametrize("part", [5, "string", None, [{"type": "string"}]])
def test_a_part_that_is_no_schema(part: object) -> None:
    """It is refused, as without such a list beside it; any value passed for it."""
    for beside in ({}, {"a": unique(["x"])}):
        with pytest.raises(Refusal, match="the schema of response_format cannot be used"):
            compiled({"type": "object", "properties": {**beside, "b": part}})


def test_zod_s_references() -> None:
    """It writes what it used before as the place where that stands."""
    schema = {"type": "object", "properties": {"a": unique(["x", "y"]), "b": {"$ref": "#/properties/a"}}}
    assert allows(schema, {"a": ["y", "x"], "b": ["x"]})
    assert not allows(schema, {"a": ["y"], "b": ["x", "x"]})


def test_what_contains_itself() -> None:
    """A tree of nodes with marks."""
    node = {
        "type": "object",
        "properties": {
            "marks": unique(["a", "b"]),
            "below": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
        "required": ["marks", "below"],
    }
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    inner = {"marks": ["b", "a"], "below": []}
    assert allows(schema, {"marks": ["a"], "below": [inner, inner]})
    assert not allows(schema, {"marks": ["a"], "below": [inner, {"marks": ["b", "b"], "below": []}]})
