"""Which rows the next forward pass holds. Pure.

Decoding is bound by reading the weights once a pass, so every running sequence rides along with its one row;
prompts fill what is left. While answers are running, prompts are read in chunks small enough that those
answers keep at least half of their speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CHUNK_MIN = 16
"""Smaller chunks than this waste the pass: Q4_0's matrix kernels work on several rows at once."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one sequence wants of the next pass.

    Attributes:
        slot: which sequence.
        rows: tokens that wait to be put into its cache, at least 1.
        reading: True while the prompt is being read; False when the answer is being written.
    """

    slot: int
    rows: int
    reading: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What one sequence gets of the next pass: its next `rows` tokens, at least 1."""

    slot: int
    rows: int


def plan(needs: Sequence[Need], *, batch_tokens: int, chunk: int) -> list[Share]:
    """Choose the rows of the next pass.

    Args:
        needs: in order of admission: earlier prompts are read first.
        batch_tokens: rows that a pass can hold; at least the number of sequences.
        chunk: rows of prompts while answers are running, see `chunk_rows`.

    Returns:
        Shares with `rows` summing to at most `batch_tokens`; every writing sequence is in it.
    """
    shares = [Share(need.slot, 1) for need in needs if not need.reading]
    room = batch_tokens - len(shares)
    if shares:
        room = min(room, chunk)
    for need in needs:
        if need.reading and room > 0:
            rows = min(need.rows, room)
            shares.append(Share(need.slot, rows))
            room -= rows
    return shares


def closing_up(running: Sequence[bool], tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Which streams to exchange so that the running ones stand side by side.

    llama.cpp computes rows of several streams together only where the numbers of the streams follow each other
    (`llama_batch_allocr::split_equal`); each gap costs another reading of the weights: four answers in streams 0,
    2, 4 and 6 take 1.5 to 1.75 times as long as in 0 to 3 (`tests/bench/streams.py`).

    Args:
        running: of each stream, whether an answer is running in it.
        tokens: of each stream, what it holds: what an exchange has to move.

    Returns:
        Pairs of a running and an idle stream: as few tokens as possible move; empty where all is well.
    """
    at = [number for number, runs in enumerate(running) if runs]
    if all(after == before + 1 for before, after in pairwise(at)):
        return []
    ways = []
    for start in range(len(running) - len(at) + 1):
        window = range(start, start + len(at))
        outside = [number for number in at if number not in window]
        inside = [number for number in window if not running[number]]
        ways.append(list(zip(outside, inside, strict=True)))
    return min(ways, key=lambda pairs: sum(tokens[one] + tokens[other] for one, other in pairs))


def chunk_rows(step_s: float, read_s: float, *, batch_tokens: int) -> int:
    """Rows of prompt that may ride along without halving the speed of running answers.

    Args:
        step_s: measured time of a pass that only writes.
        read_s: measured time to read one token of a prompt.
        batch_tokens: upper bound.
    """
    if step_s <= 0 or read_s <= 0:
        return min(CHUNK_MIN, batch_tokens)
    return max(min(CHUNK_MIN, batch_tokens), int(min(batch_tokens, step_s / read_s)))
