"""`edged doctor`: everything that this board, its model, its broker and its service need, on one screen."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .. import settings as configuration
from ..adapters.vitals import VitalsReader
from ..core.board import as_json as board_json
from ..core.checks import node as node_checks
from ..core.checks.node import file_in
from ..core.checks.verdict import Verdict, exit_code
from ..doctor import screen
from ..doctor.looking import look
from ..errors import SettingsError
from ..settings import Settings
from ..settings.network import hidden
from . import ON_THE_BOARD, app, settings_file
from .config import warnings
from .terminal import end_in_order


@app.command(rich_help_panel=ON_THE_BOARD)
def doctor(
    config: settings_file.Option = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not hash the model, nor load llama.cpp.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The verdicts and the board as JSON.")] = False,
) -> None:
    """Look at board, model, broker and service, and say what mends.

    Exit codes: 0 all is well, 1 warnings, 2 failures.
    """
    end_in_order()
    file = settings_file.chosen(config)
    given = "" if file in {None, settings_file.USUAL} else f" --config {shlex.quote(str(file))}"
    settings, told = _settings(file)
    looked = partial(look, settings, told, given=given, quick=quick)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("looking at the board", spinner="dots") as status:
            verdicts = node_checks.once(list(looked(tell=lambda what: status.update(f"looking at {what}"))))
    else:
        verdicts = node_checks.once(list(looked(tell=lambda _: None)))
    if as_json:
        reader = VitalsReader() if settings is None else VitalsReader(settings.paths.sys, settings.paths.proc)
        print(json.dumps(screen.as_json(verdicts, board_json(reader.board())), ensure_ascii=False))
    else:
        out = Console(highlight=False)
        out.print(screen.table(verdicts, ascii_only=out.options.ascii_only))
        out.print(screen.summary(verdicts))
    sys.exit(exit_code(verdicts))


def _settings(file: Path | None) -> tuple[Settings | None, list[Verdict]]:
    """The settings, and verdicts on them."""
    try:
        settings = configuration.load(file)
    except SettingsError as error:
        return None, node_checks.settings(None if file is None else str(file), str(error).splitlines(), ())
    name = None if file is None else str(file)
    told = [one for one in warnings(settings) if not ((path := file_in(one)) and hidden(Path(path)))]
    return settings, node_checks.settings(name, (), told)
