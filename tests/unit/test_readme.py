"""README, settings and measurements say what the code does: tables, commands, error codes, paths."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
from typer.main import get_command

from edged.cli import app, load_commands
from edged.core.control import Control, Status
from edged.core.heat import policy
from edged.core.question import Question
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, ToolCall
from edged.errors import CODES
from edged.settings import markdown_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = (ROOT / "configs" / "README.md").read_text("utf-8")
TELLS = {"tell_event", "tell", "_tell", "_say"}
MEASURED = (ROOT / "tests" / "README.md").read_text("utf-8")


def test_settings_table_is_the_one_made_from_the_code() -> None:
    """The table between the marks equals `markdown_table()`."""
    match = re.search(r"<!-- settings:.*?-->\n(.*?)\n<!-- /settings -->", SETTINGS, re.DOTALL)
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


@pytest.mark.parametrize("shape", [Accepted, Delta, ToolCall, Done, Cancelled, Failed, Status])
def test_every_field_of_a_reply_is_named(shape: type[msgspec.Struct]) -> None:
    """What a device can be told stands in the row of its type, but for what all replies carry."""
    fields = {field.encode_name for field in msgspec.structs.fields(shape)} - {"id", "seq", "type"}
    kind = shape.__struct_config__.tag
    (row,) = (row for row in README.splitlines() if re.match(rf"\| (`\w+`, )*`{kind}`[^|]*\| [01] \|", row))
    missing = {field for field in fields if f"`{field}`" not in row}
    assert not missing


def test_every_example_is_listed() -> None:
    """Each file of the examples stands in their list, and nothing else does."""
    folder = ROOT / "deploy" / "examples"
    files = {str(path.relative_to(folder)) for path in folder.glob("*/*.*")}
    assert (
        set(re.findall(r"^\| `([\w./-]+)`", (folder / "README.md").read_text("utf-8"), re.MULTILINE)) == files
    )


def test_every_event_is_named() -> None:
    """What a node publishes on its event topic stands in the README."""
    told = set()
    for file in (*(ROOT / "edged" / "node").glob("*.py"), ROOT / "edged" / "tuning.py"):
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in TELLS and call.args:
                told |= {getattr(one, "value", None) for one in ast.walk(call.args[0])}
    assert {"engine_gone", "level_changed", "throttling_ended", "pools_left", "drained", "reloaded"} <= told
    assert not {event for event in told if isinstance(event, str) and f"`{event}`" not in README}


def test_every_control_is_named() -> None:
    """Each order of a device stands in the README."""
    for op in get_args(get_type_hints(Control)["op"]):
        assert f"`{op}`" in README or f'"{op}"' in README, op


def test_the_contents_lead_to_what_is_there() -> None:
    """Each anchor of the contents is a heading's, as GitHub makes them; none but three is missing there."""
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    made = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([a-z0-9-]+)\)", README))
    assert linked <= made
    assert made - linked <= {"the-same-question-again", "specification", "licence"}


def test_every_command_is_named_and_every_named_one_exists() -> None:
    """What a person is told to type is there, and nothing is there that no one is told of."""
    load_commands([])
    group = get_command(app)
    known = set(group.commands)  # type: ignore[attr-defined] # a group
    named = set(re.findall(r"(?<![\w./-])edged ([a-z]+)\b(?!\.)", "\n".join(code_of(README))))
    assert named - known == set()
    assert known - named == set()


def code_of(text: str) -> list[str]:
    """Blocks and spans of code that are commands: those that begin with edged, or lines of a block that do."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [
        one.strip() for one in lines + re.findall(r"`([^`\n]+)`", text) if one.strip().startswith("edged ")
    ]


def test_every_path_that_is_named_exists() -> None:
    """Files and folders in back-ticks are there."""
    named = re.findall(r"`((?:edged|configs|systemd|deploy|tests)/[\w./-]*)`", README + SETTINGS + MEASURED)
    missing = [name for name in named if not (ROOT / name).exists() and not name.startswith("edged/v1")]
    assert named
    assert not missing
