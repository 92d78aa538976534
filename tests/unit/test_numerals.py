"""Numbers in answers that are held to a form: they come to an end, and nothing else is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.numerals import DIGITS_MAX, Numerals

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
