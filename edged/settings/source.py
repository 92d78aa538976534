"""Reads the settings: a TOML file, and over it the environment. Every mistake becomes a line to act on.

Each line stands alone: the file or the environment variable, the key, what is wrong, what is accepted. Values
of unknown keys are never repeated, for they may be secrets put in the wrong place. Runs at start, in the
process that asks; touches nothing but the file and the environment.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import SettingsError
from .leaves import PREFIX, Leaf, leaves, section_of
from .network import credential
from .tree import Settings

OTHER_VARIABLES: Mapping[str, str] = {
    "EDGED_CONFIG": "the settings file of commands that are given none",
    "EDGED_SOCKET": "the daemon's socket, for `edged drain`, `undrain` and `status`",
    "EDGED_MODELS": "the folder of models, for `edged model`",
    "EDGED_FAILPOINT": "fault tests only: the place where the daemon kills itself",
}
"""Environment variables that start like a setting's and are none, with their meaning."""

SECRETS = frozenset(
    {
        "mqtt.password_file",
        "mqtt.tls.ca",
        "mqtt.tls.cert",
        "mqtt.tls.key",
        "http.key_file",
        "http.tls.cert",
        "http.tls.key",
        "upstream.key_file",
    }
)
"""Files that systemd may hand over as credentials."""

FILE_BYTES_MAX = 1024 * 1024
_SHOWN_CHARACTERS = 60
_ACCOUNT = re.compile(r"(['\"](?:\w+://)?)[^'\"\s]*@")
"""Where addresses have a name and a password (RFC 3986, 3.2.1), which are accepted in none here."""
_WORDLESS = frozenset({"string_pattern_mismatch", "string_too_short", "string_too_long", "path_type"})
"""pydantic's complaints that speak of patterns and classes: our words are plainer."""


def load(path: Path | None, *, again: bool = False) -> Settings:
    """The settings in `path` (none: defaults) overridden by the environment.

    Relative paths in the file start at the file's folder, those in the environment at the working directory.
    With `again`, for a daemon that read it at its start, a pipe is not waited for.

    Raises:
        SettingsError: one line for each mistake; the first line stands alone.
    """
    known = {leaf.path: leaf for leaf in leaves(Settings)}
    complaints: list[str] = []
    table: dict[str, Any] = {}
    if path is not None:
        table = _read(path, again=again)
        _check_keys(table, Settings, (), str(path), complaints)
        _anchor(table, known.values(), path.parent.absolute())  # a later chdir changes nothing
    _check_variables(known.values(), complaints)
    if isinstance(table.get("model", {}), dict):
        table.setdefault("model", {})  # so that a missing section reads as its missing key
    try:
        settings = Settings(**table)
    except ValidationError as error:
        complaints += _complaints(error, known, path)
    if complaints:
        raise SettingsError("\n".join(_one_line(text) for text in complaints))
    return settings


