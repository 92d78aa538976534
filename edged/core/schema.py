"""What a device may ask of the form of an answer: `response_format`, bounded before anything compiles it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from edged.core.schema_closed import LITERALS, closed
from edged.core.schema_cost import NAMED, at, cost
from edged.core.schema_endless import endless
from edged.errors import Refusal

SCHEMA_BYTES_MAX = 16 * 1024
SCHEMA_DEPTH_MAX = 16
ANY_OBJECT = '{"type":"object"}'
"""The schema of `json_object`."""
DEFINITIONS = frozenset({"$defs", "definitions"})
"""Keywords that hold schemas which apply where they are referred to."""
UNSEEN = LITERALS | DEFINITIONS
"""Keywords whose values are no schemas that apply where they stand."""
VALUES_PER_SUBSCHEMA = 16
"""That `unrolled` looks at, on average: lists, names, numbers. A schema of 16 KiB without references has at most
half as many as are granted."""
ELSEWHERE = frozenset({"$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef"})
"""Keywords that give references another meaning."""


def schema_text(response_format: dict[str, Any] | None) -> str | None:
    """The JSON schema that an answer must follow, as JSON text; None where any text will do.

    Args:
        response_format: OpenAI's: `{"type": "text"}`, `{"type": "json_object"}` or
            `{"type": "json_schema", "json_schema": {"schema": {...}}}`.

    Raises:
        Refusal: `bad_request` for another shape, or a schema above `SCHEMA_BYTES_MAX` or `SCHEMA_DEPTH_MAX`.
    """
    if response_format is None:
        return None
    match response_format.get("type"):
        case "text":
            return None
        case "json_object":
            return ANY_OBJECT
        case "json_schema":
            return _bounded(response_format.get("json_schema"))
        case _:
            raise Refusal("bad_request", "response_format.type must be text, json_object or json_schema")


def _bounded(holder: object) -> str:
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise Refusal("bad_request", "response_format.json_schema.schema must be a JSON schema, an object")
    return checked(schema, "response_format")


def checked(schema: dict[str, Any], where: str) -> str:
    """A device's schema as JSON text, if it is within bounds.

    Raises:
        Refusal: `bad_request`, with `where` in front; it is too large, costs too much, or no value of it can end.
    """
    if _depth(schema) > SCHEMA_DEPTH_MAX:
        raise Refusal("bad_request", f"{where}: the schema is nested deeper than {SCHEMA_DEPTH_MAX}")
    if "x-guidance" in schema:  # options of the compiler, which could make it leave out parts of the schema
        raise Refusal("bad_request", f"{where}: x-guidance is no part of a schema here; leave it out")
    text = msgspec.json.encode(schema)  # in the device's order, which is the order of the answer's properties
    if len(text) > SCHEMA_BYTES_MAX:
        raise Refusal(
            "bad_request", f"{where}: the schema has {len(text)} bytes; send at most {SCHEMA_BYTES_MAX}"
        )
    if objection := cost(schema).objection:
        raise Refusal("bad_request", f"{where}: {objection}")
    if endless(schema):
        raise Refusal(
            "bad_request",
            f"{where}: the schema requires itself, so no answer could end; let that part be left out, or be null",
        )
    return msgspec.json.encode(closed(schema)).decode()


def unrolled(schema: dict[str, Any], most: int) -> bool:
    """Whether a schema with every reference written out has at most so many subschemas.

    References may nest so that each level doubles the work of a check; such a schema, one that refers to itself, or
    to anything but a place in itself (`#/...`), is not. Neither is one that leads again and again to a long list:
    looking at it costs as well (`VALUES_PER_SUBSCHEMA`).
    """
    count = seen = 0
    layer: list[tuple[object, frozenset[str]]] = [(schema, frozenset())]
    while layer:
        one, inside = layer.pop()
        seen += 1
        if isinstance(one, list):
            layer += [(each, inside) for each in one]
        if not isinstance(one, dict):
            continue
        count += 1
        if count > most or seen > most * VALUES_PER_SUBSCHEMA or one.keys() & ELSEWHERE:
            return False
        if "$ref" in one:
            ref = one["$ref"]
            if not isinstance(ref, str) or ref in inside or not ref.startswith("#/") or "%" in ref:
                return False
            layer.append((at(schema, ref), inside | {ref}))
        for key, each in one.items():
            if key in NAMED and isinstance(each, dict):
                layer += [(child, inside) for child in each.values()]
            elif key not in UNSEEN:
                layer.append((each, inside))
    return True


def _depth(value: object) -> int:
    """Levels of nesting, counted no further than one above the bound."""
    level, layer = 0, [value]
    while layer and level <= SCHEMA_DEPTH_MAX:
        level += 1
        layer = [
            child
            for one in layer
            for child in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
            if isinstance(child, dict | list)
        ]
    return level
