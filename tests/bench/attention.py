"""What `engine.flash_attention` changes: passes with llama.cpp's fused attention, and without.

    python tests/bench/attention.py [--model smollm|r1|FILE] [--threads 2] [--rounds 9] [--depth 600] [--json FILE]

Rows of one stream, as a prompt is read, and of streams side by side, as answers are written, behind prompts of
`--depth` tokens and of a tenth of that. In turn, medians.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above
from bench.streams import STREAMS, Cache, Found, load, options_of, show  # noqa: E402 - likewise

from edged.engine.llama.context import FLASH_ATTENTION  # noqa: E402 - likewise

READ = (4, 8, 17, 64, 256)
"""Rows of a prompt in one pass; 17 are a short question behind a prompt that is known."""
WRITTEN = (1, 2, 4, STREAMS)
"""Answers side by side."""


def main() -> None:
    """Measure, print, save."""
    options = options_of(main.__doc__, rounds=9, depth=600)
    path = end_to_end.model_path(options.model)
    model = load(path)
    caches = {
        name: Cache(model, options.threads, unified=False, flash_attention=FLASH_ATTENTION[name])
        for name in ("on", "off")
    }
    tables: dict[int, Found] = {}
    for depth in (options.depth, options.depth // 10):
        trials: dict[str, tuple[list[tuple[int, int]], bool]] = {
            **{f"{count} of a prompt": ([(depth + row, 0) for row in range(count)], True) for count in READ},
            **{
                f"{count} answers": ([(depth, stream) for stream in range(count)], False) for count in WRITTEN
            },
        }
        found = tables[depth] = {name: {kind: [] for kind in caches} for name in trials}
        for cache in caches.values():
            cache.cut(0)
            for stream in range(STREAMS):
                cache.read(stream, depth)
        for _ in range(options.rounds):
            for name, (rows, reading) in trials.items():
                for kind, cache in caches.items():
                    found[name][kind].append(cache.run(rows, reading=True) if reading else cache.write(rows))
                    cache.cut(depth)
        show(f"{path.name}, {options.threads} threads, flash attention, {depth} tokens before", "rows", found)
    result: dict[str, Any] = {"machine": rig.machine(), "model": path.name, "milliseconds": tables}
    rig.save(options.json, result)


if __name__ == "__main__":
    main()
