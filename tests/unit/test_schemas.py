"""Structured answers on the real small model: whatever the schema and seed, what comes out is valid.

Ten schemas as devices would send them stand in tests/schemas; the hostile ones are made here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from real_rig import RealRig, ask

from edged.core import reply
from edged.core.schema import schema_text
from edged.engine.messages import Ended, Refused
from edged.engine.unique_grammar import VALUES_MAX
from edged.errors import Refusal

FILES = sorted((Path(__file__).parents[1] / "schemas").glob("*.json"))
SEEDS = 20
QUICK = 2
"""Seeds of each schema without --soak."""
COMPILE_S = 20.0
"""Generous for a busy machine: on a quiet one the worst of these schemas takes 0.15 s."""


@pytest.fixture(scope="module")
def rig(small_model: Path) -> RealRig:
    """An engine of four slots."""
    return RealRig(small_model)


def wanted(schema: Any) -> str:
    """The schema as a question carries it."""
    text = schema_text({"type": "json_schema", "json_schema": {"schema": schema}})
    assert text is not None
    return text


def check(file: Path, rig: RealRig, seeds: range) -> None:
    """Every seed's answer is read back and valid."""
    told = json.loads(file.read_text("utf-8"))
    schema = told["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    for seed in seeds:
        rig.submit(ask(seed, told["prompt"], schema=wanted(schema), seed=seed))
    endings = rig.run()
    assert sorted(endings) == list(seeds)
    for seed, ending in endings.items():
        assert isinstance(ending, Ended), (file.stem, seed, ending)
        jsonschema.validate(reply.parsed(ending.text), schema, format_checker=jsonschema.FormatChecker())
        assert reply.parsed(ending.text) == json.loads(ending.text)


def test_there_are_ten() -> None:
    """The ten that the benches count too."""
    assert len(FILES) == 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_answers_are_valid(file: Path, rig: RealRig) -> None:
    """Some seeds of each schema, side by side."""
    check(file, rig, range(1, QUICK + 1))


@pytest.mark.soak
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_answers_are_valid_for_all_seeds(file: Path, rig: RealRig) -> None:
    """All seeds of each schema."""
    check(file, rig, range(1, SEEDS + 1))


def test_json_object(rig: RealRig) -> None:
    """Any object will do, but an object it is."""
    any_object = schema_text({"type": "json_object"})
    for seed in range(8):
        prompt = "Say {}" if seed % 2 else "Describe pump 7 as JSON."
        rig.submit(ask(seed, prompt, schema=any_object, max_tokens=100, seed=seed))
    whole = 0
    for ending in rig.run().values():
        if isinstance(ending, Ended):
            assert isinstance(reply.parsed(ending.text), dict)
            whole += 1
        else:
            assert ending.code == "too_long"
    assert whole, "each of them rambled on"


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 9, 14, 20, 40])
def test_cut_short(rig: RealRig, max_tokens: int) -> None:
    """An answer without room to its end is a clear error, or it is whole; never half a value."""
    told = json.loads(FILES[0].read_text("utf-8"))
    for seed in range(4):
        rig.submit(ask(seed, told["prompt"], schema=wanted(told["schema"]), max_tokens=max_tokens))
    for ending in rig.run().values():
        if isinstance(ending, Ended):
            jsonschema.validate(reply.parsed(ending.text), told["schema"])
        else:
            assert ending.code == "too_long"
            assert "max_tokens" in ending.message


def test_a_number_cut_short(rig: RealRig) -> None:
    """Digits that may lack further ones are no answer; a number that can have no more is one."""
    whole, digit = wanted({"type": "integer", "minimum": 0}), wanted({"type": "integer", "enum": [3, 4]})
    for seed in range(4):
        rig.submit(ask(seed, "How many turns?", schema=whole, max_tokens=1))
        rig.submit(ask(seed + 4, "How many turns?", schema=digit, max_tokens=1))
    endings = rig.run()
    for seed in range(4):
        cut, well = endings[seed], endings[seed + 4]
        assert isinstance(cut, Refused)
        assert (cut.code, "max_tokens" in cut.message) == ("too_long", True)
        assert isinstance(well, Ended)
        assert well.text in {"3", "4"}


