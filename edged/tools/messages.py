"""What the daemon and the process of the tools say to each other, one msgpack frame a message."""

from __future__ import annotations

from typing import Any

import msgspec

from edged.core.tools import Tool

RESULT_BYTES_MAX = 8 * 1024
"""A longer result would fill the context of the model."""


class Frame(msgspec.Struct, frozen=True, tag_field="t", array_like=True):
    """Root of all messages."""


class Loaded(Frame, frozen=True, tag="loaded"):
    """The tools are there; or `problem` says why not, and the process ends."""

    tools: tuple[Tool, ...] = ()
    problem: str = ""


class Ask(Frame, frozen=True, tag="ask"):
    """Run a tool; `arguments` is a JSON object as text."""

    name: str
    arguments: str
    node: str
    vitals: dict[str, Any]


class Told(Frame, frozen=True, tag="told"):
    """What it said: text for the model, or the error that it is told."""

    text: str
    failed: bool = False
