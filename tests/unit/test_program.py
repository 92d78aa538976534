"""The program's own files, and when they count as another version's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from edged.adapters import program
from edged.small_file import mark


def test_what_an_update_is(tmp_path: Path) -> None:
    """Another file in the place of one. None that cannot be seen, and neither is one that nobody knew before."""
    kept, gone = tmp_path / "kept.py", tmp_path / "gone.py"
    kept.write_text("a")
    gone.write_text("b")
    before = {path: mark(path) for path in (kept, gone)}
    (tmp_path / "new.py").write_text("c")
    gone.unlink()
    assert not program.updated(before)
    kept.write_text("other")
    assert program.updated(before)


def test_without_a_file_descriptor() -> None:
    """Whoever has none left is told all the same: the engine's death came with that, and the daemon outlives it."""
    before = program.marks()
    assert len(before) > 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        assert not program.updated(before)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
