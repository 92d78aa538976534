"""Whether a pass is over sooner with idle rows in it, learned from the passes themselves. Pure.

llama.cpp's kernels for repacked Q4_0 take four rows at once, and each that is left over alone: on x86 three rows of
the 1.5B shape take 1.35 times as long as four (`tests/bench/padding.py`). How that is on another processor, with
another quantisation or on a GPU nobody needs to know beforehand: passes are run both ways in turn, and the faster
way is kept.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

GROUP = 4
"""Rows that the kernels take at once (`forward_mul_mat_one_chunk`, ggml-cpu/repack.cpp)."""
LEFT_OVER_MIN = 2
"""One row left over costs no more than a group."""
ROWS_MAX = 32
"""Beyond it a group is a small share of the pass; and from 64 rows on llama.cpp attends in blocks and rounds
otherwise, which shall not hang on how fast passes were (`ggml_fa_tile_config`, ggml-cpu/common.h)."""
ALIKE_ABOVE = 16
"""Above it what is left over beyond the groups decides, in however many: the rest of a prompt rarely has the same
length ten times, and each pass of a trial that goes the wrong way makes a device wait: 1.16 times as long of 18
tokens behind 600 on one x86 machine (SmolLM2, `tests/bench/padding.py --depth 600`)."""
TRIALS = 5
"""Passes of each kind before it is decided. They take turns, so that heat and neighbours meet both."""
TRIALS_MIN, PLAINLY = 3, 1.15
"""So many are enough where the slowest of one kind is faster by that factor than the fastest of the other. Two
answers behind 600 tokens took 1.57 times as long with idle rows (SmolLM2, as above); each trial is waited for."""
GAIN_MIN = 0.05
"""Share of a pass that idle rows must save."""
AGAIN_AFTER = 2_000
"""Passes for which a decision holds: clocks change, and prompts grow."""


@dataclass(slots=True)
class Trial:
    """What is known of passes of one number of rows, or of numbers that are tried together: seconds a group."""

    plain_s: list[float] = field(default_factory=list)
    padded_s: list[float] = field(default_factory=list)
    pays: bool | None = None
    passes: int = 0


def missing(rows: int) -> int:
    """How many idle rows may make a pass of `rows` faster: 0, 1 or 2."""
    lacking = -rows % GROUP
    return lacking if lacking <= GROUP - LEFT_OVER_MIN and rows <= ROWS_MAX else 0


class Padding:
    """Decides for each pass that could have idle rows, and learns from it."""

    def __init__(self) -> None:
        self._trials: dict[tuple[int, int], Trial] = {}

    def pays(self, rows: int, threads: int) -> bool:
        """Whether to give the next pass of `rows` by `threads` idle ones."""
        trial = self._trials.setdefault(_kind(rows, threads), Trial())
        return trial.pays if trial.pays is not None else len(trial.padded_s) < len(trial.plain_s)

    def passed(self, rows: int, threads: int, *, padded: bool, seconds: float) -> None:
        """Count a pass about which `pays` was asked."""
        kind = _kind(rows, threads)
        trial = self._trials[kind]
        trial.passes += 1
        if trial.pays is None:
            (trial.padded_s if padded else trial.plain_s).append(seconds / -(-rows // GROUP))
            trial.pays = _judge(trial.plain_s, trial.padded_s)
        elif trial.passes >= AGAIN_AFTER:
            self._trials[kind] = Trial()


def _judge(plain_s: list[float], padded_s: list[float]) -> bool | None:
    """Whether idle rows pay; None where more passes have to tell."""
    count = min(len(plain_s), len(padded_s))
    if count >= TRIALS_MIN:
        if max(padded_s) * PLAINLY < min(plain_s):
            return True
        if max(plain_s) * PLAINLY < min(padded_s):
            return False
    if count < TRIALS:
        return None
    return statistics.median(padded_s) < (1 - GAIN_MIN) * statistics.median(plain_s)


def _kind(rows: int, threads: int) -> tuple[int, int]:
    """What passes of so many rows are tried under; ALIKE_ABOVE and more stands for all that leave as many over."""
    return (rows if rows <= ALIKE_ABOVE else ALIKE_ABOVE + rows % GROUP, threads)
