"""The settings that stand in the environment, as a source of pydantic-settings.

Only variables of known settings are read; unknown ones are `source`'s to complain about.
"""

import os
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from .leaves import leaves


class Environment(PydanticBaseSettingsSource):
    """The settings that stand in the environment, turned from text into their types."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[object, str, bool]:
        """Part of pydantic-settings' interface; a section has no variable of its own."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The sections and keys for which a variable is set."""
        found: dict[str, Any] = {}
        for leaf in leaves(self.settings_cls):
            text = os.environ.get(leaf.variable)
            if text is not None:
                holder = found
                for name in leaf.path[:-1]:
                    holder = holder.setdefault(name, {})
                holder[leaf.path[-1]] = leaf.value(text)
        return found
