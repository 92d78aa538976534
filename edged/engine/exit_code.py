"""How a process of the engine ended, in words. Pure."""

from __future__ import annotations

import signal

CODE_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE})
"""What a process gets for what its own code does; nobody sends these from outside."""


def words(code: int) -> str:
    """Name of an exit code as `subprocess` gives it: `exit code 3`, `SIGSEGV`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def advice(code: int) -> str:
    """Where to look when it ended so before it was ready, as the rest of a sentence, or ""."""
    if -code == signal.SIGILL:
        return ": this build of llama.cpp is for another processor; `edged doctor` says how to get another"
    if -code in CODE_SIGNALS:
        return " while the model loaded: see `edged doctor` about the file and this build of llama.cpp"
    return ""
