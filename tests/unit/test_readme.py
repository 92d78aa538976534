"""The README says what the code does: its settings table, its commands, its error codes."""

from __future__ import annotations

import re
from pathlib import Path

from edged.core.control import Control
from edged.core.heat import policy
from edged.core.question import Question
from edged.errors import CODES
from edged.settings import markdown_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_settings_table_is_the_one_made_from_the_code() -> None:
    """The table between the marks equals `markdown_table()`."""
    match = re.search(r"<!-- settings:.*?-->\n(.*?)\n<!-- /settings -->", README, re.DOTALL)
    assert match is not None
    assert match[1].strip() == markdown_table().strip()


def test_policy_of_heat_is_the_one_in_the_code() -> None:
    """The table of what each level allows is made from the code."""
    assert policy.markdown_table() in README


def test_every_error_code_is_named() -> None:
    """A device's author finds each code that can come."""
    missing = {code for code in CODES if f"`{code}`" not in README}
    assert not missing


def test_every_field_of_a_question_is_named() -> None:
    """What may be asked stands in the README."""
    internal = {"client", "made_id", "plain", "correlation", "schema", "reasoning_mode", "reasoning_budget"}
    fields = set(Question.__struct_fields__) - internal
    missing = {field for field in fields if f"`{field}`" not in README}
    assert not missing


def test_every_control_is_named() -> None:
    """Each order of a device stands in the README."""
    ops = Control.__annotations__["op"]
    for op in re.findall(r'"(\w+)"', str(ops)):
        assert f"`{op}`" in README or f'"{op}"' in README


def test_every_path_that_is_named_exists() -> None:
    """Files and folders in back-ticks are there."""
    named = re.findall(r"`((?:edged|configs|systemd|deploy|tests)/[\w./-]*)`", README)
    missing = [name for name in named if not (ROOT / name).exists() and not name.startswith("edged/v1")]
    assert named
    assert not missing
