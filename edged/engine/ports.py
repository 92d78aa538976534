"""What the scheduler needs of a model, as structural types: llama.cpp fulfils them, and so can a script."""

from __future__ import annotations

from typing import Protocol

ABORTED = 2
"""What `Passes.decode` returns where `stop_pass` stopped it: llama_decode's value (llama.h)."""


class Tokenize(Protocol):
    """Text to tokens."""

    def __call__(self, text: str, *, special: bool, first: bool = False) -> list[int]:
        """Tokens of a text; `special`: control tokens may come out of it; `first`: it follows one, or nothing."""


class Vocabulary(Protocol):
    """Text to tokens and back; `edged.engine.llama.Model` tells the details."""

    def tokenize(self, text: str, *, special: bool, first: bool = False) -> list[int]:
        """Tokens of a text."""

    def piece(self, token: int) -> bytes:
        """Bytes of a token."""

    def ends_answer(self, token: int) -> bool:
        """Whether the model says that it is finished."""

    def is_control(self, token: int) -> bool:
        """Whether the token has no text to show."""

    def is_special(self, token: int) -> bool:
        """Whether the token is no text, or a tag such as `<tool_call>`."""

    @property
    def begin(self) -> int | None:
        """Token that must stand first."""


class Passes(Protocol):
    """KV cache and forward passes; `edged.engine.llama.Context` tells the details."""

    batch_tokens: int
    cuts: bool
    """Whether `forget` can take out again what the last pass put in."""

    @property
    def rewinds(self) -> bool:
        """Whether `forget` can go back at all: a recurrent layer has one state, of all tokens so far."""

    def add(self, token: int, position: int, sequence: int, *, logits: bool) -> int:
        """Append a row to the next pass."""

    def decode(self, threads: int) -> int:
        """Run the pass."""

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop tokens from `start` on; False where the model cannot, then the sequence is empty."""

    def copy(self, source: int, target: int) -> None:
        """Copy a whole sequence."""

    def save(self, sequence: int) -> bytearray:
        """What the cache holds of a sequence, as bytes for `load`."""

    def load(self, sequence: int, data: bytearray) -> bool:
        """Put saved bytes into a sequence in place of what it holds; False leaves it empty."""

    def least(self, loaded: int) -> int:
        """Of a state that was loaded with so many tokens, how many must stay; 0 where it can be cut anywhere."""

    def stop_pass(self, stop: bool = True) -> None:  # noqa: FBT001, FBT002 - a flag is what it is
        """Abort the running pass."""


class Chooser(Protocol):
    """One sequence's choice of tokens; `edged.engine.llama.Sampler` tells the details."""

    def choose(self, row: int) -> int:
        """The next token, from the logits of a row."""

    def choose_among(self, row: int, mask: bytes) -> int:
        """The next token among those whose bit is set in `mask`, lowest bit of the first byte first."""

    def close(self) -> None:
        """Free it."""


class MakeChooser(Protocol):
    """Makes the `Chooser` of one sequence."""

    def __call__(self, *, temperature: float, top_p: float, seed: int) -> Chooser:
        """Numbers as in the contract's question."""
