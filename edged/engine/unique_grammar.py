"""The grammar of an answer with lists whose items must differ (`uniqueItems`), in llguidance's Lark dialect. Pure.

llguidance keeps no `uniqueItems`, but has rules with 64 bits of memory: one bit for each value that an item may
have tells which came before. So a list of an enum's values is kept, in any order. Around it stand rules for what
leads to such lists, plain objects and lists; all else is left to llguidance as `%json`.

Texts of devices stand in it as JSON that was parsed and written anew, as in `call_grammar`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import unquote

from edged.core.dialect import adapted
from edged.core.schema import DEFINITIONS
from edged.core.schema_closed import LITERALS, TYPES
from edged.core.schema_cost import NAMED, listed
from edged.core.schema_endless import led_to

VALUES_MAX = 63
"""Of one list: llguidance compares a count of bits with no more."""
GRAMMAR_CHARS_MAX = 256 * 1024
"""Values stand in it once for each list, definitions once for each part with references in it."""
CANNOT = (
    f"uniqueItems holds where items are of an enum of at most {VALUES_MAX}, in plain objects and lists; "
    "leave it out, and drop what comes twice"
)
REMARKS = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema"),
        *DEFINITIONS,
    }
)
"""Keywords that ask for nothing where they stand."""

OBJECT = ("properties", "required", "additionalProperties")
LIST = ("items", "minItems", "maxItems", "uniqueItems")

Schema = dict[str, Any]


def asks(root: Schema, one: object) -> bool:
    """Whether a part of the schema `root`, or what it refers to, has a list whose items must differ."""
    return any(each.get("uniqueItems") is True for each in _reached(root, one))


def answer(schema: Schema, options: dict[str, Any]) -> str:
    """Lark rules of which the first, `answer`, is a value of the schema.

    Args:
        schema: within the bounds of `core.schema`.
        options: llguidance's.

    Raises:
        ValueError: `uniqueItems` stands where it cannot be kept, or no value fits.
    """
    if not asks(schema, schema):  # whole, with all places in it that it may refer to
        return f"answer: {_given(schema, options)}"
    writer = _Rules(schema, options)
    try:
        lines = [f"answer: {writer.value(schema)}", *writer.lines]
    except RecursionError:
        raise ValueError(CANNOT) from None
    if sum(map(len, lines)) > GRAMMAR_CHARS_MAX:
        raise ValueError("it comes to too much around uniqueItems; ask for less at once")
    return "\n".join(lines)


class _Rules:
    def __init__(self, root: Schema, options: dict[str, Any]) -> None:
        self._root = root
        self._options = options
        self._named: dict[int, str] = {}
        self.lines: list[str] = []

    def value(self, one: object) -> str:
        """What a value of this part of the schema is, within a rule."""
        if one is False:
            raise ValueError("no value fits it")
        if one is True:
            return self._json({})
        if not isinstance(one, dict):
            raise ValueError("a part of it is no schema: neither an object nor true or false")  # noqa: TRY004 - as for all schemas
        said, kind = one.keys() - REMARKS, one.get("type")
        if said == {"$ref"} and (target := led_to(self._root, one)) is not None:
            return self._target(target)
        if not asks(self._root, one):
            return self._json(one)
        if (ways := self._ways(one, said)) is not None:
            return self._either(ways)
        if kind in ("object", None) and said <= {"type", *OBJECT}:
            return self._object(one)
        if kind in ("array", None) and said <= {"type", *LIST}:
            return self._list(one)
        raise ValueError(CANNOT)

    def _ways(self, one: Schema, said: AbstractSet[str]) -> list[object] | None:
        """Schemas of which a value fits one; None where it says more."""
        kinds = one.get("type")
        if isinstance(kinds, list) and {*map(type, kinds)} <= {str} and said <= {"type", *OBJECT, *LIST}:
            about = {"object": OBJECT, "array": LIST}
            return [
                {"type": kind, **{key: one[key] for key in about.get(kind, ()) if key in one}}
                for kind in kinds
            ]
        for keyword in ("anyOf", "allOf"):
            if said == {keyword} and (keyword == "anyOf" or len(listed(one, keyword)) == 1):
                return [each for each in listed(one, keyword) if each is not False]
        return None

    def _json(self, one: Schema) -> str:
        """A part without such lists, with the definitions that it leads to."""
        needed: Schema = {}
        for each in _reached(self._root, one):
            if not isinstance(ref := each.get("$ref"), str):
                continue
            place, holder, name, *_ = (*unquote(ref).split("/"), "", "")
            name = name.replace("~1", "/").replace("~0", "~")
            defined = self._root.get(holder) if holder in DEFINITIONS else None
            if place != "#" or not isinstance(defined, dict) or name not in defined:
                raise ValueError(CANNOT)
            needed.setdefault(holder, {})[name] = defined[name]
        return _given({**one, **needed}, self._options)

    def _target(self, target: Schema) -> str:
        name = self._named.get(id(target))
        if name is None:
            name = self._named[id(target)] = f"named_{len(self._named)}"
            self.lines.append(f"{name}: {self.value(target)}")
        return name

    def _either(self, ways: Iterable[object]) -> str:
        told = [self.value(way) for way in ways]
        if not told:
            raise ValueError("no value fits it")
        return f"({' | '.join(told)})"

    def _object(self, one: Schema) -> str:
        """Its properties in their order. None beyond them: each value is still one of the schema's."""
        named, required = one.get("properties"), listed(one, "required")
        if not isinstance(named, dict) or one.get("additionalProperties", False) not in (False, True):
            raise ValueError(CANNOT)
        if not all(isinstance(name, str) and name in named for name in required):
            raise ValueError(CANNOT)
        # From the last one on: what follows one that came, and what follows none.
        after, first = '"}"', '"}"'
        for name, each in reversed(named.items()):
            if each is False and name not in required:
                continue
            at = len(self.lines)
            self.lines.append("")
            pair = f"property_{at}"
            self.lines[at] = f"{pair}: {_text(json.dumps(name, ensure_ascii=False) + ':')} {self.value(each)}"
            rest, begin = f"rest_{at}", f"begin_{at}"
            skipped = name not in required
            self.lines.append(f'{rest}: "," {pair} {after}' + (f" | {after}" if skipped else ""))
            self.lines.append(f"{begin}: {pair} {after}" + (f" | {first}" if skipped else ""))
            after, first = rest, begin
        return f'"{{" {first}'

    def _list(self, one: Schema) -> str:
        least, most = one.get("minItems", 0), one.get("maxItems", math.inf)
        if not isinstance(least, int) or (not isinstance(most, int) and most != math.inf):
            raise ValueError("minItems and maxItems must be whole numbers")
        least = max(0, least)
        if one.get("uniqueItems") is True:
            values = self._values(one.get("items"))
            if values is None or len(values) > VALUES_MAX:
                raise ValueError(CANNOT)
            most = min(most, len(values))
            if least > most:
                raise ValueError(f"{least} different items are more than there may be")
            return self._unique(values, least, int(most))
        if least > most:
            raise ValueError("minItems is above maxItems")
        if most < 1:
            return '"[]"'
        item = self.value(one.get("items", {}))
        items = item
        if most > 1:
            upto = "" if most == math.inf else int(most) - 1
            items = f'{item} ("," {item}){{{max(0, least - 1)},{upto}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _unique(self, values: list[str], least: int, most: int) -> str:
        if not most:
            return '"[]"'
        at = len(self.lines)
        item, more = f"item_{at}", f"more_{at}"
        ways = [
            f"{_text(value)} {more}::set_bit({bit}) %if bit_clear({bit})" for bit, value in enumerate(values)
        ]
        ended, goes_on = f"bit_count_ge(_, {least})", f"bit_count_lt(_, {most})"
        self.lines.append(f"{item}::_: {' | '.join(ways)}")
        self.lines.append(f'{more}::_: "" %if {ended} | "," {item}::_ %if {goes_on}')
        items = f"{item}::0"
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _values(self, one: object) -> list[str] | None:
        """Every value that an item may have, as JSON text; None where that is too much to tell."""
        found: dict[object, str] = {}
        layer, seen = [one], 0
        while layer and seen <= 2 * VALUES_MAX:
            seen += 1
            each = layer.pop()
            if not isinstance(each, dict):
                return None
            said = each.keys() - REMARKS
            if said == {"$ref"}:
                layer.append(led_to(self._root, each))
                continue
            if said in ({"anyOf"}, {"oneOf"}):
                layer += reversed(listed(each, *said))
                continue
            values = _of_enum(each) if said & {"enum", "const"} else _of_type(each)
            if values is None or not said <= {"type", "enum", "const", "minimum", "maximum"}:
                return None
            for value in values:
                # To JSON Schema 1 and 1.0 are one value, and true is another.
                whole = int(value) if isinstance(value, float) and value.is_integer() else value
                found.setdefault((isinstance(value, bool), value), json.dumps(whole, ensure_ascii=False))
        return None if layer else [*found.values()]


