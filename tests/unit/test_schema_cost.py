"""Schemas that cost more to compile than a board has, and those that do not, by what is counted of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from llguidance import LLTokenizer

from edged.core.schema import checked
from edged.core.schema_cost import PATTERNS_MAX, Cost, cost
from edged.core.tools import offer
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


def test_references_that_go_round_or_on_and_on() -> None:
    """A circle is looked at once; what no stack can hold is refused."""
    circle: dict[str, Any] = {
        "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}, "b": PATTERN}}},
        "$ref": "#/$defs/a",
    }
    assert cost(circle) == Cost(patterns=1)
    long = {f"d{at}": {"$ref": f"#/$defs/d{at + 1}"} for at in range(2000)}
    assert cost({"$defs": long, "$ref": "#/$defs/d0"}).objection
    assert cost({"$ref": "#", **PATTERN}).patterns == 2  # counted once more: never too few


@pytest.mark.parametrize("place", ["1", "first", "9" * 5000])
def test_a_reference_to_a_place_that_is_not_there(place: str) -> None:
    """It may mean all that there is; a number too long for Python ended the daemon."""
    assert cost({"anyOf": [PATTERN], "$ref": f"#/anyOf/{place}"}).patterns == 2
