"""The program's own files: an update in place (`git pull`, pip) changes them while the daemon runs. Any thread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import edged
from edged.small_file import Mark, mark


def marks() -> Mapping[Path, Mark]:
    """Every source file of edged, as it is now: a few hundred stat calls."""
    return {path: mark(path) for path in Path(edged.__file__).parent.rglob("*.py")}


def updated(before: Mapping[Path, Mark]) -> bool:
    """Whether one of the files is another one by now. It needs no file descriptor, of which none may be left.

    One that cannot be seen tells nothing, for the disk may fail; an update changes others beside those that go.
    """
    return any((now := mark(path)) is not None and now != was for path, was in before.items())
