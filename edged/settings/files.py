"""Files that settings name and the daemon reads once, at its start: which of them are others by now.

A password that was changed: the running daemon goes on with the old one, and at a reload its operator should hear
so. What systemd handed over as a credential stays as it was until the next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..small_file import Mark, mark
from .changes import values
from .source import SECRETS
from .tree import Settings

READ_ONCE = (*sorted(key for key in SECRETS if ".tls." not in key), "upstream.ca", "model.chat_template")
"""Their keys. Not the model: one that could not be loaded is tried again when its file has changed. Nor the
certificates for MQTT and HTTP, see `edged.renewal`."""

Marks = Mapping[str, Mark]
"""By key."""


def marks(settings: Settings) -> Marks:
    """The files as they are now; those that are not set are left out."""
    named = values(settings)
    return {key: mark(path) for key in READ_ONCE if isinstance(path := named[key], Path)}


def others(before: Marks, now: Marks) -> list[str]:
    """Keys of the files that are set now as before, and have changed or gone."""
    return [key for key, mark in now.items() if key in before and mark != before[key]]
