"""Texts to tokens, each text once: what a template writes, a system prompt and a session's turns come again.

Belongs to the intake thread. A message is tokenized apart from its neighbours, see `chat`, so that its tokens are
the same wherever it stands.
"""

from __future__ import annotations

import array
import sys
from collections import OrderedDict

from edged.engine.ports import Vocabulary

TEXT_CHARACTERS_MAX = 16_384
"""Longer texts are not kept: some 4,000 tokens, more than most contexts hold."""
BYTES_MAX = 2 * 2**20
"""Of all texts that are kept, with their tokens."""
KEEPING_BYTES = 288
"""What keeping a text takes beside it, of which a device's two or three words are a small part."""


class Tokenizer:
    """Tokens of texts, with the last ones kept.

    Args:
        vocabulary: the model's.
        bytes_max: of what is kept, together; the text used longest ago goes first.
    """

    def __init__(self, vocabulary: Vocabulary, bytes_max: int = BYTES_MAX) -> None:
        self._vocabulary = vocabulary
        self._room = bytes_max
        self._kept: OrderedDict[tuple[str, bool, bool], array.array[int]] = OrderedDict()

    def __call__(self, text: str, *, special: bool, first: bool = False) -> list[int]:
        """Tokens of a text; `special` and `first` as for `llama.Model.tokenize`."""
        key = text, special, first
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
            return list(known)
        tokens = self._vocabulary.tokenize(text, special=special, first=first)
        if len(text) <= TEXT_CHARACTERS_MAX:
            self._kept[key] = kept = array.array("i", tokens)
            self._room -= size_of(text, kept)
            while self._room < 0:
                (oldest, *_), gone = self._kept.popitem(last=False)
                self._room += size_of(oldest, gone)
        return tokens

    def forget(self) -> None:
        """Keep none of the texts so far."""
        self._room += sum(size_of(text, tokens) for (text, *_), tokens in self._kept.items())
        self._kept.clear()


def size_of(text: str, tokens: array.array[int]) -> int:
    """Bytes that a text takes that is kept."""
    return sys.getsizeof(text) + len(tokens) * tokens.itemsize + KEEPING_BYTES
