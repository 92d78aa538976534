"""What llama.cpp says after some tokens, without a scheduler around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edged.engine import llama
from edged.engine.llama.bindings import C


def logits(context: llama.Context, stream: int, tokens: list[int], start: int) -> npt.NDArray[Any]:
    """Compute tokens from a position on; returns what may follow the last."""
    row = 0
    for at, token in enumerate(tokens, start):
        row = context.add(token, at, stream, logits=at == start + len(tokens) - 1)
    assert context.decode(1) == 0
    pointer = C.llama_get_logits_ith(context.pointer, row)
    return np.ctypeslib.as_array(pointer, shape=(context.vocabulary,)).copy()
