"""What a program beside the engine costs it: passes alone on the machine, and beside others that compute.

    python tests/bench/neighbour.py [--model smollm|r1|FILE] [--threads 2] [--rounds 5] [--neighbours 1]
        [--json FILE]

llama.cpp's threads meet after each operation, some hundred times a pass. Whoever is there first looks again and
again whether the others have come, and after so many looks (GOMP_SPINCOUNT of libgomp, 300,000 as it comes) it
sleeps. Each count in a process of its own, in turns, medians; `edged` is what `edged.engine.environment` gives.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above

from edged.engine.environment import SPINCOUNT  # noqa: E402 - likewise
from edged.engine.trial_client import Trials  # noqa: E402 - likewise
from edged.engine.trial_messages import LoadTrial, RunPasses  # noqa: E402 - likewise

COUNTS = ("300000", "30000", "10000", "3000", "1000", "300", "0")
SECONDS = 1.5
"""Of each trial."""
CONTEXT, BATCH = 1536, 128

Found = dict[str, dict[str, list[float]]]


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--neighbours", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    path = end_to_end.model_path(options.model)
    cores = tuple(sorted(os.sched_getaffinity(0)))[: options.threads]
    with contextlib.ExitStack() as stack:
        setup = LoadTrial(str(path), None, BATCH, CONTEXT, cores, options.threads)
        trials = {"edged": stack.enter_context(Trials(setup))}
        for count in COUNTS:
            os.environ[SPINCOUNT] = count  # what the operator says stays
            trials[count] = stack.enter_context(Trials(setup))
        os.environ.pop(SPINCOUNT)
        alone = measure(trials, options.rounds, cores)
        with busy(options.neighbours):
            beside = measure(trials, options.rounds, cores)
    about = f"{path.name}, {options.threads} threads on {len(cores)} cores, tokens/s"
    show(f"{about}, alone", alone)
    show(f"{about}, beside {options.neighbours} busy", beside)
    result = {"machine": rig.machine(), "model": path.name, "alone": alone, "beside": beside}
    rig.save(options.json, result)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without a pause."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def measure(trials: dict[str, Trials], rounds: int, cores: tuple[int, ...]) -> Found:
    """Rates of writing and of reading, tokens per second, by count."""
    found: Found = {name: {"decode": [], "prefill": []} for name in trials}
    for _ in range(rounds):
        for name, one in trials.items():
            for order in (
                RunPasses("decode", cores, len(cores), CONTEXT, SECONDS),
                RunPasses("prefill", cores, len(cores), 1 << 20, SECONDS),
            ):
                ran = one.passes(order)
                found[name][order.kind].append(ran.amount / ran.seconds)
    return found


def show(title: str, found: Found) -> None:
    """Print a table of medians."""
    rows: list[tuple[str, ...]] = [("looks before it sleeps", "decode", "prefill")]
    for name, kinds in found.items():
        rows.append((name, *(f"{statistics.median(rates):.1f}" for rates in kinds.values())))
    rig.show(title, rows)


if __name__ == "__main__":
    main()
