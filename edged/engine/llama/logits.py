"""What is done to the logits of one row. Imported with the first greedy answer or schema: numpy holds 13 MB.

numpy finds the largest of a vocabulary where it stands, 20 us of 49k numbers and 80 of 152k; a sampler of
llama.cpp's copies them into a list of candidates first, 75 and 280 us (x86, a token and sequence). The same token
comes out.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    Floats = ctypes._Pointer[ctypes.c_float]  # noqa: SLF001 - typeshed's name of what POINTER makes

Logits = np.ndarray[tuple[int], np.dtype[np.float32]]


def likeliest(pointer: Floats, count: int) -> int:
    """The token with the largest logit; the first of several.

    Args:
        pointer: C's, to `count` floats.
        count: tokens of the vocabulary.
    """
    return int(_view(pointer, count).argmax())


def restrict(pointer: Floats, count: int, allowed: bytes) -> None:
    """Leave only the tokens whose bit is set, lowest bit of the first byte first; the others become impossible.

    Args:
        pointer: C's, to `count` floats.
        count: tokens of the vocabulary.
        allowed: at least `count` bits.
    """
    bits = np.unpackbits(np.frombuffer(allowed, dtype=np.uint8), count=count, bitorder="little")
    _view(pointer, count)[bits == 0] = -np.inf


def _view(pointer: Floats, count: int) -> Logits:
    return np.ctypeslib.as_array(pointer, shape=(count,))