def _given(schema: Schema, options: dict[str, Any]) -> str:
    return f"%json {json.dumps({**adapted(schema), 'x-guidance': options})}"


def _of_enum(one: Schema) -> list[Any] | None:
    """Its values that are of its type; None where one is a list or an object."""
    values = [one["const"]] if "const" in one else listed(one, "enum")
    if one.keys() & {"minimum", "maximum"} or ("const" in one and "enum" in one):
        return None
    if any(isinstance(value, list | dict) for value in values):
        return None
    told = one.get("type", [*TYPES])
    kinds = told if isinstance(told, list) else [told]
    return [value for value in values if any(kind in kinds for kind in _kinds(value))]


def _of_type(one: Schema) -> list[Any] | None:
    least, most = one.get("minimum"), one.get("maximum")
    match one.get("type"):
        case "boolean":
            return [False, True]
        case "integer" if isinstance(least, int) and isinstance(most, int) and most - least < VALUES_MAX:
            return [*range(least, most + 1)]
    return None


def _kinds(value: object) -> set[str]:
    """The types of JSON Schema that a value is of, which is no list and no object."""
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case str():
            return {"string"}
        case float() if not value.is_integer():
            return {"number"}
    return {"number", "integer"}


def _reached(root: Schema, one: object) -> Iterator[Schema]:
    """A part of a schema, all of its own parts, and all that they refer to, each once."""
    seen: set[int] = set()
    layer = [one]
    while layer:
        each = layer.pop()
        if isinstance(each, list):
            layer += each
        if not isinstance(each, dict) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        layer.append(led_to(root, each))
        for key, value in each.items():
            if key in NAMED and isinstance(value, dict):
                layer += value.values()
            elif key not in LITERALS | DEFINITIONS:
                layer.append(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
