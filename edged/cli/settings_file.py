"""Which settings file a command reads that is given none: that of the service, where it exists. No command."""

from pathlib import Path
from typing import Annotated

import typer

from .. import settings as configuration
from ..errors import SettingsError
from ..settings import Settings

USUAL = Path("/etc/edged/edged.toml")
"""What the unit names."""
Option = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="EDGED_CONFIG",
        readable=False,  # a file that may not be read is told as any other that is wrong, with the same exit code
        help=f"Settings (TOML); else {USUAL}, where it exists.",
    ),
]


def chosen(given: Path | None) -> Path | None:
    """The file to read; None where none was given and the usual one is not there."""
    return given if given is not None or not _is_there(USUAL) else USUAL


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except PermissionError:
        return True  # in a folder that is closed to us: whoever reads the file says so


def load(given: Path | None) -> Settings:
    """The settings of that file and the environment.

    Raises:
        SettingsError: as `settings.load` has it; without a file its last line says how to give one.
    """
    file = chosen(given)
    try:
        return configuration.load(file)
    except SettingsError as error:
        if file is None:
            raise SettingsError(
                f"{error}\nno settings file: give one with --config FILE; configs/ has some to start from"
            ) from None
        raise
