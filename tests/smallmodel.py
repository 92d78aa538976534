"""The small model of the tests: SmolLM2-135M-Instruct in Q4_0, the one the demo uses, made once and cached.

Loaded as a plug-in by conftest.py, which also gives the marker `model` to every test that uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edged.demo_model import ensure_demo_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small_model() -> Path:
    """Path of the Q4_0 file; the first time it is downloaded, afterwards no network is needed."""
    return ensure_demo_model()
