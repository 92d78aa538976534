"""Schemas that no value fits which comes to an end, and those that lead to themselves and have one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edged.core.schema import checked
from edged.core.schema_endless import ROUNDS_MAX, endless
from edged.errors import Refusal

A, B = ({"$ref": f"#/$defs/{name}"} for name in "ab")
NULL = {"type": "null"}


def needs(**parts: Any) -> dict[str, Any]:
    """An object with all of these."""
    return {"type": "object", "properties": parts, "required": [*parts]}


def listed(least: int, items: Any) -> dict[str, Any]:
    """An array of at least so many."""
    return {"type": "array", "items": items, "minItems": least}


ENDLESS: list[dict[str, Any]] = [
    {"$ref": "#"},
    {**A, "$defs": {"a": B, "b": A}},
    {**A, "$defs": {"a": needs(x=A)}},
    {"$id": "https://example.com/node", **A, "$defs": {"a": needs(x=A)}},
    {**A, "definitions": {}, "$defs": {"a": needs(x={"type": "integer"}, y=B), "b": listed(1, A)}},
    needs(next={"$ref": "#"}),
    listed(1, {"$ref": "#"}),
    {"type": "array", "prefixItems": [NULL, {"$ref": "#"}], "minItems": 2},
    {**A, "$defs": {"a": {"anyOf": [needs(x=A), listed(2, B)]}, "b": needs(x=A)}},
    {**A, "$defs": {"a": {"allOf": [needs(x=A), {"properties": {"y": NULL}}]}}},
    needs(children={"$ref": "#/properties/children"}),
]


@pytest.mark.parametrize("schema", ENDLESS)
def test_no_value_ends(schema: dict[str, Any]) -> None:
    """Its answer was written until `too_long`; now the device hears what to change."""
    with pytest.raises(Refusal, match="response_format: the schema requires itself, so no") as refused:
        checked(schema, "response_format")
    assert refused.value.code == "bad_request"


FAIR: list[dict[str, Any]] = [
    {**A, "$defs": {"a": needs(x={"anyOf": [A, NULL]})}},
    {**A, "$defs": {"a": needs(x=listed(0, A))}},
    {**A, "$defs": {"a": {"type": "object", "properties": {"x": A}}}},
    {**A, "$defs": {"a": {**needs(x=A), "type": ["object", "null"]}}},
    {**A, "$defs": {"a": {"properties": {"x": A}, "required": ["x"]}}},  # a number is one of it
    {**A, "$defs": {"a": needs(x=B), "b": {"oneOf": [A, {"type": "string"}]}}},
    {**needs(y=NULL), "$defs": {"a": needs(x=A)}},
    {"type": "array", "prefixItems": [NULL, {"$ref": "#"}], "minItems": 1},
    {**A, "$defs": {"a": {"$id": "https://example.com/other", **needs(x=A), "$defs": {"a": NULL}}}},
    {"properties": {"$ref": {"type": "string"}}, "required": [["odd"]], "type": "object"},
]


@pytest.mark.parametrize("schema", FAIR)
def test_some_value_ends(schema: dict[str, Any]) -> None:
    """Trees and lists that may be empty, and what needs nothing of what goes on for ever."""
    assert not endless(schema)


def test_a_name_that_is_required_often_is_looked_at_once() -> None:
    """Below names that stand there twenty times each on three levels: it would be thousands of times."""
    looks = 0

    class Counted(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            nonlocal looks
            looks += key == "type"
            return super().get(key, default)

    schema: dict[str, Any] = Counted(type="null")
    for _ in range(3):
        schema = {"type": "object", "properties": {"p": schema}, "required": ["p"] * 20}
    assert not endless(schema)
    assert looks == 1


def test_long_chains() -> None:
    """What leads far is given up as fair, and looked at in no time."""
    for order in (range(200), reversed(range(200))):
        chain: dict[str, Any] = {f"d{at}": needs(x={"$ref": f"#/$defs/d{at + 1}"}) for at in order}
        begun = time.process_time()
        assert not endless({"$defs": {**chain, "d200": NULL}, "$ref": "#/$defs/d0"})
        assert time.process_time() - begun < 1
    assert len(chain) > ROUNDS_MAX
