"""Numbers in answers that are held to a form: they come to an end, and nothing else is cut."""

from __future__ import annotations

from typing import Any

import pytest
from calling_engine import tables
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedModel, say
from scripted_rig import Rig

from edged.core.numerals import DIGITS_MAX, Numerals
from edged.core.schema import schema_text
from edged.core.tools import described
from edged.engine.constraint import Constraints

NINES = "9" * DIGITS_MAX


@pytest.mark.parametrize(
    ("text", "full"),
    [
        (NINES, True),
        (NINES[1:], False),
        ("-" + NINES, True),
        (NINES + ".", False),
        (NINES + "." + NINES, True),
        ('{"a":[1,' + NINES, True),
        ('{"a":"' + NINES, False),
        ('{"a":"\\"' + NINES, False),
        ('{"a":"\\\\",' + NINES, True),
        ("1e1", False),
        ("1E-10", True),
        ("[1e9," + NINES[1:], False),
        ("[true,1", False),
        ("[true,10", False),
        ('<tool_call>\n{"name": "f", "arguments": {"a": ' + NINES, True),
    ],
)
@given(cut=st.integers(0, 80))
def test_where_a_number_has_digits_enough(text: str, full: bool, cut: int) -> None:  # noqa: FBT001 - a table
    """In front of the point, behind it and in the exponent, but not in a string; however the text is cut."""
    numerals = Numerals()
    for part in (text[:cut], text[cut:]):
        numerals.feed(part.encode())
    assert numerals.full == full


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    """What compiles schemas for the scripted vocabulary, in which a token is a byte."""
    return Constraints(tables())


def held(constraints: Constraints, answer: str, **asked: Any) -> Rig:
    """What comes of an answer that is held to a form."""
    model = ScriptedModel(say(answer), context=2000)
    rig = Rig(model, make_constraints=lambda: constraints)
    rig.ask(1, **asked)
    rig.run()
    rig.check_idle()
    return rig


@pytest.mark.parametrize(
    ("schema", "answer", "told"),
    [
        (
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            '{"a":' + 99 * "9",
            f'{{"a":{NINES}}}',
        ),
        ({"type": "number"}, 99 * "9", f"{NINES}.{NINES}E99"),
        ({"enum": [1e24, 2e24]}, "2" + 99 * "0", "2" + 24 * "0"),
        ({"type": "string", "pattern": "^[0-9]{25}$"}, '"' + 99 * "9", '"' + 25 * "9" + '"'),
    ],
)
def test_a_model_that_writes_digits_without_end(
    constraints: Constraints, schema: dict[str, Any], answer: str, told: str
) -> None:
    """Its number ends, unless it must have more digits; those in a string are the schema's to count.

    Of 24 questions for two plain numbers the small model answered five with digits until its tokens were spent.
    """
    form = schema_text({"type": "json_schema", "json_schema": {"schema": {**schema}}})
    rig = held(constraints, answer, schema=form)
    assert (rig.ended(1).outcome, rig.ended(1).text) == ("stop", told)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_call_that_has_digits_without_end(constraints: Constraints, mode: str) -> None:
    """Arguments end as well; what is said in front of the call is left alone."""
    tool = described("f", "", {"properties": {"a": {"type": "integer"}}, "required": ["a"]}, "f")
    said = 30 * "9" if mode == "auto" else ""
    answer = said + '<tool_call>\n{"name": "f", "arguments": {"a": ' + 99 * "9"
    rig = held(constraints, answer, tools=(tool,), tool_mode=mode, tools_parallel=False)
    [call] = rig.ended(1).calls
    assert (rig.ended(1).text, call.arguments) == (said, f'{{"a": {NINES}}}')
