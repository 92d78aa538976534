"""Where a measurement takes place: settings, board, cores, model; and whether it may take place at all.

Runs in the command line's process. llama.cpp is loaded only by the process that `edged.engine.trial_client` starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edged.adapters import model_file
from edged.adapters.model_file import ModelFile
from edged.adapters.vitals import VitalsReader, processes
from edged.core.board import Board
from edged.core.topology import Choice, choose, format_cores
from edged.errors import NotNowError, SettingsError
from edged.settings import Settings

LOOK_S = 0.6
"""How long neighbours are watched."""
ENGINE_BUSY_SHARE = 0.05
"""Share of a core above which an engine counts as busy; an idle one takes a thousandth."""
OTHERS_SHARE = 0.2
"""Share of the engine's cores from which other programs are worth a note."""
SPARE_BYTES = 200 * 2**20
"""Memory that must stay free beside the model: code, buffers, everybody else."""


@dataclass(frozen=True, slots=True)
class Site:
    """All that a measurement must know."""

    settings: Settings
    reader: VitalsReader
    board: Board
    choice: Choice
    model: ModelFile

    @property
    def state(self) -> Path:
        """The folder that a daemon with these settings reads."""
        return self.settings.paths.state


def find(load: Callable[[], Settings], model: Path | None) -> Site:
    """Read settings, board and the model's head; `model` is measured in place of the configured one.

    Raises:
        SettingsError: the settings are wrong, or ask for cores that are not there.
        ModelError: the model cannot be used.
    """
    if model is not None:
        # As an operator would override it; the hash in the settings is the configured file's.
        os.environ |= {"EDGED_MODEL__PATH": str(model), "EDGED_MODEL__SHA256": ""}
    settings = load()
    reader = VitalsReader(settings.paths.sys, settings.paths.proc)
    allowed = frozenset(os.sched_getaffinity(0))
    try:
        choice = choose(reader.topology(), allowed, settings.engine.core_set())
    except ValueError as error:
        raise SettingsError(f"engine: {error}") from error
    found = model_file.read(settings.model.path)
    return Site(settings, reader, reader.board(), choice, found)


def check(site: Site, kv_tokens: int, *, anyway: bool) -> list[str]:
    """Look at the neighbours and at memory.

    Returns:
        Notes on what makes the figures doubtful.

    Raises:
        NotNowError: another engine computes on these cores, or the model does not fit beside what runs.
    """
    notes = []
    before = {engine.pid: engine.cpu_s for engine in processes.engines()}
    begun = time.monotonic()
    time.sleep(LOOK_S)
    passed_s = time.monotonic() - begun
    for engine in processes.engines():
        if engine.pid not in before or not set(engine.cores) & set(site.choice.engine):
            continue
        share = (engine.cpu_s - before[engine.pid]) / passed_s
        if share < ENGINE_BUSY_SHARE:
            continue
        where = f"an engine (process {engine.pid}) computes on cores {format_cores(engine.cores)}"
        if not anyway:
            raise NotNowError(
                f"{where}: both would measure half a board; stop it (systemctl stop edged), wait, or say --anyway"
            )
        notes.append(f"{where} at the same time")
    need = site.model.shape.weight_bytes + site.model.shape.kv_bytes(kv_tokens, site.settings.engine.kv_type)
    free = site.reader.read().memory_available_bytes
    if free is not None and free < need + SPARE_BYTES and not anyway:
        raise NotNowError(
            f"the model needs {need // 2**20} MB and {free // 2**20} MB are free; "
            "stop what holds the rest (a running edged has the model in memory, too), or say --anyway"
        )
    return notes


class Others:
    """Watches what share of some cores is taken by programs other than the measuring process.

    Args:
        cores: to watch.
        pid: the measuring process.
    """

    def __init__(self, cores: tuple[int, ...], pid: int) -> None:
        self._cores = cores
        self._pid = pid
        self._begun = time.monotonic()
        self._busy_s = processes.busy_s(cores)
        self._own_s = processes.cpu_s(pid)

    def share(self) -> float | None:
        """The share since this was made, 0 to 1; None where it is not told. Ask before the process ends."""
        busy_s, own_s = processes.busy_s(self._cores), processes.cpu_s(self._pid)
        if busy_s is None or own_s is None or self._busy_s is None or self._own_s is None:
            return None
        taken_s = (busy_s - self._busy_s) - (own_s - self._own_s)
        passed_s = len(self._cores) * (time.monotonic() - self._begun)
        return round(min(1.0, max(0.0, taken_s / passed_s)), 3) if passed_s > 0 else 0.0


def after_thoughts(site: Site, others_share: float | None) -> list[str]:
    """What the board says at the end that makes the figures doubtful."""
    notes = []
    vitals = site.reader.read()
    if others_share is not None and others_share >= OTHERS_SHARE:
        notes.append(f"other programs took {others_share:.0%} of the engine's cores: the figures are too low")
    if vitals.throttled:
        notes.append("a clock is held below its hardware maximum: the figures are those of a throttled board")
    if vitals.under_voltage:
        notes.append("the supply voltage is too low: the board slows down; use a stronger supply")
    return notes