def _read(path: Path, *, again: bool) -> dict[str, Any]:
    try:
        if again and path.is_fifo():
            raise SettingsError(_one_line(f"{path}: a pipe, which is read once; a file is read again"))
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(_one_line(f"{path}: cannot be read: {reason}; a TOML file is accepted")) from None
    if len(raw) > FILE_BYTES_MAX:
        raise SettingsError(_one_line(f"{path}: longer than {FILE_BYTES_MAX} bytes; a TOML file is accepted"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(_one_line(f"{path}: line {line}: not UTF-8; TOML in UTF-8 is accepted")) from None
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number Python will not read
        reason = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise SettingsError(_one_line(f"{path}: not TOML: {reason}")) from None
    except RecursionError:
        raise SettingsError(_one_line(f"{path}: not TOML that is accepted: nested too deep")) from None


def _check_keys(
    table: dict[str, Any], section: type[BaseModel], above: tuple[str, ...], file: str, complaints: list[str]
) -> None:
    """Takes unknown keys and sections that are none out of `table`, with a complaint each."""
    for key in list(table):
        place = ".".join((*above, key))
        field = section.model_fields.get(key)
        if field is None:
            complaints.append(f"{file}: {place}: unknown key; {_nearest(key, above, section)}")
            del table[key]
            continue
        inner = section_of(field)
        if inner is None:
            continue
        if isinstance(table[key], dict):
            _check_keys(table[key], inner, (*above, key), file, complaints)
        else:
            complaints.append(f"{file}: {place}: a section, written [{place}], is accepted here, not a value")
            del table[key]


def _nearest(key: str, above: tuple[str, ...], section: type[BaseModel]) -> str:
    """What an unknown key may have been meant to be: a key of the same section before one of another."""
    here = ".".join(above)
    near = difflib.get_close_matches(key.lower(), section.model_fields, n=1)
    if near:
        return f"did you mean {'.'.join((*above, near[0]))}?"
    elsewhere = [leaf.key for leaf in leaves(Settings) if leaf.path[-1] == key.lower()]
    if not elsewhere:
        elsewhere = difflib.get_close_matches(f"{here}.{key}", [leaf.key for leaf in leaves(Settings)], n=1)
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"accepted are {', '.join(section.model_fields)}"


def _check_variables(known: Iterable[Leaf], complaints: list[str]) -> None:
    names = {leaf.variable for leaf in known}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in names and name not in OTHER_VARIABLES:
            near = difflib.get_close_matches(name, [*names, *OTHER_VARIABLES], n=1)
            hint = f"did you mean {near[0]}?" if near else "EDGED_SECTION__KEY is accepted"
            complaints.append(f"{name}: unknown environment variable; {hint}")


def _anchor(table: dict[str, Any], known: Iterable[Leaf], folder: Path) -> None:
    """Makes relative paths in `table` start at `folder`, or at systemd's credentials for a secret."""
    for leaf in known:
        if not leaf.is_path:
            continue
        holder: Any = table
        for name in leaf.path[:-1]:
            holder = holder.get(name, {})
        value = holder.get(leaf.path[-1])
        # What the field refuses is left to it.
        if isinstance(value, str) and value and "\x00" not in value and value[0] != "~":
            secret = leaf.key in SECRETS
            holder[leaf.path[-1]] = str(credential(Path(value), folder) if secret else folder / value)


def _complaints(
    error: ValidationError, known: Mapping[tuple[str, ...], Leaf], path: Path | None
) -> Iterable[str]:
    file = "environment" if path is None else str(path)
    for problem in error.errors(include_url=False):
        place = tuple(str(part) for part in problem["loc"])
        leaf = next((known[place[:n]] for n in range(len(place), 0, -1) if place[:n] in known), None)
        if leaf is None:
            yield f"{file}: {'.'.join(place)}: {_lower(problem['msg'])}"
            continue
        source = leaf.variable if leaf.variable in os.environ else file
        if problem["type"] == "missing":
            way = f" ({leaf.variable})" if path is None else ""
            yield f"{source}: {leaf.key}{way}: missing; accepted: {leaf.accepts}"
            continue
        way = (
            "; in a variable: separated by commas"
            if source != file and leaf.accepts.startswith("list")
            else ""
        )
        yield f"{source}: {leaf.key}: {reason(problem, leaf)}{way}"


def reason(problem: ErrorDetails, leaf: Leaf) -> str:
    """What is wrong with a value and what is accepted, without the place."""
    refused = "missing" if problem["input"] is None else f"{shown(problem['input'])} is not accepted"
    if problem["type"] == "edged":
        return f"{refused}: {problem['msg']}"
    if problem["type"] in _WORDLESS:
        return f"{refused}; accepted: {leaf.accepts}"
    return f"{refused}: {_lower(problem['msg'])} ({leaf.accepts})"


def shown(value: object) -> str:
    """A value as it may stand in a complaint, which the log and the broker get: short, and nothing before an @."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with more digits than Python prints, or too many brackets
        return "the value"
    text = _ACCOUNT.sub(r"\1***@", text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _one_line(text: str) -> str:
    """`text` with whatever is not printable written out, as Python writes it in a string."""
    return "".join(sign if sign.isprintable() else _written_out(sign) for sign in text)


def _written_out(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")
