"""Rows of a pass, and where idle ones can go. Pure; whether they shall is `core.padding`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Row:
    """Put `token` at `position` of a sequence, and compute its logits or not."""

    token: int
    position: int
    sequence: int
    logits: bool


def idle_rows(
    rows: Sequence[Row], count: int, *, sequences: int, room: int, end: Callable[[int], int]
) -> tuple[list[Row], list[Row]]:
    """Idle rows that llama.cpp computes together with `rows`, which see nothing of them.

    Rows of one sequence are followed by idle ones of it. Rows of sequences side by side get neighbours on either
    side, or each is followed by one: llama.cpp computes together what has as many rows in each sequence, and whose
    sequences follow each other (`llama_batch_allocr::split_equal`).

    Args:
        rows: of one pass, at least one.
        count: of idle rows.
        sequences: how many there are.
        room: tokens that each can hold.
        end: the position behind a sequence's last token.

    Returns:
        What comes before and after the rows; both empty where there is no room, or the rows are computed in parts.
    """
    first, last = rows[0], rows[-1]
    if first.sequence == last.sequence:
        fits = last.position + count < room
        return [], [replace(last, position=last.position + 1 + n) for n in range(count)] if fits else []
    if [row.sequence for row in rows] != list(range(first.sequence, last.sequence + 1)):
        return [], []
    above = list(range(last.sequence + 1, sequences))[:count]
    below = list(range(first.sequence))[first.sequence - (count - len(above)) :] if len(above) < count else []
    free = {sequence: end(sequence) for sequence in below + above}
    if len(free) == count and max(free.values()) < room:
        before, after = (
            [replace(first, sequence=sequence, position=free[sequence]) for sequence in each]
            for each in (below, above)
        )
        return before, after
    if count == len(rows) and max(row.position for row in rows) + 1 < room:
        return [], [replace(row, position=row.position + 1) for row in rows]
    return [], []
