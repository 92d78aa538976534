"""Single keys from a terminal, without waiting for the line to end. No command."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

NAMED = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1a": "suspend",
}
"""Bytes of keys that are no letters (ECMA-48 cursor keys, plain and in application mode; Ctrl-Z)."""

ARROW_BYTES = 3


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """The terminal hands over each key at once and shows none; put back at the end, whatever happens.

    Ctrl-Z is a key as well: who is stopped by it leaves the terminal as it was for the shell.
    """
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        ours = termios.tcgetattr(sys.stdin)
        ours[6][termios.VSUSP] = os.fpathconf(sys.stdin.fileno(), "PC_VDISABLE").to_bytes()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, ours)
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
    return NAMED.get(data, data.decode("utf-8", "replace")[:1])
