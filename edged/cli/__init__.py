"""The command line: the typer app, and `main`, which turns what commands raise into exit codes.

Each file in this folder is one command and adds itself to `app` when it is imported. `main` imports only the
file of the command that was asked for, so `edged ask` does not wait for what `edged run` needs; the help
imports all. No command lives here.
"""

import errno
import inspect
import os
import pkgutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .. import __version__
from ..errors import NotNowError, SettingsError

EX_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EX_NO_READER = 141  # 128 + SIGPIPE
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
OVER_MQTT, ON_THE_BOARD = "Over MQTT, from anywhere", "On the board"
"""Under which words the help lists the commands."""

app = typer.Typer(
    name="edged",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its boxes hide the traceback from logs, and can show local variables
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"edged {__version__}")
        raise typer.Exit


@app.callback()
def edged(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Answers the questions of IoT devices on the board beside them."""


def load_commands(arguments: Sequence[str]) -> None:
    """Imports the file of the command in `arguments`, or all where there is none of that name but a version."""
    if arguments[:1] == ["--version"]:
        return
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name in [asked] if asked in files else files:
        import_module(f"{__name__}.{name}")


def reflow(text: str) -> str:
    """A docstring as a help text: the breaks of our lines are not the terminal's."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n"))


def _reflow_all(group: typer.Typer) -> None:
    for command in group.registered_commands:
        command.help = reflow(command.help or getattr(command.callback, "__doc__", None) or "")
    for below in group.registered_groups:
        if below.typer_instance is not None:
            _reflow_all(below.typer_instance)


def _mend_streams() -> None:
    """Let no command die of its streams.

    Closed ones, as some schedulers have them, lead to nowhere; a character that the terminal's encoding lacks
    becomes a question mark; each line is written at once, so that a pipe that nobody reads any more is known to the
    command, and not only to Python as it ends; and where COLUMNS says that there are none the width is unknown, for
    rich prints nothing there.
    """
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for as long as we run
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the same
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the same
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is told where it is asked
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            usual = stream.errors in {"strict", "surrogateescape"}  # the second in the locale C
            stream.reconfigure(errors="replace" if usual else None, line_buffering=True)


def is_no_room(error: OSError) -> bool:
    """Whether there is no room for what we print: of a file it would name the file."""
    return error.filename is None and error.errno in NO_ROOM


def _tell(text: str) -> None:
    with suppress(OSError):  # it may go to the same full disk
        print(text, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and ends the process.

    Exit codes: 0 done, 2 wrong usage, 74 what it prints cannot be written, 75 not now, 78 wrong configuration (the
    error's lines stand on standard error), 130 interrupted, 141 nobody reads on; commands may have others of their
    own.
    """
    given = sys.argv[1:] if arguments is None else arguments
    _mend_streams()
    try:
        load_commands(given)
        _reflow_all(app)
        app(given, prog_name="edged")
    except SettingsError as error:
        _tell(str(error))
        sys.exit(os.EX_CONFIG)
    except NotNowError as error:
        _tell(str(error))
        sys.exit(os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        sys.exit(EX_INTERRUPTED)
    except OSError as error:
        if not is_no_room(error):
            raise
        _tell(f"edged: what it prints cannot be written: {error.strerror}; make room there")
        sys.exit(os.EX_IOERR)
    except SystemExit as ended:
        # rich and typer end with 1 there, which means other things.
        if isinstance(ended.__context__, BrokenPipeError):
            sys.exit(EX_NO_READER)
        raise
    sys.exit(0)
