"""What the process of the tools makes of a tool's result."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edged.tools import LocalTool, Surroundings
from edged.tools.__main__ import run
from edged.tools.messages import Ask, Told

NO_UTF8 = b"temp\xff".decode(errors="surrogateescape")
"""A file's name as Python has it."""


def read(_arguments: dict[str, Any], _surroundings: Surroundings) -> str:
    """Name the file."""
    return NO_UTF8


def fail(_arguments: dict[str, Any], _surroundings: Surroundings) -> str:
    """Name the file that is not there."""
    raise FileNotFoundError(NO_UTF8)


@pytest.mark.parametrize(
    ("tool", "told"),
    [(read, Told("temp?")), (fail, Told("FileNotFoundError: temp?", failed=True))],
)
def test_text_that_is_no_utf8(tool: Any, told: Told) -> None:
    """It is told as far as it can be, and the process lives on."""
    said = run(LocalTool("reads a sensor", {"type": "object"}, tool), Ask("sensor", "{}", "n1", {}))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=Told) == told
