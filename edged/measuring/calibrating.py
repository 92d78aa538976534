"""Runs the trials of a calibration and makes a `Calibration` of them. Command line's process; a minute or two."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from edged import __version__, footing
from edged.core import calibration
from edged.core.calibration import Calibration, Step
from edged.core.huge_pages import Measured
from edged.core.topology import format_cores
from edged.engine.environment import environment, stands_in_huge_pages
from edged.engine.trial_client import Trials
from edged.engine.trial_messages import LoadTrial, ReadMemory, RunPasses
from edged.errors import ModelError
from edged.measuring.site import Others, Site, after_thoughts

TOTAL_S, ROUNDS = 60.0, 3
QUICK_TOTAL_S, QUICK_ROUNDS = 8.0, 2
PAGES_ROUNDS, QUICK_PAGES_ROUNDS = 3, 2
"""Each loads the model twice."""
PAGES_TRIES = 3
"""Of which the fastest counts: the first seconds after loading are slower, by more than what is looked for."""
PAGES_S, QUICK_PAGES_S = 1.0, 0.5
"""Of a try."""
STEP_S, QUICK_STEP_S = (0.25, 3.0), (0.25, 1.0)
"""Bounds of a trial's length, seconds."""
TOKENS_MAX = 1024
CONTEXT = 1536
READ_BYTES = 256 * 2**20
"""Larger than the caches by far: 36 MB on the largest machine this was run on, 3 MB on RK3588."""

Tell = Callable[[str, float], None]
"""Called before each step with what it does, and the share of the work that is done."""


def calibrate(site: Site, notes: list[str], *, quick: bool, tell: Tell) -> Calibration:
    """Measure.

    Raises:
        EngineError: llama.cpp cannot run the model.
        ModelError: the file went away.
    """
    settings, cores = site.settings, site.choice.engine
    key = footing.key(settings, site.board.name, site.choice)
    if key is None:
        raise ModelError(
            f"{settings.model.path}: the file is gone; put the model there or correct model.path"
        )
    steps = calibration.plan(cores, site.board.allowed, QUICK_ROUNDS if quick else ROUNDS)
    timed = sum(step.kind != "memory" for step in steps)
    least_s, most_s = QUICK_STEP_S if quick else STEP_S
    step_s = min(most_s, max(least_s, (QUICK_TOTAL_S if quick else TOTAL_S) / timed))
    setup = LoadTrial(
        model_path=str(settings.model.path),
        sha256=settings.model.sha256,
        batch_tokens=settings.engine.batch_tokens,
        context=CONTEXT,
        cores=cores,
        threads=len(cores),
        kv_type=settings.engine.kv_type,
        flash_attention=settings.engine.flash_attention,
        gpu_layers=settings.engine.gpu_layers,
        huge_pages=settings.engine.huge_pages != "off",
    )
    measured = None
    if settings.engine.huge_pages == "auto" and stands_in_huge_pages(
        environment(os.environ), settings.paths.sys
    ):
        measured = _huge_pages(setup, quick=quick, tell=tell)
        setup = msgspec.structs.replace(setup, huge_pages=not measured.slower)
    per_s = []
    tell("loading the model", 0.0)
    with Trials(setup) as trials:
        others = Others(cores, trials.pid)
        for number, step in enumerate(steps):
            what = "reading memory" if step.kind == "memory" else step.kind
            tell(f"{what}, cores {format_cores(step.cores)}, {step.threads} threads", number / len(steps))
            per_s.append(_run(trials, step, step_s))
        share = others.share()
    found, read_bytes_per_s = calibration.gather(steps, per_s)
    decode = calibration.knee(calibration.of_kind(found, "decode", cores))
    prefill = calibration.knee(calibration.of_kind(found, "prefill", cores))
    shape = site.model.shape
    return Calibration(
        format=calibration.FORMAT,
        edged=__version__,
        made_unix_s=int(time.time()),
        key=key,
        decode_threads=decode.threads,
        prefill_threads=prefill.threads,
        decode_tokens_per_s=round(decode.rate, 3),
        prefill_tokens_per_s=round(prefill.rate, 3),
        read_bytes_per_s=read_bytes_per_s,
        bytes_per_token=shape.bytes_per_token,
        kv_bytes_per_token=shape.kv_bytes(1, settings.engine.kv_type),
        others_share=share,
        notes=tuple([*notes, *after_thoughts(site, share)][:10]),
        trials=found,
        huge_pages=measured,
    )


def _huge_pages(setup: LoadTrial, *, quick: bool, tell: Tell) -> Measured:
    """One answer alone in huge pages and without, now one first and now the other: a board grows hot meanwhile."""
    rounds, seconds = (QUICK_PAGES_ROUNDS, QUICK_PAGES_S) if quick else (PAGES_ROUNDS, PAGES_S)
    setup = msgspec.structs.replace(setup, sha256=None)  # the trials that follow look at that, once is enough
    order = RunPasses("decode", setup.cores, setup.threads, TOKENS_MAX, seconds)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        for place, huge in enumerate((True, False) if number % 2 == 0 else (False, True)):
            tell(f"{'with' if huge else 'without'} huge pages", (2 * number + place) / (2 * rounds))
            with Trials(msgspec.structs.replace(setup, huge_pages=huge)) as trials:
                tries = [trials.passes(order) for _ in range(PAGES_TRIES)]
            rates[huge].append(round(max(ran.amount / ran.seconds for ran in tries), 3))
    return Measured(tuple(rates[True]), tuple(rates[False]))


def _run(trials: Trials, step: Step, step_s: float) -> float:
    """The rate of one step: tokens, or bytes, per second."""
    match step.kind:
        case "memory":
            ran = trials.memory(ReadMemory(step.cores, step.threads, READ_BYTES))
        case "decode":
            ran = trials.passes(RunPasses("decode", step.cores, step.threads, TOKENS_MAX, step_s))
        case "prefill":
            ran = trials.passes(RunPasses("prefill", step.cores, step.threads, 1 << 20, step_s))
    return ran.amount / ran.seconds
