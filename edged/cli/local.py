"""`edged status`, `drain`, `undrain`: the daemon on this machine, for its operator and for playbooks."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..client.local import PLACES, NoDaemonError, order, usual
from . import ON_THE_BOARD, app
from .terminal import one_line

LOOK_S = 0.5

Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        metavar="FILE",
        envvar="EDGED_SOCKET",
        readable=False,  # who may not ask is told who may
        help=f"The daemon's socket; else {' or '.join(map(str, PLACES))}.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@app.command(rich_help_panel=ON_THE_BOARD)
def status(socket: Socket = None, as_json: AsJson = False) -> None:
    """Tell where the daemon on this machine stands.

    Exit codes: 0, or 69 where none answers.
    """
    _print(_order(socket, "status"), as_json=as_json)


@app.command(rich_help_panel=ON_THE_BOARD)
def drain(
    socket: Socket = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Longest wait; 0 does not wait.")
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Take no new questions, and wait until the others are answered.

    The node leaves its pools, and stays drained until `edged undrain` or its next start.

    Exit codes: 0 it is idle, 69 no daemon
    answers, 75 it was not idle in time.
    """
    _order(socket, "drain")
    end = time.monotonic() + timeout
    told = _order(socket, "status")
    while not told["idle"] and time.monotonic() < end:
        time.sleep(LOOK_S)
        told = _order(socket, "status")
    _print(told, as_json=as_json)
    if timeout and not told["idle"]:
        print(
            f"not idle after {timeout:g} s; the node stays drained: wait again, or undrain", file=sys.stderr
        )
        sys.exit(os.EX_TEMPFAIL)


@app.command(rich_help_panel=ON_THE_BOARD)
def undrain(socket: Socket = None, as_json: AsJson = False) -> None:
    """Take questions on again.

    Exit codes: 0, or 69 where no daemon answers.
    """
    _order(socket, "undrain")
    _print(_order(socket, "status"), as_json=as_json)


def _order(socket: Path | None, op: str) -> dict[str, Any]:
    try:
        result = order(socket or usual(), op)
    except NoDaemonError as error:
        _end(str(error))
    if result.status == "error":
        _end(f"{op}: {result.error}")
    return result.data


def _end(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(os.EX_UNAVAILABLE)


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    words = ["draining" if told["draining"] else "online" if told["online"] else "starting"]
    count = told["jobs"]
    questions = f"{count} question" if count == 1 else f"{count} questions"
    words += ["idle"] if told["idle"] else [questions, f"{told['running']} running"]
    words += [] if told["connected"] else ["no broker"]
    words += [f"the disk takes nothing ({told['disk']})"] if told.get("disk") else []
    engine = f"engine {told['engine']}{f' ({one_line(why)})' if (why := told.get('reason')) else ''}"
    print(f"{told['node']} {told['version']}: {', '.join(words)}; {engine}, {told['level']}")
