"""What a pass costs by its rows, behind a prompt that is known: why prompts are read in chunks of some size.

    python tests/bench/rows.py [--model smollm|r1|FILE] [--threads 2] [--rounds 7] [--depth 600] [--json FILE]

Rows of one stream, logits for the last, as a prompt is read. In turn, medians. llama.cpp's matrix kernels take rows
in groups, and its attention works in blocks from some number of rows on: a row of a larger pass costs less, and
single rows beyond a group cost as much as several.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above
from bench.streams import Cache, load, options_of  # noqa: E402 - likewise

COUNTS = (1, 2, 4, 8, 12, 14, 15, 16, 17, 18, 19, 20, 32, 40, 48, 64, 128, 256)


def main() -> None:
    """Measure, print, save."""
    options = options_of(main.__doc__, rounds=7, depth=600)
    path = end_to_end.model_path(options.model)
    cache = Cache(load(path), options.threads, unified=False)
    cache.read(0, options.depth)
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(options.rounds):
        for count in COUNTS:
            rows = [(options.depth + row, 0) for row in range(count)]
            found[count].append(cache.run(rows, reading=True))
            cache.cut(options.depth)
    medians = {count: statistics.median(times) for count, times in found.items()}
    rows_told = [(str(count), f"{ms:.1f}", f"{ms / count:.2f}") for count, ms in medians.items()]
    rig.show(
        f"{path.name}, {options.threads} threads, behind {options.depth} tokens",
        [("rows", "ms", "ms a row"), *rows_told],
    )
    rig.save(options.json, {"machine": rig.machine(), "model": path.name, "milliseconds": found})


if __name__ == "__main__":
    main()
