"""What is told of a model that cannot be loaded."""

from __future__ import annotations

import pytest

from edged.engine.loading import why

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
