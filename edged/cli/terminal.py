"""What commands owe a terminal: an end that puts it in order, and no text that turns it upside down."""

import signal
import sys
import unicodedata

TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Classes of the characters that set the direction of others (Unicode Standard Annex 9)."""


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP (a script's timeout, a terminal that is gone) take back what is asked.

    But for one that whoever started us has us ignore, as nohup(1) does.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda got, _: sys.exit(128 + got))


def printable(text: str) -> str:
    """Text without control characters but newline and tab: a model's words must not steer a terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def one_line(text: str) -> str:
    """Text without control characters on one line, in its own place: a name must not look like another node's line.

    Nothing in it turns the writing direction, and with it what stands beside.
    """
    kept = (c for c in text if unicodedata.bidirectional(c) not in TURNING)
    return printable("".join(" " if c.isspace() else c for c in kept))
