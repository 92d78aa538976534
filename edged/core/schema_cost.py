"""What a schema may cost to compile and to follow, in the ways that llguidance's own limits do not bound. Pure.

All patterns that hold for one text become one automaton, with four times the work for each more: 14 took 25 s
and 0.7 GB, in a schema of 500 bytes. And `multipleOf` becomes one with about as many states as its number, at
each place where it stands: 100,000 took 0.5 s and 50 MB, the seconds of a year gigabytes (x86, llguidance 1.9.1).
So any device could have had the engine run out of memory. And what a schema leaves no choice about is spelled
out at once, however long it is: a list of two hundred times the same text of 15 kB took 17 s.

What is counted is never less than what meets: all that stands in the branches of an `allOf` counts as if it
were said of one value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from urllib.parse import unquote

PATTERNS_MAX = 5
"""For one text: milliseconds."""
MULTIPLES_MAX = 100_000
"""The numbers of all `multipleOf`, and the product of those for one value."""
SPELLED_MAX = 16 * 1024
"""Characters that are spelled out at once: 20 ms."""
_DIGITS_MAX = 9
_WORD, _NAME = 5, 6
"""Characters of the shortest values with a comma, and of what stands around a name."""
_LITERALS = ("const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_ROUND = 64
"""How often what refers to itself is taken to come: each time costs tokens of the model's own."""
_REPEATED = re.compile(r"(.?)\{([0-9]{1,9})", re.DOTALL)
_CEILING = 1 << 40
"""No count goes on beyond this: references may double it at each level."""
_BESIDE = frozenset(
    {"allOf", "anyOf", "oneOf", "$ref", "$defs", "definitions", "const", "enum", "default", "examples"}
)
"""Keywords whose values are no schemas of parts of the value: looked at in another way, or not at all."""
NAMED = frozenset({"properties", "patternProperties", "dependentSchemas"})
"""Keywords that hold schemas by name which apply where they stand."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a schema.

    Attributes:
        patterns: that may hold for one text.
        product: of the `multipleOf` that may hold for one number.
        ways: in which `anyOf` lets a value be; all that stands beside is compiled for each.
        multiples: sum of all `multipleOf`, as often as they are compiled.
        spelled: characters that it may leave no choice about, at most.
        deep: references lead on and on.
    """

    patterns: int = 0
    product: int = 1
    ways: int = 1
    multiples: int = 0
    spelled: int = 0
    deep: bool = False

    @property
    def objection(self) -> str:
        """Why it is too much, and what to change; empty where it is not."""
        if self.deep:
            return "its references lead too deep into each other; write some of them out"
        if self.patterns > PATTERNS_MAX:
            return f"more than {PATTERNS_MAX} of pattern and format may hold for one text; join some into one"
        if max(self.product, self.multiples) > MULTIPLES_MAX:
            return (
                f"its multipleOf come to more than {MULTIPLES_MAX} (multiplied within allOf, added elsewhere, once "
                "for each branch of anyOf); ask for smaller ones, or for a larger unit"
            )
        return ""


NOTHING = Cost()


def cost(schema: dict[str, object]) -> Cost:
    """What compiling `schema` comes to."""
    count = _Count(schema)
    try:
        found = count.of(schema)
        return replace(found, spelled=found.spelled * (_ROUND if count.goes_round else 1))
    except RecursionError:
        return Cost(deep=True)


class _Count:
    def __init__(self, root: dict[str, object]) -> None:
        self._root = root
        self._known: dict[int, Cost] = {}
        self._open: set[int] = set()
        self.goes_round = False
        defined = [value for keyword in ("$defs", "definitions") for value in _values(root.get(keyword))]
        self._all: dict[str, object] = {"allOf": [root, *defined]}

    def of(self, one: object) -> Cost:
        if not isinstance(one, dict) or not one:
            return NOTHING
        inside = [self.of(each) for each in _parts(one)]
        together = [self.of(each) for each in listed(one, "allOf")]
        if isinstance(ref := one.get("$ref"), str):
            together.append(self._at(ref))
        either = [
            branches
            for keyword in ("anyOf", "oneOf")
            if (branches := [self.of(each) for each in listed(one, keyword)])
        ]
        own = _modulus(one.get("multipleOf"))
        named = sum(isinstance(one.get(keyword), str) for keyword in ("pattern", "format"))
        all_hold = [*together, *(_widest(group) for group in (inside, *either))]
        ways = _product(
            [*(each.ways for each in together), *(sum(one.ways for one in group) for group in either)]
        )
        multiples = own + sum(each.multiples for each in (*inside, *together))
        apart = sum(each.multiples for group in either for each in group)
        return Cost(
            patterns=min(_CEILING, named + sum(each.patterns for each in all_hold)),
            product=_product([max(1, own), *(each.product for each in all_hold)]),
            ways=ways,
            multiples=min(_CEILING, multiples * ways + apart),
            spelled=_spelled(one, [*inside, *together, *(_widest(group) for group in either)]),
        )

    def _at(self, ref: str) -> Cost:
        """Of what a reference leads to; one that leads back to itself adds nothing there."""
        found = at(self._root, unquote(ref)) if ref.startswith("#/") else None
        if found is None:  # by another name than a place: whatever it is, it is in here
            found = self._all
        if id(found) not in self._known:  # it has many spellings
            self._known[id(found)] = Cost()
            self._open.add(id(found))
            self._known[id(found)] = self.of(found)
            self._open.remove(id(found))
        self.goes_round = self.goes_round or id(found) in self._open
        return self._known[id(found)]


