"""A vocabulary as llguidance wants it. Imported when the first schema comes, see `edged.engine.constraint`."""

from __future__ import annotations

import ctypes

from llguidance import LLTokenizer

from .bindings import C, give_back
from .model import Model

SLICES = [r'[^"\\\x00-\x1F\x7F]{1,30}', r'[^"\\\x00-\x1F\x7F]+']
"""What strings in JSON are made of, for which llguidance keeps the tokens that fit. Of its own three the one for at
most ten characters is left out: of 51 MiB of tables for 152k tokens that takes 18, of 16 for 49k 6, and the masks
within an answer of 43 tokens take 5 ms in all instead of 3, were all of them asked for (x86)."""


def grammar_tables(model: Model) -> LLTokenizer:
    """Tables of the vocabulary; how long it takes, and how large they are, tells `tests/bench/memory.py`.

    What llguidance's own `lltokenizer_from_vocab` does (1.9.1), without a call that llama_cpp has deprecated.
    """
    tokens = range(model.vocabulary)
    pieces = list(map(model.read_piece, tokens))
    for token in filter(model.is_special, tokens):
        # A leading 0xff makes it a special token there: no schema's text matches it.
        pieces[token] = b"\xff" + pieces[token]
    tables = LLTokenizer.from_llamacpp(
        tokens=pieces,
        vocab_ptr=model.vocabulary_pointer,
        tokenize_fptr=ctypes.cast(C._lib.llama_tokenize, ctypes.c_void_p).value,  # noqa: SLF001
        eos_token=list(filter(model.ends_answer, tokens)),
        slices=SLICES,
    )
    del pieces
    give_back()
    return tables
