"""What idle rows make of a pass: why the engine tries them, see `edged.core.padding`.

    python tests/bench/padding.py [--model smollm|r1|FILE] [--threads 2] [--rounds 15] [--depth 300] [--json FILE]

Rows of answers side by side, each in a sequence of its own, and the rest of a prompt in one sequence; as they are,
with idle rows up to a multiple of four, and with what the engine learns by itself. In turn, medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above
from bench.streams import options_of  # noqa: E402 - likewise
from fixed_padding import FixedPadding  # noqa: E402

from edged.core.padding import Padding  # noqa: E402
from edged.engine import llama  # noqa: E402

SEQUENCES = 8
ANSWERS = (2, 3, 6, 7)
PROMPTS = (2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31)
TOKEN = 7
"""Any will do: nobody reads what comes of it."""


def run(context: llama.Context, places: list[tuple[int, int]], threads: int, *, reading: bool) -> float:
    """Compute rows at (position, sequence) and take them out again; returns milliseconds of the pass.

    Answers are written a token further, and that pass is timed: the first of a shape has llama.cpp plan anew.
    """
    for step in range(1 if reading else 2):
        for number, (position, sequence) in enumerate(places, start=1):
            context.add(TOKEN, position + step, sequence, logits=not reading or number == len(places))
        begun = time.perf_counter()
        if context.decode(threads) != 0:
            raise RuntimeError("llama_decode failed")
        ended = time.perf_counter()
    for position, sequence in reversed(places):
        context.forget(sequence, position)
    return 1000 * (ended - begun)


def main() -> None:
    """Measure, print, save."""
    options = options_of(main.__doc__, rounds=15, depth=300)
    path = end_to_end.model_path(options.model)
    llama.start(lambda _level, _text: None)
    model = llama.Model(path)
    ways = {"as they are": FixedPadding(pays=False), "padded": FixedPadding(pays=True), "learned": Padding()}
    contexts = {
        name: llama.Context(
            model,
            sequences=SEQUENCES,
            context=1024,
            batch_tokens=128,
            threads=options.threads,
            kv_type="f16",
            padding=padding,
        )
        for name, padding in ways.items()
    }
    depth, threads = options.depth, options.threads
    passes = {f"{n} answers": [(depth, sequence) for sequence in range(n)] for n in ANSWERS}
    passes |= {f"{n} of a prompt": [(depth + row, 0) for row in range(n)] for n in PROMPTS}
    for context in contexts.values():
        for start in range(0, depth, context.batch_tokens):
            for position in range(start, min(depth, start + context.batch_tokens)):
                context.add(TOKEN, position, 0, logits=False)
            context.decode(threads)
        for sequence in range(1, SEQUENCES):
            context.copy(0, sequence)
    found: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name in passes}
    for _ in range(options.rounds):
        for name, places in passes.items():
            for way, context in contexts.items():
                reading = places[0][1] == places[-1][1]
                found[name][way].append(run(context, places, threads, reading=reading))
    rows: list[tuple[str, ...]] = [("rows", *(f"{way}, ms" for way in ways), "padded / as they are")]
    for name, times in found.items():
        ratio = statistics.median(
            one / other for one, other in zip(times["padded"], times["as they are"], strict=True)
        )
        medians = (f"{statistics.median(each):.1f}" for each in times.values())
        rows.append((name, *medians, f"{ratio:.2f}"))
    rig.show(f"{path.name}, {threads} threads, behind {depth} tokens", rows)
    rig.save(options.json, {"machine": rig.machine(), "model": path.name, "milliseconds": found})


if __name__ == "__main__":
    main()
