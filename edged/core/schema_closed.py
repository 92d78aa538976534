"""A JSON schema with its objects closed, where that is safe: only properties that it names. Pure.

JSON Schema lets an object have any further properties, and a small model then goes on inventing some until its
tokens are spent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from edged.core.schema_cost import at

OPEN_KEYWORDS = frozenset(
    {
        *("allOf", "not", "if", "dependentSchemas", "dependencies", "patternProperties"),
        *("unevaluatedProperties", "propertyNames", "minProperties", "$dynamicRef", "extends"),
    }
)
"""Where one of these stands, an object may need properties that it does not name."""
HOLDERS = frozenset({"properties", "$defs", "definitions"})
"""Keywords that hold schemas by name."""
BRANCHES = frozenset({"anyOf", "oneOf"})
"""Keywords that hold alternatives, which apply to a value beside all else that is said of it."""
LITERALS = frozenset({"const", "enum", "default", "examples"})
"""Keywords that hold values, not schemas."""
BRANCHES_MAX = 64
"""Of one `oneOf`: each is compared with each other, and one with more is left as it is."""
TYPES = frozenset({"null", "boolean", "object", "array", "number", "string"})
"""Of values; an integer is a number."""

Schema = dict[str, Any]


def closed(schema: Schema) -> Schema:
    """The schema with its objects closed, where it says nothing of further properties.

    Every value of the closed schema is one of the given schema, and of those with named properties only none is
    lost. Schemas with keywords under which that need not hold (`OPEN_KEYWORDS`) are left as they are, and so are
    those that put a reference, or alternatives of both kinds, beside something else that they say of an object.
    """
    objects = [*objects_in(schema)]
    if any(one.keys() & OPEN_KEYWORDS or not _may_close(schema, one) for one in objects):
        return schema
    shut: Schema = _shut(schema, frozenset())
    return shut


def objects_in(value: object) -> Iterator[Schema]:
    """All objects in it; a property's name that is a keyword's counts as one, which only leaves more alone."""
    layer = [value]
    while layer:
        one = layer.pop()
        if isinstance(one, dict):
            yield one
            layer += one.values()
        elif isinstance(one, list):
            layer += one


def _shut(value: Any, beside: frozenset[str]) -> Any:  # noqa: ANN401 - JSON
    """The value closed, where it names all properties that are spoken of `beside` it."""
    if isinstance(value, list):
        return [_shut(item, beside) for item in value]
    if not isinstance(value, dict):
        return value
    spoken_of, nothing = beside | _spoken_of(value), frozenset[str]()
    inside = {
        key: {name: _shut(each, nothing) for name, each in child.items()}
        if key in HOLDERS and isinstance(child, dict)
        else _shut(child, spoken_of if key in BRANCHES else nothing)
        if key not in LITERALS
        else child
        for key, child in value.items()
    }
    named = value.get("properties")
    if (
        isinstance(named, dict)
        and spoken_of <= named.keys()
        and not value.keys() & {"additionalProperties", "$ref", *BRANCHES}
    ):
        inside["additionalProperties"] = False
    return inside


def _spoken_of(one: Schema) -> frozenset[str]:
    """Properties that it names or requires itself."""
    named, required = one.get("properties"), one.get("required")
    names = [*(named if isinstance(named, dict) else ()), *(required if isinstance(required, list) else ())]
    return frozenset(name for name in names if isinstance(name, str))


def _may_close(root: Schema, one: Schema) -> bool:
    """Whether what it refers to, and what it lets a value be, loses nothing by being closed."""
    ways = one.keys() & {"$ref", *BRANCHES}
    if len(ways) > 1 or ("oneOf" in ways and not _exclude_each_other(root, one["oneOf"])):
        return False
    referring = any(
        "$ref" in each for way in ways for each in ([one] if way == "$ref" else objects_in(one[way]))
    )
    return not (referring and _spoken_of(one))


def _exclude_each_other(root: Schema, branches: object) -> bool:
    """Whether no value can be one of two branches, closed or not: only then one of a closed branch is of it alone.

    Told by their types, or by a property that two require, each with other texts in it: so pydantic writes a
    discriminated union.
    """
    if not isinstance(branches, list) or len(branches) > BRANCHES_MAX:
        return False
    told = [(_types(one), _texts(one)) for one in (_resolved(root, branch) for branch in branches)]
    return all(
        types.isdisjoint(others) or _differ(texts, theirs)
        for (types, texts), (others, theirs) in combinations(told, 2)
    )


def _resolved(root: Schema, branch: object) -> Schema:
    ref = branch.get("$ref") if isinstance(branch, dict) else None
    one = at(root, ref) if isinstance(ref, str) and ref.startswith("#/") else branch
    return one if isinstance(one, dict) else {}


def _types(one: Schema) -> frozenset[str]:
    told = one.get("type", [*TYPES])
    names = told if isinstance(told, list) else [told]
    return frozenset("number" if name == "integer" else str(name) for name in names)


def _texts(one: Schema) -> dict[str, frozenset[str]]:
    """The properties that must be there and be one of some texts, with these."""
    named, required = one.get("properties"), one.get("required")
    if not isinstance(named, dict) or not isinstance(required, list):
        return {}
    needed = {name for name in required if isinstance(name, str)}
    values = {
        name: [child["const"]] if "const" in child else child["enum"]
        for name, child in named.items()
        if name in needed and isinstance(child, dict) and child.keys() & {"const", "enum"}
    }
    return {
        name: frozenset(texts)
        for name, texts in values.items()
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    }


def _differ(one: dict[str, frozenset[str]], other: dict[str, frozenset[str]]) -> bool:
    return any(one[name].isdisjoint(other[name]) for name in one.keys() & other.keys())
