"""The tool `clock`: date and time of the board, which may be wrong until it has found a network."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from edged.tools import LocalTool, Surroundings


def _run(_arguments: Mapping[str, Any], _surroundings: Surroundings) -> dict[str, Any]:
    return told(datetime.datetime.now().astimezone())


def told(now: datetime.datetime) -> dict[str, Any]:
    """A moment with its zone, in words a model can use."""
    return {
        "date": now.strftime("%Y-%m-%d"),
        "time": now.strftime("%H:%M:%S"),
        "weekday": now.strftime("%A"),
        "utc_offset": now.strftime("%z"),
        "unix_s": int(now.timestamp()),
    }


TOOL = LocalTool(
    "Tell the present date, time and weekday of this node.",
    {"type": "object", "properties": {}, "additionalProperties": False},
    _run,
)
