"""The command line, as the console script `edged` and as `python -m edged`."""

import sys


def main() -> None:
    """Runs the command that is asked for; Ctrl-C ends it without a traceback, also while its parts are loaded.

    On a small board that takes a second or two, in which a person may think again.
    """
    try:
        from .cli import main as run  # noqa: PLC0415 - what takes the time
    except KeyboardInterrupt:
        sys.exit(130)  # as `cli.EX_INTERRUPTED`, which may not be there yet
    run()


if __name__ == "__main__":
    main()
