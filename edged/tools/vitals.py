"""The tool `vitals`: what the board's health says: level, temperatures, clocks, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.tools import LocalTool, Surroundings


def _run(_arguments: Mapping[str, Any], surroundings: Surroundings) -> dict[str, Any]:
    return {"node": surroundings.node, **surroundings.vitals}


TOOL = LocalTool(
    "Tell how this node's board is: heat level, temperatures in degrees Celsius, clocks in hertz, memory.",
    {"type": "object", "properties": {}, "additionalProperties": False},
    _run,
)
