"""How an engine that ended is spoken of."""

from __future__ import annotations

import signal

import pytest

from edged.engine import exit_code


@pytest.mark.parametrize(
    ("code", "words", "advice"),
    [
        (3, "exit code 3", ""),
        (-signal.SIGKILL, "SIGKILL", ""),
        (-signal.SIGILL, "SIGILL", "another processor"),
        (-signal.SIGSEGV, "SIGSEGV", "the file and this build"),
        (-250, "signal 250", ""),
    ],
)
def test_words(code: int, words: str, advice: str) -> None:
    """A signal has its name; one that the code itself earned says where to look."""
    assert exit_code.words(code) == words
    found = exit_code.advice(code)
    assert advice in found
    assert bool(found) == bool(advice) == ("edged doctor" in found)
