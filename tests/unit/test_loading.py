"""What is told of a model that cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.engine.loading import name_of, why

NO_ROOM = "alloc_tensor_range: failed to allocate Vulkan0 buffer of size 89941248"


@pytest.mark.parametrize(
    ("complaints", "layers", "words"),
    [
        ([], 0, ""),
        ([], 99, ""),
        (["invalid magic"], 99, " (llama.cpp: invalid magic)"),
        ([NO_ROOM], 0, f" (llama.cpp: {NO_ROOM})"),
        ([NO_ROOM], 99, f" (llama.cpp: {NO_ROOM}); where that is the GPU's memory, lower engine.gpu_layers"),
    ],
)
def test_a_gpu_without_room(complaints: list[str], layers: int, words: str) -> None:
    """Where a GPU's memory may be what was short, its setting is named beside what llama.cpp said."""
    assert why(complaints, layers) == words


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("R1 Distill", "R1 Distill"),
        ("", "m"),
        (" ", "m"),
        ("a" * 10**6, "a" * 128),
        ("\x1b[2Jm\n", "\ufffd[2Jm"),
    ],
)
def test_the_name_of_a_strange_file(written: str, name: str) -> None:
    """It stands in each answer and on terminals: a long one made all of them larger than a broker takes."""
    assert name_of({"general.name": written}, Path("/models/m.gguf")) == name
    assert name_of({}, Path("/models/m.gguf")) == "m"
