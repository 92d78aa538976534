"""Walks a tree of sections: every single setting with its key, its environment variable and what it accepts.

Knows pydantic's models and typing, none of our settings, no file and no environment. Pure functions.
"""

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

PREFIX = "EDGED_"
FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


@dataclass(frozen=True)
class Accepts:
    """Stands in a type's annotations and says in words what a pattern says in signs."""

    text: str


@dataclass(frozen=True)
class DefaultWords:
    """Stands in a field's annotations and says what a default is that differs from machine to machine."""

    text: str


@dataclass(frozen=True)
class Leaf:
    """One setting: where it stands and pydantic's record of it."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def key(self) -> str:
        """The key with its sections, as in `mqtt.tls.ca`."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that overrides it, as in `EDGED_MQTT__TLS__CA`."""
        return PREFIX + "__".join(self.path).upper()

    @property
    def accepts(self) -> str:
        """What it accepts, in words: `integer, 1 to 65535`."""
        return _words(self.field.annotation, self.field.metadata)

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder."""
        return _plain(self.field.annotation) is Path

    def value(self, text: str) -> object:
        """The value that `text` from the environment stands for; `text` itself where it stands for none.

        Lists are separated by commas. An empty text unsets what may be unset and empties a list.
        """
        kind = _plain(self.field.annotation)
        if not text and kind is not self.field.annotation and type(None) in get_args(self.field.annotation):
            return None
        if get_origin(kind) is tuple:
            return [part.strip() for part in text.split(",")] if text.strip() else []
        if kind is bool:
            return FLAGS.get(text.strip().lower(), text)
        # `int` and `float` themselves leave \x1c to \x1f there, which are space to all else.
        number = text.strip()
        if kind is int and re.fullmatch(r"[+-]?[0-9]{1,30}", number):
            return int(number)
        if kind is float and re.fullmatch(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?", number):
            return float(number)
        return text


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section a field holds; None for a single setting."""
    kind = _plain(field.annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def leaves(section: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every setting of a section and the sections in it, in the order they are written."""
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield Leaf((*above, name), field)
        else:
            yield from leaves(inner, (*above, name))


def _plain(annotation: object) -> object:
    """The type without `| None` and without annotations."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _words(annotation: object, metadata: list[Any]) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        flat = [more for item in inner for more in (item.metadata if isinstance(item, FieldInfo) else [item])]
        metadata = [*metadata, *flat]
    for item in metadata:
        if isinstance(item, Accepts):
            return item.text
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list, each " + _words(get_args(annotation)[0], [])
    words = {int: "integer", float: "number", bool: "true or false", Path: "path", str: "text"}
    word = words.get(annotation, "value") if isinstance(annotation, type) else "value"
    low = next((item.ge for item in metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in metadata if hasattr(item, "le")), None)
    return word if low is None else f"{word}, {low} to {high}"
