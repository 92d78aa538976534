"""`edged clocks`: the caps of the engine's clocks, who may lower them, and how to give them back."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import settings as configuration
from ..adapters.note import Note
from ..adapters.vitals import Caps, VitalsReader
from ..core.heat.clocks import decode, in_words, lowered
from ..core.topology import choose, format_cores
from ..errors import SettingsError
from ..node.clocks import NONE, NOTE, Clocks
from ..settings import Paths, Settings
from . import ON_THE_BOARD, app, settings_file


@app.command(rich_help_panel=ON_THE_BOARD)
def clocks(
    config: settings_file.Option = None,
    restore: Annotated[
        bool,
        typer.Option(
            "--restore", help="Give back what a daemon that was killed left lowered; not while one runs."
        ),
    ] = False,
) -> None:
    """Show the caps of the engine's clocks, or give them back.

    The service gives them back after every end by itself.

    Exit codes: 0 done, 1 caps that could not be given back, 78 wrong configuration.
    """
    if restore:
        sys.exit(0 if give_back(paths(settings_file.chosen(config))) else 1)
    settings = settings_file.load(config)
    caps, note = Caps(settings.paths.sys), Note(settings.paths.state / NOTE)
    reader = VitalsReader(settings.paths.sys, settings.paths.proc)
    found = caps.look(_cores(settings, reader))
    if not found:
        print(f"{NONE}: heat takes threads and time only")
    for one in found:
        held = ", the kernel throttles" if one.held else ""
        right = one.writable or caps.given(one.name)
        may = "may be lowered" if right else f"may not be lowered: {caps.right(one.name)}"
        print(
            f"{one.name}: cores {format_cores(one.cores)}, at most {one.cap_hz / 1e9:.2f} of "
            f"{one.highest_hz / 1e9:.2f} GHz{held}; {may}"
        )
    kept = decode(note.read())
    if kept is not None and lowered(kept, reader.boot_id(), found):
        print(f"a daemon that runs, or was killed, has lowered them; before: {in_words(kept.owners_hz)}")


def paths(config: Path | None) -> Paths:
    """Where board and note are; settings that are wrong by now are no reason to leave a board slow."""
    try:
        return configuration.load(config).paths
    except SettingsError:
        state = os.environ.get("STATE_DIRECTORY")  # systemd.exec(5): of the unit
        return Paths(state=Path(state)) if state else Paths()


def give_back(where: Paths) -> bool:
    """Restore the caps that the note names; True when nothing is left to give back."""
    boot_id = VitalsReader(where.sys, where.proc).boot_id()
    return Clocks(Caps(where.sys), (), Note(where.state / NOTE), boot_id).recover()


def _cores(settings: Settings, reader: VitalsReader) -> tuple[int, ...]:
    try:
        return choose(
            reader.topology(), frozenset(os.sched_getaffinity(0)), settings.engine.core_set()
        ).engine
    except ValueError as error:
        raise SettingsError(f"engine: {error}") from error
