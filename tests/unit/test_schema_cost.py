"""Schemas that cost more to compile than a board has, and those that do not, by what is counted of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLTokenizer

from edged.core.schema import checked
from edged.core.schema_cost import PATTERNS_MAX, SPELLED_MAX, Cost, cost
from edged.core.tools import Tool, offer
from edged.engine.calls import OURS
from edged.engine.constraint import Constraints
from edged.errors import Refusal

PATTERN = {"pattern": "(a|b)*a(a|b){20}"}
YEAR = {"type": "integer", "multipleOf": 31_536_000}


def patterns(count: int) -> list[dict[str, Any]]:
    """Such that hold for one text together."""
    return [{"pattern": f"(a|b)*a(a|b){{{10 + number}}}"} for number in range(count)]


def chain(length: int) -> dict[str, Any]:
    """References that double what they lead to at each step."""
    steps = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(length)}
    return {"$defs": {**steps, f"d{length}": PATTERN}, "$ref": "#/$defs/d0"}


BOMBS: list[dict[str, Any]] = [
    {"type": "string", "allOf": patterns(16)},
    {"properties": {"a": {"allOf": [{"allOf": patterns(8)}, *patterns(8)]}}},
    {"allOf": [{"properties": {"a": one}} for one in patterns(16)]},
    {"items": {"anyOf": [{"type": "integer"}, {"allOf": patterns(16)}]}},
    {"pattern": "a", "allOf": [{"anyOf": [one, {"type": "null"}]} for one in patterns(16)]},
    chain(25),
    YEAR,
    {"properties": {"a": {"items": YEAR}}},
    {"properties": {f"a{at}": {"multipleOf": 90_001 + at} for at in range(300)}},
    {"properties": {"const": YEAR}},
    {"anyOf": [{"multipleOf": 50_001}, {"multipleOf": 50_002}]},
    {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]},
    {"items": {"multipleOf": 97}, "allOf": [{"items": {"multipleOf": 9973}}]},
    {"multipleOf": 9001, "anyOf": [{"minimum": at} for at in range(300)]},
    {"$defs": {"a": YEAR}, "$ref": "#/%24defs/a"},
    {"$defs": {"a": {"$anchor": "x", **YEAR}}, "$ref": "#x"},
    {"multipleOf": 31_536_000.0},
    {"multipleOf": 1e30},
    {"multipleOf": 10**400},
    {"multipleOf": 0.1234567},
]


@pytest.mark.parametrize("schema", BOMBS)
def test_bombs(schema: dict[str, Any]) -> None:
    """Each would take seconds to hours, and up to all memory; its device is told what to change."""
    with pytest.raises(Refusal, match=r"pattern and format|multipleOf") as refused:
        checked(schema, "response_format")
    assert refused.value.code == "bad_request"


FAIR: list[dict[str, Any]] = [
    {"type": "string", "allOf": patterns(3)},
    {"type": "object", "properties": {f"a{at}": one for at, one in enumerate(patterns(50))}},
    {"anyOf": [{"type": "string", **one} for one in patterns(50)]},
    {"type": "array", "items": {"type": "string", "format": "date-time", "pattern": "Z$"}},
    {"type": "object", "properties": {f"a{at}": {"type": "integer", "multipleOf": 3600} for at in range(20)}},
    {"type": "integer", "multipleOf": 86_400},
    {"type": "number", "multipleOf": 0.01},
    {"type": "number", "multipleOf": 1e-05},
    {"type": "object", "properties": {"multipleOf": {"type": "integer"}, "allOf": {"enum": ["pattern"]}}},
    {"$defs": {"a": {"type": "string", **PATTERN}}, "type": "array", "items": {"$ref": "#/$defs/a"}},
]


@pytest.mark.parametrize("schema", FAIR)
def test_fair_ones(schema: dict[str, Any]) -> None:
    """They pass, and are compiled at once."""
    began = time.process_time()
    Constraints(LLTokenizer("byte")).compile(checked(schema, "response_format"))
    assert time.process_time() - began < 10


def test_the_costliest_that_passes() -> None:
    """What is let through is bounded: at the limits compiling takes a second, not minutes."""
    most: dict[str, Any] = {
        "type": "object",
        "properties": {f"p{at}": {"type": "string", "allOf": patterns(PATTERNS_MAX)} for at in range(50)},
    }
    began = time.process_time()
    try:
        Constraints(LLTokenizer("byte")).compile(checked(most, "response_format"))
    except Refusal as refusal:
        assert "empty" in refusal.message  # noqa: PT017 - llguidance's own word, or none
    assert time.process_time() - began < 20


def crossed(count: int, branches: int) -> dict[str, Any]:
    """Objects that are one of `branches` to the power of `count` kinds."""
    kinds = [
        [{"properties": {f"p{at}{each}": {"type": "integer"}}} for each in range(branches)]
        for at in range(count)
    ]
    return {"type": "object", "allOf": [{"anyOf": each} for each in kinds]}


def test_branches_that_multiply() -> None:
    """A schema of 1.5 kB took 1.2 s and 0.3 GB, twenty tools 10 s: others are not measured meanwhile."""
    constraints, began = Constraints(LLTokenizer("byte")), time.process_time()
    with pytest.raises(Refusal, match="response_format cannot be used: it comes to too much; combine fewer"):
        constraints.compile(checked(crossed(6, 4), "response_format"))
    function = {"name": "t", "parameters": crossed(5, 4)}
    tools = [{"type": "function", "function": {**function, "name": f"t{at}"}} for at in range(12)]
    offered = offer(tools, None, parallel=False)
    assert offered is not None
    with pytest.raises(Refusal, match="tool t0 cannot be used: it comes to too much; combine fewer"):
        constraints.compile_calls(
            OURS, offered.tools, "auto", literal=lambda text: [text], parallel=False, schema=None
        )
    assert time.process_time() - began < 2


def test_tools_are_counted_together() -> None:
    """They are compiled into one: each below the bound, and sixty of them were gigabytes."""
    parameters = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 40_000}}}
    tools = [
        {"type": "function", "function": {"name": f"t{number}", "parameters": parameters}}
        for number in range(3)
    ]
    assert offer(tools[:2], None, parallel=False)
    with pytest.raises(Refusal, match="schemas of tools together: its multipleOf come to more"):
        offer(tools, None, parallel=False)


def doubled(length: int, last: dict[str, Any]) -> dict[str, Any]:
    """Lists of two of the next ones, to the last."""
    parts = {
        f"d{at}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{at + 1}"}] * 2, "minItems": 2}
        for at in range(length)
    }
    return {"$defs": {**parts, f"d{length}": last}, "$ref": "#/$defs/d0"}


LONG = {"const": "x" * 15_000}
SPELLED: list[dict[str, Any]] = [
    {"type": "array", "items": LONG, "minItems": 400},
    {"type": "array", "items": {"const": "x"}, "minItems": 10_000},
    {"type": "array", "items": {"type": "string", "pattern": "^(x{100}y){50}$"}, "minItems": 400},
    {"type": "array", "items": {"type": "string", "pattern": "^x{5000}$"}, "minItems": 400},
    {"type": "array", "items": {"type": "integer", "minimum": 10**18, "maximum": 10**18}, "minItems": 2000},
    {
        "type": "object",
        "properties": {f"p{at}": {"$ref": "#/$defs/a"} for at in range(100)},
        "required": [f"p{at}" for at in range(100)],
        "$defs": {"a": LONG},
    },
    {
        "type": "object",
        "additionalProperties": {"const": "x" * 9000},
        "required": [f"p{at}" for at in range(100)],
    },
    doubled(9, LONG),
]


@pytest.mark.parametrize("schema", SPELLED)
def test_what_is_spelled_out_at_once_is_bounded(schema: dict[str, Any]) -> None:
    """However much a schema leaves no choice about: 200 of the first held all others up for 17 s."""
    assert cost(schema).spelled > SPELLED_MAX
    constraints = Constraints(LLTokenizer("byte"))
    part = {key: value for key, value in schema.items() if key != "$defs"}
    parameters = {
        "type": "object",
        "properties": {"a": part},
        "required": ["a"],
        "$defs": schema.get("$defs", {}),
    }
    tool = Tool("t", parameters=json.dumps(parameters))
    began = time.process_time()
    for constraint, start in (
        (constraints.compile(json.dumps(schema)), b"{" if schema.get("type") == "object" else b"["),
        (
            constraints.compile_calls(
                OURS, [tool], "required", literal=lambda said: [said], parallel=False, schema=None
            ),
            OURS.opening.encode(),
        ),
    ):
        for byte in start:
            assert constraint.take(byte)
        assert any(constraint.mask())
        assert len(constraint.forced()) <= SPELLED_MAX
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[1] / "schemas").glob("*.json")), ids=lambda file: file.stem
)
def test_usual_ones_are_spelled_out(file: Path) -> None:
    """What they leave no choice about comes in one pass, not in one for each token."""
    assert cost(json.loads(file.read_text())["schema"]).spelled <= SPELLED_MAX / 20


def test_an_answer_that_is_not_spelled_out_comes_to_its_end() -> None:
    """It is held to its schema all the same."""
    schema = json.dumps({"type": "array", "items": {"const": "x" * 200}, "minItems": 100, "maxItems": 100})
    assert cost(json.loads(schema)).spelled > SPELLED_MAX
    constraint = Constraints(LLTokenizer("byte")).compile(schema)
    answer = json.dumps(["x" * 200] * 100, separators=(",", ":")).encode()
    for at, byte in enumerate(answer):
        assert not constraint.allows(ord("?")), at
        assert constraint.take(byte)
        assert constraint.forced() == []
    assert constraint.closed


def test_what_comes_round_is_spelled_out_where_it_is_short() -> None:
    """The ends of all parts within each other are spelled out together, however deep a model has gone."""
    for length, long in ((10, False), (1000, True)):
        part: dict[str, Any] = {"properties": {"tail": {"const": "x" * length}, "in": {"$ref": "#/$defs/a"}}}
        assert (cost({"$defs": {"a": part}, **part}).spelled > SPELLED_MAX) is long
        assert cost({"$defs": {"a": {}}, **part}).spelled <= SPELLED_MAX


def test_references_that_go_round_or_on_and_on() -> None:
    """A circle is looked at once; what no stack can hold is refused."""
    circle: dict[str, Any] = {
        "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}, "b": PATTERN}}},
        "$ref": "#/$defs/a",
    }
    assert replace(cost(circle), spelled=0) == Cost(patterns=1)
    long = {f"d{at}": {"$ref": f"#/$defs/d{at + 1}"} for at in range(2000)}
    assert cost({"$defs": long, "$ref": "#/$defs/d0"}).objection
    assert cost({"$ref": "#", **PATTERN}).patterns == 2  # counted once more: never too few


@pytest.mark.parametrize("place", ["1", "first", "9" * 5000])
def test_a_reference_to_a_place_that_is_not_there(place: str) -> None:
    """It may mean all that there is; a number too long for Python ended the daemon."""
    assert cost({"anyOf": [PATTERN], "$ref": f"#/anyOf/{place}"}).patterns == 2
