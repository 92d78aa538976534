"""Tools of the node itself: functions that a model may call and that run here, each a Python entry point.

A package offers one by an entry point in the group `edged.tools`, whose name is the tool's and whose object is a
`LocalTool`; `[tools] enabled` in the settings switches it on. All of them run in a process of their own, which
alone imports them: one that hangs or crashes costs its call and nothing else. This file imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

GROUP = "edged.tools"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a tool may know of its node; `vitals` is what `health` tells of the board."""

    node: str = ""
    vitals: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalTool:
    """A function that a model may call.

    Attributes:
        description: for the model: what it does and when to use it.
        parameters: JSON schema of its arguments, of type object; the model is held to it. Without
            `additionalProperties` it counts as closed, as a device's does.
        run: takes the arguments and the surroundings; returns text, or what JSON can hold. What it raises, or
            ends with (`sys.exit`), is told to the model, with the error's text.
    """

    description: str
    parameters: Mapping[str, Any]
    run: Callable[[Mapping[str, Any], Surroundings], object]
