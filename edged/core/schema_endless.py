"""A JSON schema that asks for itself in what it requires: no value of it comes to an end. Pure.

llguidance lets an answer to it begin, and a model would write until its tokens are spent.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import unquote

from edged.core.schema_closed import objects_in
from edged.core.schema_cost import at, listed

ROUNDS_MAX = 16
"""References that lead to an end only after more than these are taken to have one."""

Schema = dict[str, Any]


def endless(schema: Schema) -> bool:
    """Whether no finite value can fit the schema.

    The least fixed point of what has a finite value, over all that references lead to. What is not looked at
    counts as if it had one: a schema that some value fits is never endless.
    """
    objects = [*objects_in(schema)]
    if any("$id" in one for one in objects if one is not schema):  # references beside it mean another place
        return False
    ends: set[int] = set()
    targets = {id(one): one for one in (led_to(schema, each) for each in objects) if one is not None}
    for _ in range(ROUNDS_MAX):
        found = len(ends)
        for key, one in targets.items():
            if key not in ends and _ends(schema, one, ends):
                ends.add(key)
        if len(ends) == found:
            return not _ends(schema, schema, ends)
    return False


def _ends(root: Schema, one: object, known: AbstractSet[int]) -> bool:
    """Whether a value of `one` can end, where those can to which the references in `known` lead."""
    if not isinstance(one, dict):
        return True
    target = led_to(root, one)
    if target is not None and id(target) not in known:
        return False
    if not all(_ends(root, each, known) for each in listed(one, "allOf")):
        return False
    for keyword in ("anyOf", "oneOf"):
        branches = listed(one, keyword)
        if branches and not any(_ends(root, each, known) for each in branches):
            return False
    return all(_ends(root, part, known) for part in _needed(one))


def _needed(one: Schema) -> list[object]:
    """Schemas of parts that every value has."""
    match one.get("type"):
        case "object" | ["object"]:
            named = one.get("properties")
            if not isinstance(named, dict):
                return []
            # Each once: a name that stands there often would be looked at as often, on each level below it.
            names = dict.fromkeys(name for name in listed(one, "required") if isinstance(name, str))
            return [named[name] for name in names if name in named]
        case "array" | ["array"]:
            least, first = one.get("minItems"), listed(one, "prefixItems")
            if not isinstance(least, int):
                return []
            return [*first[: max(0, least)], *([one.get("items")] if least > len(first) else [])]
    return []


def led_to(root: Schema, one: Schema) -> Schema | None:
    """What its reference leads to; None where it has none to a place in the schema."""
    ref = one.get("$ref")
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    found = root if ref == "#" else at(root, unquote(ref)) if ref.startswith("#/") else None
    return found if isinstance(found, dict) else None
