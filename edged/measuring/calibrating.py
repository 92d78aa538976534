"""Runs the trials of a calibration and makes a `Calibration` of them. Command line's process; about a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from edged import __version__
from edged.adapters import calibration_file
from edged.core import calibration
from edged.core.calibration import Calibration, Step
from edged.engine.trial_client import Trials
from edged.engine.trial_messages import LoadTrial, ReadMemory, RunPasses
from edged.errors import ModelError
from edged.measuring.site import Others, Site, after_thoughts

TOTAL_S, ROUNDS = 60.0, 3
QUICK_TOTAL_S, QUICK_ROUNDS = 8.0, 2
STEP_S, QUICK_STEP_S = (0.25, 3.0), (0.25, 1.0)
"""Bounds of a trial's length, seconds."""
TOKENS_MAX = 1024
CONTEXT = 1536
READ_BYTES = 256 * 2**20
"""Larger than the caches by far: 36 MB on the largest machine this was run on, 3 MB on RK3588."""

Tell = Callable[[Step, float], None]
"""Called before each step, with the share of the work that is done."""


def calibrate(site: Site, notes: list[str], *, quick: bool, tell: Tell) -> Calibration:
    """Measure.

    Raises:
        EngineError: llama.cpp cannot run the model.
        ModelError: the file went away.
    """
    settings, cores = site.settings, site.choice.engine
    key = calibration_file.key(
        settings.model.path, settings.model.sha256, site.board.name, cores, settings.engine.gpu_layers
    )
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
    )
    per_s = []
    with Trials(setup) as trials:
        others = Others(cores, trials.pid)
        for number, step in enumerate(steps):
            tell(step, number / len(steps))
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
    )


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
