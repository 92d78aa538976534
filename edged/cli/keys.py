"""Single keys from a terminal, without waiting for the line to end. No command."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

ARROWS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\r": "enter",
    b"\n": "enter",
}
"""Bytes of keys that are no letters (ECMA-48 cursor keys, plain and in application mode)."""

ARROW_BYTES = 3


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """The terminal hands over each key at once and shows none; put back at the end, whatever happens."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def key_within(timeout_s: float) -> str | None:
    """The next key, by name or as its letter; None when none comes in time."""
    if not select.select([sys.stdin], [], [], timeout_s)[0]:
        return None
    data = os.read(sys.stdin.fileno(), 1)
    # An arrow is three bytes that come at once; keys that were typed ahead stay for the next call.
    while data[:1] == b"\x1b" and len(data) < ARROW_BYTES and select.select([sys.stdin], [], [], 0.02)[0]:
        data += os.read(sys.stdin.fileno(), 1)
    return ARROWS.get(data, data.decode("utf-8", "replace")[:1])
