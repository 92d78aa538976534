"""Where a JSON text stands in a number, and whether that number has digits enough. Pure.

JSON bounds no number, and a small model that has begun to write digits may go on until its tokens are spent: every
fifth answer with two plain integers ended so. A 64-bit integer has no more digits than these, a float fewer.
"""

from __future__ import annotations

DIGITS_MAX = 19
"""In front of the point, and behind it."""
EXPONENT_MAX = 2
"""Behind the `e`; with three a number may be beyond all floats."""
_QUOTE, _BACKSLASH = b'"\\'
_ZERO, _NINE = b"09"


class Numerals:
    """Follows one JSON text; any other text may stand before it, if its quotation marks come in pairs."""

    def __init__(self) -> None:
        self._quoted = self._escaped = False
        self._digits = 0
        self._most = DIGITS_MAX

    @property
    def full(self) -> bool:
        """Whether the text ends in a number that has digits enough here."""
        return self._digits >= self._most

    def feed(self, data: bytes) -> None:
        """The text goes on."""
        for byte in data:
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._quoted, self._escaped = byte != _QUOTE, byte == _BACKSLASH
            elif _ZERO <= byte <= _NINE:
                self._digits += 1
            else:
                self._digits = 0
                self._quoted = byte == _QUOTE
                if byte not in b"+-":
                    self._most = EXPONENT_MAX if byte in b"eE" else DIGITS_MAX
