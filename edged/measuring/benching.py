"""Prefill and decode in llama-bench's terms: `pp512` reads 512 tokens, `tg128` writes 128, from an empty cache.

As llama-bench does it: a run to warm up, then repetitions, mean and standard deviation, no sampling, prompts in
passes of 512 rows. Command line's process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Literal

import msgspec

from edged.engine.trial_client import Trials, used_sets
from edged.engine.trial_messages import LoadTrial, ReadMemory, RunPasses
from edged.measuring.calibrating import READ_BYTES
from edged.measuring.site import Others, Site, after_thoughts

ROWS = 512
"""llama-bench's ubatch."""


class Run(msgspec.Struct, frozen=True):
    """One test.

    Attributes:
        test: `pp512`, `tg128`; with ` @ d1024` for a cache that holds 1024 tokens before.
        tokens_per_s: of each repetition.
        read_bytes_per_token: what one token reads from memory; 0 for prefill, which reads the weights once for
            many tokens.
    """

    test: str
    threads: int
    tokens_per_s: tuple[float, ...]
    read_bytes_per_token: int = 0

    @property
    def rate(self) -> float:
        """Mean, tokens per second."""
        return statistics.mean(self.tokens_per_s)

    @property
    def spread(self) -> float:
        """Standard deviation, as llama-bench prints it; 0.0 for one repetition."""
        return statistics.stdev(self.tokens_per_s) if len(self.tokens_per_s) > 1 else 0.0


class Bench(msgspec.Struct, frozen=True):
    """All of it.

    Attributes:
        read_bytes_per_s: best rate of plain reading on these cores, over thread counts.
        notes: what makes the figures doubtful.
    """

    board: str | None
    cores: tuple[int, ...]
    model: str
    model_bytes: int
    parameters: int
    llama_cpp: str
    system_info: str
    read_bytes_per_s: float
    runs: tuple[Run, ...]
    others_share: float | None
    notes: tuple[str, ...]


def bench(
    site: Site,
    notes: list[str],
    *,
    threads: tuple[int, int],
    sizes: tuple[int, int],
    depth: int,
    repetitions: int,
    llama_cpp: str,
    huge_pages: bool,
    tell: Callable[[str, float], None],
) -> Bench:
    """Measure.

    Args:
        site: where.
        notes: what is known to make the figures doubtful.
        threads: for decode and for prefill.
        sizes: tokens of prefill and of decode; 0 leaves the test out.
        depth: tokens in the cache before.
        repetitions: of each test, beside the one that warms up.
        llama_cpp: version of the bindings.
        huge_pages: whether the model's memory may stand in them.
        tell: called with what is being done and the share of the work that is done.

    Raises:
        EngineError: llama.cpp cannot run the model.
    """
    settings, cores, shape = site.settings, site.choice.engine, site.model.shape
    setup = LoadTrial(
        model_path=str(settings.model.path),
        sha256=settings.model.sha256,
        batch_tokens=ROWS,
        context=depth + max(*sizes, 1) + ROWS,
        cores=cores,
        threads=threads[0],
        kv_type=settings.engine.kv_type,
        flash_attention=settings.engine.flash_attention,
        gpu_layers=settings.engine.gpu_layers,
        huge_pages=huge_pages,
    )
    tests: list[tuple[Literal["prefill", "decode"], int, int]] = []
    if sizes[0]:
        tests.append(("prefill", sizes[0], threads[1]))
    if sizes[1]:
        tests.append(("decode", sizes[1], threads[0]))
    runs = []
    with Trials(setup) as trials:
        others = Others(cores, trials.pid)
        tell("reading memory", 0.0)
        read_bytes_per_s = max(
            ran.amount / ran.seconds
            for count in sorted({1, *threads, len(cores)})
            for ran in [trials.memory(ReadMemory(cores, count, READ_BYTES))]
        )
        done = 1
        for kind, tokens, count in tests:
            name = f"{'pp' if kind == 'prefill' else 'tg'}{tokens}{f' @ d{depth}' if depth else ''}"
            rates = []
            for number in range(repetitions + 1):
                tell(name, done / (1 + len(tests) * (repetitions + 1)))
                ran = trials.passes(RunPasses(kind, cores, count, tokens, depth=depth))
                done += 1
                if number:
                    rates.append(round(ran.amount / ran.seconds, 3))
            read = 0
            if kind == "decode":
                read = shape.bytes_per_token + shape.kv_bytes(depth + tokens // 2, settings.engine.kv_type)
            runs.append(Run(name, count, tuple(rates), read))
        share = others.share()
        loaded = trials.loaded
    return Bench(
        board=site.board.name,
        cores=cores,
        model=f"{shape.architecture} {shape.quantisation}",
        model_bytes=loaded.file_bytes,
        parameters=loaded.parameters,
        llama_cpp=llama_cpp,
        system_info=" ".join(used_sets(loaded.system_info)),
        read_bytes_per_s=read_bytes_per_s,
        runs=tuple(runs),
        others_share=share,
        notes=(*notes, *after_thoughts(site, share)),
    )
