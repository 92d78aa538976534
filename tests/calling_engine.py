"""`python -m calling_engine FD`: an engine process whose model calls tools, over and over.

All of `edged.engine` runs as it is, llguidance included; a token is a byte. The model counts: to a number N (the
last one of the last user's text) it calls `calculate` with `N+1`. From 0 it stops at 3 and says so; from 1000 on it
would go on for ever, and writes the next call even where none is allowed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from llguidance import LLTokenizer, TokenizerWrapper
from scripted import ASSISTANT, END, ByteVocabulary, ScriptedModel, Story, preparation

from edged.core.batching import ROWS_MAX
from edged.core.tools import Call
from edged.engine.calls import OURS
from edged.engine.constraint import Constraints
from edged.engine.messages import Configure, ModelInfo
from edged.engine.process import LoadedModel, run

GOAL, ENDLESS = 3, 1000


def script(asked: bytes) -> Story:
    """One number more, by the tool; or the answer."""
    number = int((re.findall(rb"\d{1,9}", asked) or [b"0"])[-1])
    if GOAL <= number < ENDLESS:
        return Story(f"It is {number}.".encode())
    return Story(OURS.write([Call("", "calculate", f'{{"expression": "{number}+1"}}')]).encode())


def tables() -> LLTokenizer:
    """The vocabulary as llguidance wants it."""
    vocabulary = ByteVocabulary()
    specials = range(256, ASSISTANT + 1)
    words = [bytes([byte]) for byte in range(256)] + [vocabulary.piece(token) for token in specials]
    wrapped = TokenizerWrapper(
        _Bytes(eos_token_id=END, bos_token_id=None, tokens=words, special_token_ids=list(specials))
    )
    return LLTokenizer(wrapped)


class CountingModel(ScriptedModel):
    """The model; what is no conversation, as the warm-up, it goes on with anything."""

    def next_token(self, tokens: Sequence[int]) -> int:
        """What it says after these tokens; the end, where a schema has drawn the answer on beyond its story."""
        if ASSISTANT not in tokens:
            return ord("a")
        try:
            return super().next_token(tokens)
        except IndexError:
            return END


class _Bytes(SimpleNamespace):
    def __call__(self, text: bytes) -> list[int]:
        """Tokens of a text."""
        return list(text)


def load(setup: Configure, log: Callable[[str, str], None]) -> LoadedModel:
    """The counting model, for any file."""
    log("info", "counting model")
    rows = setup.batch_tokens or ROWS_MAX
    model = CountingModel(script, streams=setup.slots, context=setup.context, batch_tokens=rows)
    info = ModelInfo(
        name="counting",
        architecture="script",
        quantisation="none",
        file_bytes=0,
        parameters=0,
        context_trained=setup.context,
        sha256=None,
        reasoning=False,
        kv_bytes_per_token=0,
    )
    prepared = preparation(model, make_constraints=lambda: Constraints(tables()))
    return LoadedModel(model.vocabulary, model.passes, model.make_chooser, prepared, info)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), load))
