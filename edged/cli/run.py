"""`edged run`: the daemon in the foreground, as systemd wants it."""

import sys

from .. import logs, settings
from . import ON_THE_BOARD, app, settings_file


@app.command(rich_help_panel=ON_THE_BOARD)
def run(
    config: settings_file.Option = None,
) -> None:
    """Answer questions until told to stop; the daemon itself.

    Exit codes: 0 told to stop, 70 something broke, 75 something is not to be had just now, 78 wrong configuration.
    """
    from .. import daemon  # noqa: PLC0415 - the other commands need not wait for it

    loaded, file = settings_file.load(config), settings_file.chosen(config)
    logs.configure(loaded.log.level, loaded.log.format)
    sys.exit(daemon.run(loaded, load=lambda: settings.load(file, again=True)))
