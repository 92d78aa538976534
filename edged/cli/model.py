"""`edged model`: the models of a folder: add, list, verify, use, remove. Talks to no broker and loads nothing."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from ..errors import ModelError
from ..models.shelf import CURRENT, Model, Shelf
from . import EX_INTERRUPTED, ON_THE_BOARD, app, broker
from .fleet_table import paper
from .terminal import end_in_order, printable

model = typer.Typer(no_args_is_help=True)
app.add_typer(
    model,
    name="model",
    help="The models of a folder: add, list, verify, use, remove.",
    rich_help_panel=ON_THE_BOARD,
)

Folder = Annotated[
    Path,
    typer.Option(metavar="FOLDER", envvar="EDGED_MODELS", help="Folder of the models.", file_okay=False),
]
FOLDER = Path("/var/lib/edged/models")


def names(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell: the models that begin so."""
    folder = context.params.get("folder") or FOLDER
    return sorted(each.name for each in Path(folder).glob("*.gguf") if each.name.startswith(incomplete))


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="As `edged model list` shows it.", show_default=False, autocompletion=names
    ),
]


@model.command()
def add(  # noqa: PLR0917 - typer gives them by name
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="URL (http, https) or file.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(metavar="FILE", help="File name to keep it under.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HASH", help="What the source must hash to.")] = None,
    q4_0: Annotated[bool, typer.Option("--q4-0", help="Quantise to Q4_0 first; takes minutes.")] = False,
    folder: Folder = FOLDER,
    as_json: broker.AsJson = False,
) -> None:
    """Bring a model, verify it, keep it.

    Interrupted, the same command goes on where it ended. Exit codes: 0 it is there, 1 not, 130 interrupted.
    """
    end_in_order()
    os.umask(0o022)  # the service reads them under another account, whatever mask this one has
    with failing("add"), _progress() as tell:
        added = Shelf(folder).add(
            source, tell, name=name, sha256=sha256, to_q4_0=q4_0, waits=lambda: _waits(folder)
        )
    _told(as_json, f"{folder / added.name}\nsha256 {added.sha256}", added)


@model.command("list")
def list_(folder: Folder = FOLDER, as_json: broker.AsJson = False) -> None:
    """Show the models of the folder; the one in use is marked."""
    with failing("list"):
        models = Shelf(folder).models()
    if as_json:
        for each in models:
            print(msgspec.json.encode(each).decode())
    elif not models:
        print(f"no models in {folder}; bring one with edged model add", file=sys.stderr)
    else:
        paper().print(_table(models))


@model.command()
def verify(name: Name, folder: Folder = FOLDER, as_json: broker.AsJson = False) -> None:
    """Hash a model again; exit code 1 where it has changed."""
    with failing("verify"):
        intact = Shelf(folder).verify(name)
    word = "as it was added" if intact else "CHANGED since it was added; remove it and add it again"
    _told(as_json, f"{name}: {word}", {"name": name, "intact": intact})
    sys.exit(0 if intact else 1)


@model.command()
def use(name: Name, folder: Folder = FOLDER, as_json: broker.AsJson = False) -> None:
    """Make a model the current one, which a link names."""
    with failing("use"):
        Shelf(folder).use(name)
    link = folder / CURRENT
    _told(
        as_json,
        f"{link} is {name} now; edged loads it at its next start (systemctl restart edged)\n"
        f'if the settings name the link, under [model]: path = "{link}"',
        {"name": name, "link": str(link)},
    )


@model.command()
def remove(name: Name, folder: Folder = FOLDER, as_json: broker.AsJson = False) -> None:
    """Take a model off the folder; not the one in use."""
    with failing("remove"):
        Shelf(folder).remove(name)
    _told(as_json, f"{name}: removed", {"name": name, "removed": True})


@contextmanager
def failing(command: str) -> Iterator[None]:
    """What goes wrong is one line on standard error and exit code 1; an interrupt 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"edged model {command}: interrupted; the same command goes on with what is here", file=sys.stderr
        )
        sys.exit(EX_INTERRUPTED)
    except ModelError as error:
        bare = isinstance(error.__cause__, PermissionError) and "; " not in str(error)
        mend = "; use sudo, or another --folder" if bare else ""
        print(f"edged model {command}: {printable(str(error))}{mend}", file=sys.stderr)
        sys.exit(1)


def _waits(folder: Path) -> None:
    print(f"edged model add: another one is bringing a model to {folder}: this one waits", file=sys.stderr)


def _told(as_json: bool, words: str, told: object) -> None:
    print(msgspec.json.encode(told).decode() if as_json else words)


def _table(models: list[Model]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "model", "format", "size", "weights", "sha256"):
        table.add_column(
            column,
            no_wrap=column != "model",
            overflow="fold",
            justify="right" if column == "size" else "left",
        )
    for each in models:
        shape = each.shape
        table.add_row(
            "[green]*[/]" if each.in_use else "",
            Text(printable(each.name)),
            "[red]unusable[/]" if shape is None or each.fault else Text(printable(shape.quantisation)),
            f"{each.bytes / 1e6:.0f} MB",
            "" if shape is None else f"{shape.parameters / 1e6:.0f} M",
            (each.sha256 or "unknown")[:10],
        )
    return table


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal; nothing elsewhere."""
    figures = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        TextColumn("bringing it"),
        BarColumn(),
        *figures,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
