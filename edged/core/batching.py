"""Which rows the next forward pass holds. Pure.

Decoding is bound by reading the weights once a pass, so every running sequence rides along with its one row;
prompts fill what is left. While answers are running, prompts are read in chunks; once these have held the answers
up for two seconds, they go on alone for as long: so they keep at least half of their speed.

Questions that come at once begin their answers together: an answer of one token waits, within these two seconds,
for the prompts that came with it. For a pass of one answer costs as much as a pass of four (1.5B shape,
`tests/bench/streams.py`), and the other prompts are read sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CHUNK_MIN = 16
"""Smaller chunks than this waste the pass: Q4_0's matrix kernels work on several rows at once."""
CHUNK_S = 0.5
"""Seconds that a chunk of prompts may take beside running answers. A row of a larger one costs less: 40 tokens
behind 600 in the cache take 2.7 ms each, 64 take 2.0, 256 take 1.7 (SmolLM2, two x86 cores,
`tests/bench/rows.py`)."""
ROWS_MAX = 256
"""The most that `rows_for` returns."""
WIDE = 1024
"""Width of an embedding from which `rows_for` counts a model as large."""
PATIENCE_S = 2.0
"""Seconds for which prompts may hold answers up before these go on alone. Of eight questions that come at once all
are read before the first answer is long: together they are written faster."""


def rows_for(width: int) -> int:
    """Rows of a pass, where the settings name no number.

    A large model (1.5B parameters, width 1536) reads prompts 1.04 times as fast by 128 as by 256, and holds 20 MB
    less; a small one (135M, 576) 0.96 to 0.90 times, for its attention weighs more (x86, llama.cpp's
    llama-batched-bench).

    Args:
        width: of the model's embedding.
    """
    return 128 if width >= WIDE else ROWS_MAX


@dataclass(frozen=True, slots=True)
class Need:
    """What one sequence wants of the next pass.

    Attributes:
        slot: which sequence.
        rows: tokens that wait to be put into its cache, at least 1; more than 1 in an answer where a schema or the
            end of a thinking left no choice.
        reading: True while the prompt is being read; False when the answer is being written.
        fresh: nothing of the answer was computed yet: its first token came with the prompt.
    """

    slot: int
    rows: int
    reading: bool
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """What one sequence gets of the next pass: its next `rows` tokens, at least 1."""

    slot: int
    rows: int


def plan(needs: Sequence[Need], *, batch_tokens: int, chunk: int, hold: bool = False) -> list[Share]:
    """Choose the rows of the next pass.

    llama.cpp computes a pass in as many parts as its sequences differ in length, and reads the weights for each
    (`llama_batch_allocr::split_equal`): a prompt is cut only where it is the first, never to fill what is left.
    Eight of 24 tokens, by up to 64: 1.10 times as fast with SmolLM2, 0.98 times with the 1.5B shape
    (`tests/bench/streams.py`).

    Args:
        needs: in the order in which prompts are to be read.
        batch_tokens: rows that a pass can hold; at least the number of sequences.
        chunk: rows of prompts while answers are running, see `Turns`; the short rest of a prompt comes on top.
        hold: answers wait, see `Turns.hold`; some prompt is to be read then.

    Returns:
        Shares with `rows` summing to at most `batch_tokens`; every writing sequence is in it unless they wait.
    """
    answers = [need for need in needs if not need.reading]
    shares: list[Share] = []
    left = batch_tokens
    if not hold:
        most = max(chunk, CHUNK_MIN) if len(answers) > 1 else left
        for number, need in enumerate(answers, start=1):
            rows = min(need.rows, most, left - (len(answers) - number))  # each of those that follow has one
            shares.append(Share(need.slot, rows))
            left -= rows
    room = min(left, chunk) if answers else left
    first = True
    for need in needs:
        if not need.reading:
            continue
        rows = min(need.rows, left) if need.rows < room + CHUNK_MIN else room
        if room <= 0 or (rows < need.rows and not first):
            break
        shares.append(Share(need.slot, rows))
        left -= rows
        room -= rows
        first = False
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


@dataclass(slots=True)
class Turns:
    """Whose turn it is while prompts are to be read beside running answers.

    Attributes:
        owed_s: seconds for which the answers were held up, and did not go on alone since.
        alone: they go on alone until that is made good.
    """

    owed_s: float = 0.0
    alone: bool = False

    def hold(self, needs: Sequence[Need]) -> bool:
        """Whether the answers wait for prompts: only such as have just begun, and while patience lasts."""
        if self.alone or not any(need.reading for need in needs):
            return False
        return all(need.reading or need.fresh for need in needs)

    def passed(self, seconds: float, step_s: float, *, written: int, read: int, held: int = 0) -> None:
        """Count a pass.

        Args:
            seconds: how long it took.
            step_s: how long it takes without prompts; the answers in it were held up for the rest.
            written: rows of answers.
            read: rows of prompts.
            held: answers that waited; 0 where some were written.
        """
        if not written and not held:
            self.owed_s = 0.0  # nobody waited
        elif read:
            self.owed_s += max(0.0, seconds - step_s) if written else seconds
        else:
            self.owed_s = max(0.0, self.owed_s - seconds)
        self.alone = self.owed_s > (0.0 if self.alone else PATIENCE_S)

    def chunk(self, read_s: float, *, batch_tokens: int, hold: bool = False) -> int:
        """Rows of prompts for the next pass in which answers are running; 0 while these go on alone.

        Args:
            read_s: measured time to read one token of a prompt; 0 before it was measured.
            batch_tokens: upper bound.
            hold: the answers wait: as much as patience is left for.
        """
        if self.alone:
            return 0
        least = min(CHUNK_MIN, batch_tokens)
        seconds = max(CHUNK_S, PATIENCE_S - self.owed_s) if hold else CHUNK_S
        return max(least, int(min(batch_tokens, seconds / read_s))) if read_s > 0 else least
