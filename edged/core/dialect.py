"""A JSON schema in the words of llguidance, which compiles it: every value stays one of the schema's. Pure.

llguidance refuses what it does not know, also where that asks for nothing; takes references as URIs alone; lets
a number be the bound that it must not be, where nothing whole stands between the bounds; and keeps a bound as a
float, for whole numbers cut to 64 bits: of two at the lower end it looked for numbers until its stack was used up.
Numbers of `const` and `enum` are two such bounds. And where a pattern's class has all control characters it lets
quotation marks and backslashes through as well, which stand behind a backslash in JSON: so did `[^"]`.
"""

from __future__ import annotations

import math
import re
import sys
import urllib.parse
from typing import Any, TypeGuard

from edged.core.schema import DEFINITIONS
from edged.core.schema_closed import LITERALS
from edged.core.schema_cost import NAMED

FORMATS = frozenset(
    {
        *("date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname"),
        *("ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template"),
        *("json-pointer", "relative-json-pointer", "regex"),
    }
)
"""JSON Schema 2020-12, Validation 7.3. Of any other it says that it must not fail (7.2.3): it is a remark."""
ANY_NAME: tuple[object, ...] = (True, {}, {"type": "string"})
"""What `propertyNames` may be without asking for anything, as zod writes it for each record."""
REFERENCE = "#/%~!$&'()*+,;=:@?-._"
"""Characters that stand in a URI's fragment as they are (RFC 3986, 3.5)."""
NEAR = 1e-6
"""How near to a bound that is excluded a number may come, as a share of the room between the bounds."""
FLOAT_MAX = sys.float_info.max
EXACT = 2**53
"""Whole numbers up to here are floats too."""
INTEGER_MAX = 2**63 - 1024
"""The largest float of 64 bits; the smallest is one that nothing can be taken from."""
_ALL_BUT = re.compile(r"\\P(\{[^{}]*\}|[A-Za-z])|(\\.)|\[\^([]-]?)", re.DOTALL)
"""All but a property's characters; or what is escaped; or how a class of all but some begins, with a character that
must be escaped behind NUL."""
WITHOUT_NUL = r"[^\x00"
LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

Schema = dict[str, Any]


def adapted(schema: Schema, *, unique: bool = True) -> Schema:
    """The schema for llguidance.

    Args:
        schema: within the bounds of `core.schema`.
        unique: `uniqueItems`, which llguidance cannot keep, is to be; then it refuses the schema.

    Raises:
        ValueError: the schema names a whole number that would come out as another.
    """
    told: Schema = {}
    for key, value in schema.items():
        if key in NAMED | DEFINITIONS and isinstance(value, dict):
            written = _without_nul if key == "patternProperties" else str
            told[key] = {written(name): _part(each, unique=unique) for name, each in value.items()}
        elif key in LITERALS:
            if key in {"const", "enum"}:
                _check_kept(value)
            told[key] = value
        elif key == "pattern" and isinstance(value, str):
            told[key] = _without_nul(value)
        elif not _asks_nothing(key, value, unique=unique):
            told[key] = _part(value, unique=unique)
    reference = told.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        told["$ref"] = urllib.parse.quote(reference, safe=REFERENCE)
    for keys, inside in ((LOWER, math.inf), (UPPER, -math.inf)):
        told |= {key: _kept(value, inside) for key in keys if _is_number(value := told.get(key))}
    return told | _bounds(told)


def _part(value: Any, *, unique: bool) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_part(each, unique=unique) for each in value]
    return adapted(value, unique=unique) if isinstance(value, dict) else value


def _without_nul(pattern: str) -> str:
    """A pattern whose classes of all but some characters are without U+0000 as well, so not of all that control."""

    def without(found: re.Match[str]) -> str:
        if found[1]:
            return rf"{WITHOUT_NUL}\p{found[1]}]"
        return found[2] or WITHOUT_NUL + (found[3] and "\\" + found[3])

    return _ALL_BUT.sub(without, pattern)


def _check_kept(value: object) -> None:
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            _check_kept(each)
    elif isinstance(value, int) and (abs(value) > INTEGER_MAX or int(float(value)) != value):
        raise ValueError(f"the number {value} cannot be kept exactly; ask for it as text")


def _asks_nothing(key: str, value: object, *, unique: bool) -> bool:
    match key:
        case "format":
            return isinstance(value, str) and value not in FORMATS
        case "uniqueItems":
            return value is False or not unique
        case "propertyNames":
            return value in ANY_NAME
    return False


def _kept(bound: float, inside: float) -> float:
    """A bound as llguidance will keep it, where that is another: a little further inside, never outside."""
    within = max(bound, -INTEGER_MAX) if inside > 0 else min(bound, INTEGER_MAX)
    if abs(within) <= EXACT or not isinstance(within, int) or abs(within) > FLOAT_MAX:
        return within
    near = int(float(within))
    outside = near < within if inside > 0 else near > within
    return int(math.nextafter(near, inside)) if outside else near


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounds(schema: Schema) -> Schema:
    """A bound of its own for a number that must not be a whole one and lies less than 1 from it.

    llguidance takes 0 for a number above 0 and below 0.5.
    """
    low, above = _number(schema, "minimum", -math.inf), _number(schema, "exclusiveMinimum", -math.inf)
    high, below = _number(schema, "maximum", math.inf), _number(schema, "exclusiveMaximum", math.inf)
    least, most = max(low, above), min(high, below)
    room = most - least
    if not 0 < room < 1:
        return {}
    told: Schema = {}
    if above >= low and above.is_integer():
        told["minimum"] = max(least + NEAR * room, math.nextafter(least, most))
    if below <= high and below.is_integer():
        told["maximum"] = min(most - NEAR * room, math.nextafter(most, least))
    return told


def _number(schema: Schema, key: str, without: float) -> float:
    value = schema.get(key)
    if not _is_number(value):
        return without
    return float(max(-FLOAT_MAX, min(value, FLOAT_MAX)))  # an integer may be larger
