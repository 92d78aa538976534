"""What a pass over several KV streams costs: why the scheduler moves answers, and cuts no prompt to fill a pass.

    python tests/bench/streams.py [--model smollm|r1|FILE] [--threads 2] [--rounds 9] [--depth 700] [--json FILE]

llama.cpp computes rows of separate streams together where they come in the order of their numbers and these follow
each other; else it makes several computations of one pass, each of which reads the weights. With one cache for all
(`kv_unified`) the order does not matter, but every row looks through the cells of all. Rows of streams that differ
in number are computed in as many parts: eight prompts of one length are read whole, or cut so that each pass is
full. All in turns, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp as C  # noqa: N812 - the name that its own examples use

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above

QUIET = C.llama_log_callback(lambda *_: None)
"""Kept, for llama.cpp calls it as long as it runs."""
STREAMS = 8
CONTEXT = 2048
BATCH = 256
TOKEN = 7
"""Any will do: nobody reads what comes of it."""
TRIALS: dict[str, Sequence[int]] = {
    "1": (0,),
    "4, side by side": (0, 1, 2, 3),
    "4, in another order": (2, 0, 3, 1),
    "4, with gaps": (0, 2, 4, 6),
    "8, side by side": range(8),
    "8, in another order": (3, 1, 4, 7, 5, 0, 2, 6),
}

PROMPT, FULL = 24, 64
"""Tokens of each of the prompts, and of the passes in which they are read."""

Found = dict[str, dict[str, list[float]]]


def passes(*, cut: bool) -> list[list[tuple[int, int]]]:
    """Rows of (position, stream) of passes that read a prompt into each stream: full ones, or of whole prompts."""
    rows = [(position, stream) for stream in range(STREAMS) for position in range(PROMPT)]
    count = FULL if cut else FULL // PROMPT * PROMPT
    return [rows[start : start + count] for start in range(0, len(rows), count)]


class Cache:
    """A context of `STREAMS` streams."""

    def __init__(self, model: Any, threads: int, *, unified: bool, flash_attention: int = -1) -> None:
        asked = C.llama_context_default_params()
        asked.n_ctx, asked.n_seq_max = STREAMS * CONTEXT, STREAMS
        asked.n_batch = asked.n_ubatch = BATCH
        asked.n_threads = asked.n_threads_batch = threads
        asked.kv_unified, asked.no_perf = unified, True
        asked.flash_attn_type = flash_attention
        self._context = C.llama_init_from_model(model, asked)
        self._batch = C.llama_batch_init(BATCH, 0, 1)

    def run(self, rows: Sequence[tuple[int, int]], *, reading: bool = False) -> float:
        """Compute rows of (position, stream), with logits of each, or of the last alone; returns milliseconds."""
        self._batch.n_tokens = len(rows)
        for row, (position, stream) in enumerate(rows):
            self._batch.token[row], self._batch.pos[row] = TOKEN, position
            self._batch.n_seq_id[row], self._batch.seq_id[row][0] = 1, stream
            self._batch.logits[row] = not reading or row == len(rows) - 1
        begun = time.perf_counter()
        if C.llama_decode(self._context, self._batch) != 0:
            raise RuntimeError("llama_decode failed")
        return 1000 * (time.perf_counter() - begun)

    def write(self, rows: Sequence[tuple[int, int]]) -> float:
        """Compute rows of answers, and of the same ones a token later; returns milliseconds of the second pass.

        The first of a shape has llama.cpp plan its computation anew, as an answer has it once.
        """
        self.run(rows)
        return self.run([(position + 1, stream) for position, stream in rows])

    def read(self, stream: int, depth: int) -> None:
        """Fill a stream."""
        for start in range(0, depth, BATCH):
            self.run([(position, stream) for position in range(start, min(start + BATCH, depth))])

    def cut(self, depth: int) -> None:
        """Forget what lies beyond."""
        for stream in range(STREAMS):
            C.llama_memory_seq_rm(C.llama_get_memory(self._context), stream, depth, -1)


def options_of(about: str | None, *, rounds: int, depth: int) -> argparse.Namespace:
    """Options of a bench of single passes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--depth", type=int, default=depth)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load(path: Path) -> Any:
    """The model, loaded without a word."""
    C.llama_log_set(QUIET, None)
    return C.llama_model_load_from_file(os.fsencode(path), C.llama_model_default_params())


def main() -> None:
    """Measure, print, save."""
    options = options_of(main.__doc__, rounds=9, depth=700)
    path = end_to_end.model_path(options.model)
    model = load(path)
    caches = {
        "separate streams": Cache(model, options.threads, unified=False),
        "one cache": Cache(model, options.threads, unified=True),
    }
    for cache in caches.values():
        for stream in range(STREAMS):
            cache.read(stream, options.depth)
    answers: Found = {name: {kind: [] for kind in caches} for name in TRIALS}
    prompts: Found = {name: {kind: [] for kind in caches} for name in ("whole", "cut")}
    for _ in range(options.rounds):
        for name, streams in TRIALS.items():
            for kind, cache in caches.items():
                answers[name][kind].append(cache.write([(options.depth, stream) for stream in streams]))
                cache.cut(options.depth)
    for cache in caches.values():
        cache.cut(0)
    for _ in range(options.rounds):
        for name, times in prompts.items():
            for kind, cache in caches.items():
                times[kind].append(sum(cache.run(each, reading=True) for each in passes(cut=name == "cut")))
                cache.cut(0)
    about = f"{path.name}, {options.threads} threads"
    show(f"{about}, {options.depth} tokens in each stream", "answers", answers)
    show(f"{about}, {STREAMS} prompts of {PROMPT} tokens, up to {FULL} in a pass", "prompts", prompts)
    result = {
        "machine": rig.machine(),
        "model": path.name,
        "milliseconds": answers,
        "prompts_milliseconds": prompts,
    }
    rig.save(options.json, result)


def show(title: str, what: str, found: Found) -> None:
    """Print a table of medians."""
    kinds = next(iter(found.values()))
    rows: list[tuple[str, ...]] = [(what, *(f"{kind}, ms" for kind in kinds))]
    for name, times in found.items():
        rows.append((name, *(f"{statistics.median(each):.1f}" for each in times.values())))
    rig.show(title, rows)


if __name__ == "__main__":
    main()
