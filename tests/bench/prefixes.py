"""Whether reading a prompt from disk beats computing it: `python tests/bench/prefixes.py [--model r1]`.

Prompts of several lengths are computed, written by the store of `edged.engine.prefixes`, pushed out of the page
cache (`POSIX_FADV_DONTNEED`: as after a restart) and read again, once cold and once warm. Prints a table; the
ratio is computing over reading, hash and copy into the cache included. It says nothing of an SD card: measure
there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from r1model import Shape, write_model

from edged.demo_model import ensure_demo_model
from edged.engine import llama, state_file

TEXT = "The hall has presses, pumps and fans; each has a number, a load and a temperature. "


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--model", choices=["small", "r1"], default="small", help="r1: its shape, random weights"
    )
    options.add_argument("--layers", type=int, default=28, help="of the r1 model")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--tokens", type=int, nargs="+", default=[64, 128, 256, 600, 1200])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--kv", choices=["f16", "q8_0"], default="f16")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:  # /tmp may be memory
        path = ensure_demo_model()
        if chosen.model == "r1":
            path = Path(folder) / "model.gguf"
            write_model(path, Shape(layers=chosen.layers))
        llama.start(lambda _level, _line: None)
        model = llama.Model(path)
        context = llama.Context(
            model,
            sequences=1,
            context=max(chosen.tokens) + 8,
            batch_tokens=256,
            threads=chosen.threads,
            kv_type=chosen.kv,
        )
        read(context, model, 64, chosen.threads)  # warm
        print(f"{path.name}, KV {chosen.kv}, {chosen.threads} threads, medians of {chosen.rounds}")
        print("| tokens | MB | computed ms | written ms | read cold ms | read warm ms | ratio cold | warm |")
        print("|---|---|---|---|---|---|---|---|")
        for count in chosen.tokens:
            rows = [
                measure(context, model, count, chosen.threads, Path(folder)) for _ in range(chosen.rounds)
            ]
            size, computed, written, cold, warm = (
                statistics.median(column) for column in zip(*rows, strict=True)
            )
            print(
                f"| {count} | {size / 1e6:.1f} | {1000 * computed:.0f} | {1000 * written:.0f} | {1000 * cold:.1f} "
                f"| {1000 * warm:.1f} | {computed / cold:.0f} | {computed / warm:.0f} |",
                flush=True,
            )


def read(context: llama.Context, model: llama.Model, count: int, threads: int) -> list[int]:
    """Compute a prompt of `count` tokens; returns them."""
    tokens = (model.tokenize(TEXT, special=False) * count)[:count]
    context.forget(0)
    for start in range(0, count, context.batch_tokens):
        for at in range(start, min(count, start + context.batch_tokens)):
            context.add(tokens[at], at, 0, logits=at == count - 1)
        if context.decode(threads) != 0:
            raise SystemExit("llama_decode failed")
    return tokens


def measure(
    context: llama.Context, model: llama.Model, count: int, threads: int, folder: Path
) -> tuple[float, float, float, float, float]:
    """Bytes; seconds of computing, writing, reading cold and warm."""
    begun = time.monotonic()
    tokens = read(context, model, count, threads)
    computed = time.monotonic() - begun
    path = folder / state_file.name_of(tokens)
    begun = time.monotonic()
    size = state_file.write(path, "bench", tokens, context.save(0))
    written = time.monotonic() - begun
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    took = []
    for _ in range(2):
        context.forget(0)
        begun = time.monotonic()
        if not context.load(0, state_file.read(path, "bench", tokens)):
            raise SystemExit("llama.cpp does not take its own state")
        took.append(time.monotonic() - begun)
    path.unlink()
    return size, computed, written, took[0], took[1]


if __name__ == "__main__":
    main()
