"""Rows of a pass, and where idle ones can go. Pure; whether they shall is `core.padding`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

CELLS = 256
"""Cells by which llama.cpp lengthens what a pass looks over (`n_pad`, llama-kv-cache.cpp). With more than so many
it attends to a lone row of a sequence in another order than to two, and rounds otherwise (`nek1 >= 512` in
ggml-cpu/ops.cpp): a text shall not hang on how fast passes were."""


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
    side that hold no more than they do, or each is followed by one: llama.cpp computes together what has as many
    rows in each sequence, and whose sequences follow each other (`llama_batch_allocr::split_equal`); each row then
    looks over as many cells as the longest holds, in steps of 256 (`get_n_kv`).

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
    longest = max(row.position for row in rows) + 1
    limit = min(room, -(-longest // CELLS) * CELLS)

    def neighbours(candidates: Iterable[int], most: int) -> list[Row]:
        found = []
        for sequence in islice(candidates, most):
            if (position := end(sequence)) >= limit:
                break
            found.append(replace(first, sequence=sequence, position=position))
        return found

    after = neighbours(range(last.sequence + 1, sequences), count)
    before = neighbours(range(first.sequence - 1, -1, -1), count - len(after))[::-1]
    if len(before) + len(after) == count:
        return before, after
    if count == len(rows) and longest < min(room, CELLS):
        return [], [replace(row, position=row.position + 1) for row in rows]
    return [], []
