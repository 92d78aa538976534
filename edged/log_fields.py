"""What may stand in a field of the log: plain types, short texts, no secrets, no control characters. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

TEXT_CHARACTERS_MAX = 4096
"""Longest text in a field; journald splits lines above 48 KiB (LineMax=, journald.conf(5))."""

_DEPTH_MAX = 4
_ITEMS_MAX = 100
_LINED = frozenset({"exception", "stack"})  # the only fields whose line ends mean something
_MASK = "***"
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "authorization"}
)
_SECRET_ENDS = ("key", "token")
# Everything that moves a cursor, ends a line somewhere, turns the writing direction or is no character at all
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def tidy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make every field fit for a line: secrets masked, floats short, no control characters, plain types."""
    return {_clean(str(name)): plain(value, str(name)) for name, value in event.items()}


def plain(value: object, name: str = "", depth: int = 0) -> object:
    """A value as JSON can hold it, safe on a line; `name` is the field it stands in."""
    if value is None or isinstance(value, (bool, int, float)):
        return _number(value)
    if secret(name, value):
        return _MASK
    if name in _LINED and isinstance(value, str):
        return "\n".join(_clean(line) for line in value.split("\n"))
    if depth < _DEPTH_MAX and isinstance(value, dict):
        pairs = list(value.items())[:_ITEMS_MAX]
        return {_clean(str(key)): plain(inner, str(key), depth + 1) for key, inner in pairs}
    if depth < _DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        left_out = [f"… ({len(value)} items)"] if len(value) > _ITEMS_MAX else []
        return [plain(inner, "", depth + 1) for inner in list(value)[:_ITEMS_MAX]] + left_out
    return _clean(str(value))


def _number(value: float | None) -> float | str | None:
    """Three decimals or three digits are all that a measurement here is good for."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else hex(value)
    return round(value, 3) if abs(value) >= 1 else float(f"{value:.3g}")


def secret(name: str, value: object) -> bool:
    """Whether a field's name says that its text must not be written.

    Numbers are no secrets here (`token=151643` is a token of the model), and neither are the names of files
    that hold one (`password_file`).
    """
    if isinstance(value, (int, float)):
        return False
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_").split("_")
    if words[-1] in {"file", "path"}:
        return False
    return words[-1] in _SECRET_ENDS or not _SECRET_WORDS.isdisjoint(words)


def _clean(text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX:
        text = f"{text[:TEXT_CHARACTERS_MAX]}… ({len(text)} characters)"
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
