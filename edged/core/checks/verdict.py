"""A verdict, and what many of them come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

State = Literal["ok", "unknown", "warning", "failure"]
STATES: tuple[State, ...] = get_args(State)
"""From good to bad; `unknown` could not be looked at, and is no fault."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one matter.

    Attributes:
        name: the matter, a word or two.
        words: what was found, in one line.
        mend: a command, or what to change; None where nothing is wrong or nothing can be done.
    """

    name: str
    state: State
    words: str
    mend: str | None = None


def ok(name: str, words: str) -> Verdict:
    """All is well."""
    return Verdict(name, "ok", words)


def unknown(name: str, words: str) -> Verdict:
    """It cannot be told here."""
    return Verdict(name, "unknown", words)


def warning(name: str, words: str, mend: str | None = None) -> Verdict:
    """It works, but not as well as it could, or not for long."""
    return Verdict(name, "warning", words, mend)


def failure(name: str, words: str, mend: str | None = None) -> Verdict:
    """It does not work."""
    return Verdict(name, "failure", words, mend)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """For scripts: 0 all well, 1 warnings, 2 failures."""
    worst = max((STATES.index(verdict.state) for verdict in verdicts), default=0)
    return max(0, worst - 1)
