"""A vocabulary as llguidance wants it. Imported when the first schema comes, see `edged.engine.constraint`."""

from __future__ import annotations

import ctypes

from llguidance import LLTokenizer

from .bindings import C, give_back
from .model import Model

SLICES = [r'[^"\\\x00-\x1F\x7F]{1,30}']
"""What strings in JSON are made of, for which llguidance keeps the tokens that fit. Each of its own three costs
about 9 MB of tables with 152k tokens, 3 with 49k. With this one alone a mask takes as long as with two; without
any, up to 3 ms where 0.5 were the most (ten schemas, 152k tokens, x86)."""


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
