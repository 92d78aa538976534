"""Texts to tokens, each text once: what a template writes, a system prompt and a session's turns come again.

Belongs to the intake thread. A message is tokenized apart from its neighbours, see `chat`, so that its tokens are
the same wherever it stands.
"""

from __future__ import annotations

import array
from collections import OrderedDict

from edged.engine.ports import Vocabulary

TEXT_CHARACTERS_MAX = 16_384
"""Longer texts are not kept: some 4,000 tokens, more than most contexts hold."""
CHARACTERS_MAX = 262_144
"""Of all texts that are kept; with their tokens they take 2 MB at most."""


class Tokenizer:
    """Tokens of texts, with the last ones kept.

    Args:
        vocabulary: the model's.
        characters_max: of the texts that are kept, together; the one used longest ago goes first.
    """

    def __init__(self, vocabulary: Vocabulary, characters_max: int = CHARACTERS_MAX) -> None:
        self._vocabulary = vocabulary
        self._room = characters_max
        self._kept: OrderedDict[tuple[str, bool], array.array[int]] = OrderedDict()

    def __call__(self, text: str, special: bool) -> list[int]:  # noqa: FBT001 - the shape `to_tokens` asks for
        """Tokens of a text; `special` lets control tokens come out of it, see `llama.Model.tokenize`."""
        key = text, special
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
            return list(known)
        tokens = self._vocabulary.tokenize(text, special=special)
        if len(text) <= TEXT_CHARACTERS_MAX:
            self._kept[key] = array.array("i", tokens)
            self._room -= len(text)
            while self._room < 0:
                (oldest, _), _ = self._kept.popitem(last=False)
                self._room += len(oldest)
        return tokens

    def forget(self) -> None:
        """Keep none of the texts so far."""
        self._room += sum(len(text) for text, _ in self._kept)
        self._kept.clear()
