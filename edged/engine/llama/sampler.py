"""How one sequence chooses its tokens. Belongs to the model thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.core.question import TOP_K

from .bindings import C
from .context import Context
from .model import Token

if TYPE_CHECKING:
    from .logits import Floats

GREEDY_BELOW = 1e-6
"""A lower temperature is none: only tokens that are as likely as each other could still change places, and below
1e-37 llama.cpp's logits become infinite, of which it draws any."""


class Sampler:
    """How one sequence chooses its tokens.

    Args:
        context: whose logits it reads.
        temperature: 0, and what is next to it, takes the most likely token, always; else at most 2.
        top_p: nucleus, above 0 and at most 1.
        seed: makes a run repeatable on one machine.
    """

    def __init__(self, context: Context, *, temperature: float, top_p: float, seed: int) -> None:
        self._context = context
        self._vocabulary = context.vocabulary
        self._greedy = temperature < GREEDY_BELOW
        self._chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        if self._greedy:
            return
        C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_top_k(TOP_K))
        if top_p < 1:
            C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_top_p(top_p, 1))
        C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_temp(temperature))
        C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_dist(seed))

    def choose(self, row: int) -> Token:
        """The next token, from the logits of `row` of the last forward pass."""
        if self._greedy:
            from .logits import likeliest  # noqa: PLC0415 - numpy

            return likeliest(self._logits(row), self._vocabulary)
        return int(C.llama_sampler_sample(self._chain, self._context.pointer, self._context.first_row + row))

    def choose_among(self, row: int, mask: bytes) -> Token:
        """The next token among those whose bit is set in `mask`, lowest bit of the first byte first.

        The masked logits stay masked: call it after `choose` has been tried. Both together draw from the
        model's distribution restricted to the mask, as rejection sampling does.
        """
        from .logits import restrict  # noqa: PLC0415 - numpy

        restrict(self._logits(row), self._vocabulary, mask)
        return self.choose(row)

    def _logits(self, row: int) -> Floats:
        logits: Floats = C.llama_get_logits_ith(self._context.pointer, self._context.first_row + row)
        return logits

    def close(self) -> None:
        """Free the chain."""
        C.llama_sampler_free(self._chain)
