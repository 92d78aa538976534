"""Writes settings down for people: the table of `configs/README.md`, and the effective values as TOML.

Pure but for the host name in a default. Secrets are not in the tree, only the names of their files, so
nothing here can show one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .leaves import DefaultWords, leaves
from .tree import Settings


@dataclass(frozen=True)
class Row:
    """One setting, in words."""

    section: str
    key: str
    type: str
    default: str
    meaning: str
    variable: str


def table() -> tuple[Row, ...]:
    """Every setting in the order of the tree."""
    return tuple(
        Row(
            section=".".join(leaf.path[:-1]),
            key=leaf.path[-1],
            type=leaf.accepts,
            default=_default(leaf.field),
            meaning=leaf.field.description or "",
            variable=leaf.variable,
        )
        for leaf in leaves(Settings)
    )


def markdown_table() -> str:
    """The settings as a Markdown table, ending in a newline; `configs/README.md` holds it word for word."""
    lines = ["| key | accepted | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{row.section}.{row.key}` | {row.type} | {row.default} | {row.meaning} |".replace("\n", " ")
        for row in table()
    ]
    return "\n".join(lines) + "\n"


def toml_text(settings: Settings) -> str:
    """The effective settings as TOML; what is unset is left out."""
    return "\n\n".join("\n".join(lines) for lines in _sections(settings, "")) + "\n"


def _sections(section: BaseModel, name: str) -> Iterator[list[str]]:
    lines = [f"[{name}]"] if name else []
    inner: list[tuple[str, BaseModel]] = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            inner.append((f"{name}.{key}" if name else key, value))
        elif value is not None:
            lines.append(f"{key} = {_toml(value)}")
    if lines:
        yield lines
    for place, below in inner:
        yield from _sections(below, place)


def _toml(value: object) -> str:
    """A value in TOML's notation; JSON's strings are TOML's, once DEL is written out too."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _default(field: FieldInfo) -> str:
    for item in field.metadata:
        if isinstance(item, DefaultWords):
            return item.text
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{_toml(value)}`"
