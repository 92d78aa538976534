"""What a slow disk costs, the journal's and the broker's: `fsync` made to take longer.

    python tests/bench/slow_disk.py [--rounds 25] [--questions 2000] [--folder FOLDER] [--json FILE]

Two tables. First piece of a short answer (SmolLM2), from nodes whose commits are as they are and 20 ms slower, in
turn: the engine computes meanwhile. Durable questions a second (scripted engine, `durable.py`), with brokers whose
saves are as they are, 2 and 8 ms slower. A library that is loaded before the C library's waits in `fsync` and
`fdatasync`; `cc` compiles it. Put FOLDER on a fast medium, /dev/shm for one, so that the wait is what is slow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import durable, end_to_end, rig  # noqa: E402 - found through the path above

SOURCE = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int later(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    usleep(atoi(getenv("FSYNC_US")));
    return real(fd);
}
int fsync(int fd) { return later("fsync", fd); }
int fdatasync(int fd) { return later("fdatasync", fd); }
"""
COMMIT_MS, SAVES_MS = (0, 20), (0, 2, 8)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        library = compiled(Path(folder))
        first = first_pieces(library, given.rounds)
        rates = durable_rates(library, Path(folder), given.questions)
    rig.show(
        f"first piece of a short answer, ms, medians of {given.rounds} in turn",
        [("commit slower by", "first piece"), *((f"{ms} ms", f"{value:.1f}") for ms, value in first.items())],
    )
    rig.show(
        f"durable questions a second, {given.questions} each, the broker saves at every change",
        [
            ("broker", "save slower by", "questions/s", "saves a question"),
            *(
                (name, f"{ms} ms", f"{rate:.0f}", f"{saves:.2f}")
                for (name, ms), (rate, saves) in rates.items()
            ),
        ],
    )
    figures = {f"{name}, {ms} ms": values for (name, ms), values in rates.items()}
    rig.save(given.json, {"machine": rig.machine(), "first_piece_ms": first, "durable": figures})


def compiled(folder: Path) -> Path:
    """The library."""
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SOURCE, encoding="ascii")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def slower(library: Path, ms: int) -> dict[str, str]:
    """The environment of a process whose `fsync` takes so much longer."""
    return {"LD_PRELOAD": str(library), "FSYNC_US": str(1000 * ms)} if ms else {}


@contextlib.contextmanager
def inherited(variables: dict[str, str]) -> Iterator[None]:
    """Processes that are started meanwhile have these variables."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def first_pieces(library: Path, rounds: int) -> dict[int, float]:
    """Median milliseconds to the first piece, by how much slower a commit is."""
    sections = {"model": {"path": str(end_to_end.model_path("smollm"))}}
    found: dict[int, list[float]] = {ms: [] for ms in COMMIT_MS}
    with contextlib.ExitStack() as stack:
        devices = {}
        for ms in COMMIT_MS:
            broker, daemon = stack.enter_context(rig.node(sections, slower(library, ms)))
            daemon.wait_info()
            devices[ms] = stack.enter_context(contextlib.closing(rig.BenchDevice(broker, "bench")))
        for number in range(rounds + 1):
            for ms, device in devices.items():
                asked = device.ask(f"Is {number + 40} C hot for a bearing?", max_tokens=2, cache="use").wait()
                if number:  # the first warms caches
                    found[ms].append(asked.first_ms)
                time.sleep(0.05)
    return {ms: statistics.median(times) for ms, times in found.items()}


def durable_rates(library: Path, folder: Path, questions: int) -> dict[tuple[str, int], tuple[float, float]]:
    """Questions a second and the broker's saves a question, by broker and by how much slower a save is."""
    found = {}
    for name, settings in (("over TLS", durable.TLS), ("plain text", "")):
        for ms in SAVES_MS:
            with_broker = inherited(slower(library, ms))
            values = durable.throughput(
                folder / f"{name} {ms}".replace(" ", "-"), questions, settings, with_broker
            )
            found[name, ms] = values["questions per second"], values["saves of the broker per question"]
    return found


if __name__ == "__main__":
    main()
