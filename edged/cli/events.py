"""`edged events`: what happens to the nodes, a line each as it happens: levels, engine, pools, models."""

import sys
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from ..client import ClientError, Happened
from . import EX_INTERRUPTED, OVER_MQTT, app, broker
from .ask import complain, note
from .terminal import one_line

ALARMING = ("critical", "hot", "failed", "gone", "under_voltage", "set_aside", "slow")
"""Words in an event or its level that a person should see at once."""


@app.command(rich_help_panel=OVER_MQTT)
def events(  # noqa: PLR0917 - typer gives them by name
    node: Annotated[str | None, typer.Option(metavar="NAME", help="Of this node alone.")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after so many.")] = None,
    host: broker.Host = broker.HOST,
    port: broker.Port = broker.PORT,
    username: broker.Username = None,
    password_file: broker.PasswordFile = None,
    cafile: broker.CaFile = None,
    cert: broker.Cert = None,
    key: broker.Key = None,
    name: broker.Name = None,
    prefix: broker.Prefix = broker.PREFIX,
    as_json: broker.AsJson = False,
) -> None:
    """Follow what happens to the nodes, until interrupted.

    When something may have been missed, standard error says so.

    Exit codes: 0 so many came, 1 refused, 75 no broker, 130 interrupted.
    """
    out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    try:
        with broker.connect(host, port, username, password_file, cafile, cert, key, name, prefix) as client:
            if broker.interactive():
                note(f"waiting for what happens to {node or 'the nodes'} of {host}:{port}; Ctrl-C ends")
            for number, event in enumerate(client.events(node, missed=note), 1):
                if as_json:
                    told = {"node": event.node, "event": event.event, **event.fields}
                    print(msgspec.json.encode(told).decode(), flush=True)
                else:
                    out.print(line(event, time.strftime("%H:%M:%S")))
                if number == count:
                    break
        code = 0
    except KeyboardInterrupt:
        code = EX_INTERRUPTED
    except (ClientError, ValueError, OSError) as error:
        code = complain("edged events", error)
    sys.exit(code)


def line(event: Happened, clock: str) -> Text:
    """An event as one line: time, node, name, fields."""
    fields = "  ".join(f"{_short(name)}={_short(value)}" for name, value in event.fields.items())
    alarming = any(word in f"{event.event} {event.fields.get('level', '')}" for word in ALARMING)
    return Text.assemble(
        (f"{clock} ", "dim"),
        (f"{one_line(event.node):<12} ", "bold"),
        (one_line(_short(event.event)), "red" if alarming else "green"),
        f"  {one_line(fields)}" if fields else "",
    )


def _short(value: object) -> str:
    """One word: a line end in a text would begin a line that looks like another node's."""
    if isinstance(value, str) and not any(one.isspace() for one in value):
        return value
    return msgspec.json.encode(value).decode()
