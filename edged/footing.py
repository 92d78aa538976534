"""How the engine stands on this board: cores, threads, pages, and the speed to expect of that."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import structlog

from edged.adapters import calibration_file
from edged.adapters.vitals import VitalsReader
from edged.core.calibration import Calibration, Key
from edged.core.huge_pages import wanted
from edged.core.topology import KEPT_AWAY, Choice, choose, format_cores, threads
from edged.errors import SettingsError
from edged.node.speed import Speed
from edged.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Footing:
    """How the engine stands on this board.

    Attributes:
        choice: who runs where.
        decode_threads, prefill_threads: how many.
        huge_pages: whether the model's memory may stand in them.
        speed: to expect of all that.
    """

    choice: Choice
    decode_threads: int
    prefill_threads: int
    huge_pages: bool
    speed: Speed


def find_footing(settings: Settings, reader: VitalsReader) -> Footing:
    """Choose it.

    All are the settings', else as calibrated, else the board's default; counts within its cgroup's time, unless the
    settings say otherwise.
    """
    engine, quota = settings.engine, reader.cpu_quota()
    try:
        choice = choose(reader.topology(), frozenset(os.sched_getaffinity(0)), engine.core_set())
        calibration = _calibration(settings, reader, choice)
        best = None if calibration is None else (calibration.decode_threads, calibration.prefill_threads)
        counts = threads(choice, engine.decode_threads, engine.prefill_threads, quota, best)
    except ValueError as error:
        raise SettingsError(f"engine: {error}") from error
    if choice.kept_away:
        log.warning("big_cores_kept_away", cores=format_cores(choice.kept_away), mend=KEPT_AWAY)
    rates = None if calibration is None else calibration.rates(*counts)
    speed = Speed()
    if rates is not None:
        speed = Speed(calibration, *rates, counts[0], choice.engine, time.monotonic)
    measured = None if calibration is None else calibration.huge_pages
    return Footing(choice, *counts, wanted(engine.huge_pages, measured), speed)


def _calibration(settings: Settings, reader: VitalsReader, choice: Choice) -> Calibration | None:
    found, reason = calibrated(settings, reader.topology().board, choice)
    if reason is not None:
        log.warning("calibration_ignored", reason=reason, mend="run edged calibrate again")
    if found is not None and found.notes:
        mend = "run edged calibrate again while the board rests"
        log.warning("calibration_doubtful", notes=list(found.notes), mend=mend)
    return found


def calibrated(
    settings: Settings, board: str | None, choice: Choice
) -> tuple[Calibration | None, str | None]:
    """What `edged calibrate` measured, if it holds for this model, these cores and this llama.cpp, else why not.

    Two Nones where there is none, or no model.
    """
    now = key(settings, board, choice)
    return (None, None) if now is None else calibration_file.fitting(settings.paths.state, now)


def key(settings: Settings, board: str | None, choice: Choice) -> Key | None:
    """What a calibration is of that is made now; None where the model cannot be seen."""
    model, layers = settings.model, settings.engine.gpu_layers
    return calibration_file.key(model.path, model.sha256, board, choice.engine, layers)
