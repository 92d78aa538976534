"""Verdicts on one screen: a sign, the matter, what was found, and below it what mends it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from edged.core.checks.verdict import State, Verdict, exit_code

SIGNS: dict[State, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "unknown": ("·", ".", "dim"),
    "warning": ("!", "!", "yellow"),
    "failure": ("✗", "x", "bold red"),
}
"""Of each state its sign, the same in ASCII, and its style."""


def table(verdicts: Sequence[Verdict], *, ascii_only: bool = False) -> Table:
    """All verdicts; long ones are folded, so that 80 columns are enough and 60 will do."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    last = ""
    for verdict in verdicts:
        *signs, style = SIGNS[verdict.state]
        words = Text(verdict.words, style="dim" if verdict.state == "unknown" else "")
        if verdict.mend is not None and verdict.state in {"warning", "failure"}:
            words.append(f"\n-> {verdict.mend}", style="cyan")
        name = verdict.name if verdict.name != last else ""
        grid.add_row(Text(signs[ascii_only], style=style), Text(name, style="bold"), words)
        last = verdict.name
    return grid


def summary(verdicts: Sequence[Verdict]) -> Text:
    """The last line."""
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in SIGNS}
    parts = [
        _count(counts["failure"], "failure"),
        _count(counts["warning"], "warning"),
        f"{counts['ok']} ok",
    ]
    style = ("green", "yellow", "bold red")[exit_code(verdicts)]
    return Text(", ".join(part for part in parts if part), style=style)


def as_json(verdicts: Sequence[Verdict], board: dict[str, Any]) -> dict[str, Any]:
    """The same for programs; `state` over all is the worst one."""
    return {
        "state": ("ok", "warning", "failure")[exit_code(verdicts)],
        "checks": [
            {"name": one.name, "state": one.state, "words": one.words}
            | ({} if one.mend is None else {"mend": one.mend})
            for one in verdicts
        ],
        "board": board,
    }


def _count(number: int, word: str) -> str:
    return "" if number == 0 else f"{number} {word}{'s' if number != 1 else ''}"
