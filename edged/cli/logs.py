"""`edged logs`: the service's lines in systemd's journal, asked for by edged's own fields. Runs journalctl.

Exit codes: those of journalctl, whose place this process gives up; 69 (`os.EX_UNAVAILABLE`) where there is no
journal, 77 (`os.EX_NOPERM`) where it may not be read.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from . import ON_THE_BOARD, app

PLACES = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Where systemd-journald keeps the system's journal, systemd-journald.service(8)."""
UNIT = "edged"


@app.command(rich_help_panel=ON_THE_BOARD)
def logs(  # noqa: PLR0917 - typer gives them by name
    job: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Of this question; more than one: any.")
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of this device; more than one: any.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of this name, such as job_finished; more than one: any."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="From this time on: yesterday, -2h, '2026-01-31 08:00'; systemd.time(7)."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    priority: Annotated[
        str | None,
        typer.Option("--priority", "-p", metavar="LEVEL", help="This and worse: err, warning, info, debug."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", metavar="FOLDER", help="A journal from elsewhere: that of a card in a reader."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all fields.")] = False,
) -> None:
    """Show the log of edged's service, all of it or what is asked for.

    Exit codes: those of journalctl, 69 there is no journal, 77 it may not be read.
    """
    program = shutil.which("journalctl")
    if program is None:
        _refuse(
            "there is no journalctl here: in the journal stands what runs under systemd; what `edged run` logs in a"
            " terminal or container stands where its standard error goes",
            os.EX_UNAVAILABLE,
        )
    found, readable = journals(PLACES if directory is None else (directory,))
    if not found:
        where = "here: is systemd-journald running?" if directory is None else f"in {directory}"
        _refuse(f"there are no journal files {where}", os.EX_UNAVAILABLE)
    if not readable:
        _refuse(
            "the journal may not be read: join the group systemd-journal (sudo usermod -aG systemd-journal $USER,"
            " then log in again), or use sudo",
            os.EX_NOPERM,
        )
    given = arguments(
        job=job or (),
        client=client or (),
        event=event or (),
        since=since,
        follow=follow,
        priority=priority,
        directory=directory,
        as_json=as_json,
    )
    os.execv(program, ["journalctl", *given])  # noqa: S606 - its pager, its signals and its exit code are the answer


def arguments(
    *,
    job: Sequence[str] = (),
    client: Sequence[str] = (),
    event: Sequence[str] = (),
    since: str | None = None,
    follow: bool = False,
    priority: str | None = None,
    directory: Path | None = None,
    as_json: bool = False,
) -> list[str]:
    """What journalctl is called with. Of one field any value fits, of several fields all must (journalctl(1))."""
    wanted = {"EDGED_JOB_ID": job, "EDGED_CLIENT": client, "EDGED_EVENT": event}
    options = [f"--unit={UNIT}"]
    options += [] if directory is None else [f"--directory={directory}"]
    options += [] if since is None else [f"--since={since}"]
    options += [] if priority is None else [f"--priority={priority}"]
    options += ["--follow"] if follow else []
    options += ["--output=json"] if as_json else []
    return options + [f"{name}={value}" for name, values in wanted.items() for value in values]


def journals(places: tuple[Path, ...]) -> tuple[int, int]:
    """How many journal files lie there, and how many of them may be read."""
    files = [
        file for place in places for pattern in ("*.journal", "*/*.journal") for file in place.glob(pattern)
    ]
    return len(files), sum(os.access(file, os.R_OK) for file in files)


def _refuse(why: str, code: int) -> NoReturn:
    print(f"edged logs: {why}", file=sys.stderr)
    sys.exit(code)
