"""Has a model file made into Q4_0, in a process of its own: llama.cpp may abort on a broken one. Caller's thread.

What is done there is `edged.engine.quantize`'s; it is started by its name, never imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edged.errors import ModelError


def quantise(source: Path, made: Path) -> None:
    """Make `made` of `source`; it is there whole afterwards, or not at all.

    Raises:
        ModelError: in the process's own words.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "edged.engine.quantize", str(source), str(made)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines()
        raise ModelError(said[-1] if said else f"quantising ended with {ended.returncode}")