def test_items_that_differ(rig: RealRig) -> None:
    """A model that likes to repeat itself names each room once at most."""
    rooms = ["hall", "kitchen", "bathroom", "Küche oben", "bed room 1", "bed room 2"]
    schema = _object(
        rooms={"type": "array", "items": {"enum": rooms}, "uniqueItems": True, "minItems": len(rooms) - 1}
    )
    for seed in range(4):
        rig.submit(ask(seed, "Name the rooms.", schema=wanted(schema), seed=seed, max_tokens=100))
    orders = set()
    for ending in rig.run().values():
        assert isinstance(ending, Ended)
        answer = reply.parsed(ending.text)
        jsonschema.validate(answer, schema)
        orders.add(tuple(answer["rooms"]))
    assert len(orders) > 1, orders


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _chain(first: dict[str, Any], length: int, join: str, extra: Any = None) -> dict[str, Any]:
    """A schema in which each part names the one before it twice: two to the `length` if it were written out."""
    parts = {"p0": first}
    for at in range(1, length):
        before = {"$ref": f"#/$defs/p{at - 1}"}
        parts[f"p{at}"] = {join: [before, before if extra is None else extra(at)]}
    return {"$ref": f"#/$defs/p{length - 1}", "$defs": parts}


HOSTILE: dict[str, dict[str, Any]] = {
    "nested_long_strings": _object(a=_object(b=_object(c={"type": "string", "maxLength": 2500}))),
    "longest_string": {"type": "string", "maxLength": 10**9},
    "shortest_string": {"type": "string", "minLength": 10**6},
    "least_items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**6},
    "most_items": {"type": "array", "items": _object(a={"type": "string"}), "maxItems": 10**6},
    "large_enum": {"enum": [f"v{at}" for at in range(1500)]},
    "long_const": {"const": "x" * 15_000},
    "many_optionals": {"type": "object", "properties": {f"p{at}": {"type": "null"} for at in range(400)}},
    "repeated_group": {"type": "string", "pattern": "^(a+)+$"},
    "nested_counts": {"type": "string", "pattern": "^((((a|b){100}){100}){100}){100}$"},
    "exponential_states": {"type": "string", "pattern": "^(.*a.{30})$"},
    "many_alternatives": {"type": "string", "pattern": "|".join(f"a{at}b" for at in range(1500))},
    "unbalanced": {"type": "string", "pattern": "((((("},
    "deep_pattern": {"type": "string", "pattern": "(" * 3000 + "a" + ")?" * 3000},
    "backreference": {"type": "string", "pattern": "(?=a)(a)\\1"},
    "endless_where_it_may_be_left_out": {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/a"}},
        "$defs": {"a": _object(x={"$ref": "#/$defs/a"})},
    },
    "tree": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
    "remote": {"$ref": "http://example.com/schema.json"},
    "file": {"$ref": "file:///etc/passwd"},
    "all_of_bomb": _chain({"type": "object", "properties": {"a": {"type": "integer"}}}, 12, "allOf"),
    "any_of_bomb": _chain({"type": "integer"}, 60, "anyOf"),
    "crossed_bomb": _chain(
        {"type": "integer"}, 30, "allOf", lambda at: {"anyOf": [{"minimum": at}, {"maximum": -at}]}
    ),
    "unsatisfiable": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "large_multiple": {"type": "integer", "multipleOf": 86_400},  # larger ones: test_schema_cost.py
    "wide_range": {"type": "number", "minimum": 0.123456789012345678, "maximum": 1e308},
    "no_type": {"type": "nonsense"},
    "number_for_type": {"type": 1},
    "any": {},
    "unique": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "unique_of_many": _object(
        rooms={
            "type": "array",
            "items": {"enum": [f"room {at}" for at in range(VALUES_MAX)]},
            "uniqueItems": True,
            "minItems": VALUES_MAX,
        }
    ),
    "unique_in_very_many": {
        "type": "array",
        "items": {"type": "array", "items": {"enum": ["on", "off"]}, "uniqueItems": True},
        "minItems": 10**9,
    },
    "not": {"not": {"type": "string"}},
    "overlapping_one_of": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(rig: RealRig, name: str) -> None:
    """Whatever it asks for, it is refused, or answered, or cut off with an error, in bounded time."""
    schema = wanted(HOSTILE[name])
    begun = time.monotonic()
    refusal = None
    try:
        rig.submit(ask(1, "Answer as the schema wants it.", schema=schema, max_tokens=48))
    except Refusal as error:
        refusal = error
    for ending in rig.run().values():
        if isinstance(ending, Refused):
            assert ending.code in {"too_long", "bad_request"}
        else:
            jsonschema.validate(reply.parsed(ending.text), HOSTILE[name])
    assert refusal is None or (refusal.code == "bad_request" and "schema" in refusal.message)
    assert time.monotonic() - begun < COMPILE_S
    rig.submit(ask(2, "Hello", max_tokens=4))  # it still answers
    assert isinstance(rig.run()[2], Ended)


def test_compiler_options_are_no_part_of_a_schema() -> None:
    """A schema may name options of the compiler there, `lenient` among them, which breaks the promise: refused."""
    with pytest.raises(Refusal, match="x-guidance"):
        wanted({"type": "object", "x-guidance": {"lenient": True}})
