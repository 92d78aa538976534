"""Text that arrives in pieces, broken at words and set in by two columns, as it comes. Main thread."""

from __future__ import annotations

import re

from rich.console import Console
from rich.text import Text

WIDTH_MAX = 88
_WORDS = re.compile(r"\n|[^\S\n]+|\S+")


class Flow:
    """Prints pieces; a word is held back until its end is known.

    Args:
        console: where to; wrapped on a terminal, and as it is elsewhere.
        margin: columns left free on the left.
    """

    def __init__(self, console: Console, margin: int = 2) -> None:
        self._console = console
        self._margin = " " * margin
        self._width = min(console.width, WIDTH_MAX) - 2 * margin if console.is_terminal else 1_000_000
        self._column = 0
        self._word = ""
        self._style = ""

    def put(self, piece: str, style: str = "") -> None:
        """Print a piece, all but its last word."""
        if style != self._style and self._word:
            self._set(self._word)
            self._word = ""
        self._style = style
        parts = _WORDS.findall(self._word + piece)
        self._word = parts.pop() if parts and not parts[-1].isspace() else ""
        for part in parts:
            self._set(part)

    def end(self) -> None:
        """Print what is left, and end the line."""
        self._set(self._word)
        self._word = ""
        if self._column:
            self._line()

    def _set(self, part: str) -> None:
        if part == "\n":
            self._line()
        elif part.isspace():
            if 0 < self._column < self._width:
                self._print(" ")
        elif part:
            if self._column and self._column + len(part) > self._width:
                self._line()
            self._print(part)

    def _print(self, text: str) -> None:
        shown = text if self._column else self._margin + text
        self._console.print(Text(shown, style=self._style), end="", soft_wrap=True)
        self._console.file.flush()
        self._column += len(text)

    def _line(self) -> None:
        self._console.print()
        self._column = 0
