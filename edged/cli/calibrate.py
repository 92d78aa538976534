"""`edged calibrate`: times the configured model on this board and writes what the daemon then goes by."""

import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..adapters import calibration_file
from ..core.calibration import Calibration
from ..errors import EngineError, ModelError, NotNowError, SettingsError
from ..measuring import tables
from ..measuring.calibrating import CONTEXT
from ..measuring.calibrating import calibrate as run_trials
from ..measuring.site import Site, check, find
from . import ON_THE_BOARD, app, settings_file
from .terminal import end_in_order

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", metavar="FILE", help="Measure this GGUF file in place of the configured one."
    ),
]
AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Measure although another engine computes on the same cores.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The figures as JSON on standard output.")]


@app.command(rich_help_panel=ON_THE_BOARD)
def calibrate(  # noqa: PLR0917 - typer gives them by name
    config: settings_file.Option = None,
    model: ModelOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Half a minute in place of one or two.")] = False,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write a plot as SVG.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Measure and show, but write nothing for the daemon.")
    ] = False,
) -> None:
    """Find the threads and pages that suit this board, and its speed.

    Writes `calibration.json` into `paths.state`; the daemon goes by it from its next start on. Nothing is written
    of another model than the daemon's.

    Exit codes: 0 done, 1 failed, 75 not now (another engine is busy), 78 wrong configuration.
    """
    end_in_order()
    console = Console(stderr=True, highlight=False)
    if svg is not None and not os.access(svg.parent, os.W_OK):
        sys.exit(_failed(f"--svg {svg}: {svg.parent} is no folder that may be written; name another", 1))
    try:
        other = _other(config, model)
        dry = dry or other is not None
        site = find(lambda: settings_file.load(config), model)
        if not dry:
            calibration_file.try_folder(site.state)
        notes = check(site, CONTEXT, anyway=anyway)
        made = _measured(console, site, notes, quick=quick)
        written = None if dry else calibration_file.write(site.state, made)
        if svg is not None:
            svg.write_text(tables.calibration_svg(made), "utf-8")
    except NotNowError as error:
        sys.exit(_failed(error, os.EX_TEMPFAIL))
    except (EngineError, ModelError) as error:
        sys.exit(_failed(error, 1))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}; the account of the service or root may write there"
        sys.exit(_failed(reason, 1))
    if as_json:
        print(msgspec.json.encode(made).decode())
    else:
        _show(Console(highlight=False), made, written)
        if other is not None:
            print(f"not written: the daemon's model is {other}; set model.path to this one, then calibrate")


def _other(config: Path | None, model: Path | None) -> Path | None:
    """The model of the settings, where another one is measured: what was measured of that one shall stay."""
    try:
        path = None if model is None else settings_file.load(config).model.path
    except SettingsError:
        return None  # there is none, or `find` says what is wrong
    return None if path is None or model is None or path.resolve() == model.resolve() else path


def _measured(console: Console, site: Site, notes: list[str], *, quick: bool) -> Calibration:
    columns = (TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading the model", total=1.0)

        def tell(what: str, done: float) -> None:
            progress.update(task, description=what, completed=done)

        return run_trials(site, notes, quick=quick, tell=tell)


def _show(console: Console, made: Calibration, written: Path | None) -> None:
    console.print(tables.calibration_table(made))
    for sentence in tables.calibration_words(made):
        console.print(Text(sentence))
    for note in made.notes:
        console.print(Text(f"doubtful: {note}", style="yellow"))
    if written is not None:
        console.print(
            Text(f"written to {written}; the daemon goes by it from its next start on", style="dim")
        )


def _failed(reason: object, code: int) -> int:
    print(f"edged calibrate: {reason}", file=sys.stderr)
    return code
