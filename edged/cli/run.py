"""`edged run`: the daemon in the foreground, as systemd wants it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import logs, settings
from . import app


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="EDGED_CONFIG", help="TOML file; see `edged config schema`."),
    ] = None,
) -> None:
    """Answer questions until told to stop."""
    from .. import daemon  # noqa: PLC0415 - the other commands need not wait for it

    loaded = settings.load(config)
    logs.configure(loaded.log.level, loaded.log.format)
    sys.exit(daemon.run(loaded, load=lambda: settings.load(config)))