def at(schema: object, ref: str) -> object:
    """What a JSON pointer (RFC 6901) of the form `#/...` leads to; None for nothing."""
    for name in ref[2:].split("/"):
        if isinstance(schema, list):
            # Of thousands of digits Python makes no number (`sys.set_int_max_str_digits`).
            place = int(name) if name.isdecimal() and len(name) <= _DIGITS_MAX else len(schema)
            schema = schema[place] if place < len(schema) else None
        elif isinstance(schema, dict):
            schema = schema.get(name.replace("~1", "/").replace("~0", "~"))
        else:
            return None
    return schema


def _parts(one: dict[str, object]) -> Iterable[object]:
    """Schemas of parts of the value: properties, items and the like."""
    for keyword, value in one.items():
        if keyword in NAMED and isinstance(value, dict):
            yield from value.values()
        elif keyword not in _BESIDE:
            yield from value if isinstance(value, list) else (value,)


def listed(one: Mapping[str, object], keyword: str) -> list[object]:
    """A keyword's list; empty where it has none."""
    value = one.get(keyword)
    return value if isinstance(value, list) else []


def _spelled(one: Mapping[str, object], inside: Iterable[Cost]) -> int:
    """Characters of all that a schema names, as often as it asks for it."""
    literals = [*(one.get(key) for key in _LITERALS), *listed(one, "enum")]
    own = _WORD + max(len(str(each)) for each in literals) + _letters(one.get("pattern"))
    named = one.get("properties")
    names = [*(named if isinstance(named, dict) else ())]
    # Properties that must be there, and have the schema of all that are not named.
    others = {name for name in listed(one, "required") if isinstance(name, str)} - {*names}
    least = one.get("minItems")
    times = max(1, len(others), least if isinstance(least, int) else 0)
    letters = (
        own + sum(_NAME + len(name) for name in (*names, *others)) + sum(each.spelled for each in inside)
    )
    return min(_CEILING, letters * min(_CEILING, times))


def _letters(pattern: object) -> int:
    """Characters of the longest text that a pattern may leave no choice about, or more."""
    if not isinstance(pattern, str):
        return 0
    repeated = [(before, int(times)) for before, times in _REPEATED.findall(pattern)]
    nested = _product(max(1, times) for before, times in repeated if before in {")", "}"})
    return min(_CEILING, (len(pattern) + sum(times for _, times in repeated)) * nested)


def _values(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else ()


def _widest(group: Sequence[Cost]) -> Cost:
    """What one of them comes to at most."""
    return Cost(
        patterns=max((each.patterns for each in group), default=0),
        product=max((each.product for each in group), default=1),
        spelled=max((each.spelled for each in group), default=0),
    )


def _product(numbers: Iterable[int]) -> int:
    return min(_CEILING, math.prod(min(_CEILING, number) for number in numbers))


def _modulus(multiple: object) -> int:
    """States that a `multipleOf` asks for: its digits as a whole number; 0 where there is none."""
    if isinstance(multiple, bool):
        return 0
    if isinstance(multiple, int):  # of any size: Python makes no float of one with hundreds of digits
        return min(_CEILING, abs(multiple))
    if not isinstance(multiple, float) or not math.isfinite(multiple):
        return 0
    _, digits, exponent = Decimal(repr(abs(multiple))).as_tuple()
    whole = int("".join(map(str, digits)))
    return min(_CEILING, whole * int(10 ** max(0, int(exponent))))
