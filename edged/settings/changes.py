"""Which settings can change while the daemon runs, and how two trees of them differ. Pure.

What is not named here needs a restart: where the node is found, what the engine was loaded with.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..errors import SettingsError
from .leaves import leaves
from .source import reason
from .tree import Settings

AT_RUN_TIME = ("limits.", "cache.", "log.", "health.interval_s", "node.pools")
"""Keys, or sections with their dot, that a reload or an operator changes at once."""


def at_run_time(key: str) -> bool:
    """Whether a key can change while the daemon runs."""
    return any(key == known or (known.endswith(".") and key.startswith(known)) for known in AT_RUN_TIME)


def values(settings: Settings) -> dict[str, Any]:
    """Every setting by its key, as plain values; what stands in a section that is not there is left out."""
    found: dict[str, Any] = {}
    for leaf in leaves(Settings):
        at: Any = settings
        for name in leaf.path:
            at = getattr(at, name, None)
        found[leaf.key] = at
    return found


def differences(before: Settings, after: Settings) -> dict[str, Any]:
    """The settings of `after` that differ, by key."""
    old = values(before)
    return {key: value for key, value in values(after).items() if value != old[key]}


def changed(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """`settings` with some that can change at run time changed.

    Raises:
        SettingsError: a key is unknown or needs a restart, or a value is not accepted.
    """
    known = {leaf.key: leaf for leaf in leaves(Settings)}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        if key not in known:
            raise SettingsError(f"{key[:80]}: unknown key; `edged config show` lists them")
        if not at_run_time(key):
            raise SettingsError(f"{key}: needs a restart; change it in the settings file")
        section, name = known[key].path
        sections.setdefault(section, getattr(settings, section).model_dump())[name] = value
    made: dict[str, Any] = {}
    for section, content in sections.items():
        try:
            made[section] = type(getattr(settings, section)).model_validate(content)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join((section, *map(str, problem["loc"][:1])))
            raise SettingsError(f"{key}: {reason(problem, known[key])}") from None
    return settings.model_copy(update=made)
