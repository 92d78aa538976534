"""`edged top`: the fleet as it is now, drawn anew every second from what the nodes keep at the broker.

Keys: arrows choose a node, enter looks closer, s sorts otherwise, d drains it, u takes it back, q ends. Draining
goes through the node's admin topics, which are off unless its settings switch them on.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from ..client import Client, ClientError, NodeView
from ..client.answer import CROWDED
from . import OVER_MQTT, app, broker
from .ask import complain
from .fleet_table import ORDERS, FleetTable, closer, ordered, paper
from .keys import key_within, single_keys
from .terminal import end_in_order, one_line

REDRAW_S = 1.0
ADMIN_S = 5.0
KEYS = "arrows choose · enter closer · s sort · d drain · u undrain · q quit"
UNBOUNDED = 10_000
"""Rows of what is not a screen."""


@app.command(rich_help_panel=OVER_MQTT)
def top(  # noqa: PLR0917 - typer gives them by name
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
    """Watch the fleet: level, temperature, queue, speed.

    Without a terminal, or on one that cannot be drawn on, it is printed once.

    Keys: arrows choose, enter looks closer, s sorts, d drains, u undrains, q ends.
    """
    end_in_order()
    code = 0
    try:
        with broker.connect(host, port, username, password_file, cafile, cert, key, name, prefix) as client:
            if as_json:
                for view in client.fleet():
                    print(msgspec.json.encode(view.as_json()).decode())
            elif not broker.interactive() or Console().is_dumb_terminal:
                paper().print(FleetTable(ordered(client.fleet(), "heat")))
            else:
                watch(client)
    except KeyboardInterrupt:
        pass  # the usual way to leave it
    except (ClientError, ValueError, OSError) as error:
        code = complain("edged top", error)
    sys.exit(code)


@dataclass(slots=True)
class Watching:
    """What the person has chosen."""

    by: str = "name"
    selected: str | None = None
    near: bool = False
    word: str = ""

    def press(self, key: str, views: list[NodeView]) -> str | None:
        """Take a key; returns the operation that the chosen node should carry out, where one is asked for."""
        names = [view.name for view in views]
        if key == "s":
            self.by = ORDERS[(ORDERS.index(self.by) + 1) % len(ORDERS)]
        elif key == "enter" and names:
            self.near = not (self.near and self.selected in names)
            self.selected = self.selected if self.selected in names else names[0]
        elif key in {"up", "down"} and names:
            at = names.index(self.selected) if self.selected in names else -1 if key == "down" else 0
            self.selected = names[(at + (1 if key == "down" else -1)) % len(names)]
        elif key in {"d", "u"}:
            if self.selected in names:
                return "drain" if key == "d" else "undrain"
            self.word = "choose a node first, with the arrow keys"
        return None

    def draw(
        self,
        views: list[NodeView],
        clock: str,
        *,
        connected: bool = True,
        crowded: bool = False,
        rows: int = UNBOUNDED,
    ) -> RenderableType:
        """The screen, of at most so many rows."""
        online = sum(view.status == "online" for view in views)
        head = f"edged top  {clock}  {online} of {len(views)} nodes online, by {self.by}"
        notes: list[RenderableType] = []
        if not views:
            notes.append(Text("no node has ever been at this broker; start one with edged run", "yellow"))
        if crowded:
            notes.append(Text(CROWDED, "yellow"))
        elif not connected:
            notes.append(
                Text("the broker is away: this is how it was; it is tried again and again", "yellow")
            )
        if self.word:
            notes.append(Text(one_line(self.word), "yellow"))
        chosen = next((view for view in views if view.name == self.selected), None)
        if self.near and chosen is not None:
            notes.append(closer(chosen))
        return _Screen(head, views, self.selected, notes, rows)


class _Screen:
    """Head, lines of nodes, notes and keys, in the rows that there are: of the nodes those about the chosen one."""

    def __init__(
        self,
        head: str,
        views: Sequence[NodeView],
        selected: str | None,
        notes: Sequence[RenderableType],
        rows: int,
    ) -> None:
        self._head, self._views, self._selected, self._notes = head, views, selected, notes
        self._free = max(1, rows - 3)  # beside head, titles and keys

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Group(*self._notes), options.update(height=None), pad=False)
        notes = lines[: self._free - 1] if self._notes else []
        rows = self._free - len(notes)
        first = _first_row([view.name for view in self._views], self._selected, rows)
        shown = self._views[first : first + rows]
        where = f", {first + 1} to {first + len(shown)} shown" if len(shown) < len(self._views) else ""
        yield Text(self._head + where, "bold", no_wrap=True, overflow="ellipsis")
        yield FleetTable(shown, self._selected)
        for line in notes:
            yield from line
            yield Segment.line()
        yield Text(KEYS, "dim", no_wrap=True, overflow="ellipsis")


def _first_row(names: Sequence[str], selected: str | None, rows: int) -> int:
    """Which line to begin with, so that the chosen one stands in the middle as far as the ends let it."""
    at = names.index(selected) if selected in names else 0
    return max(0, min(at - rows // 2, len(names) - rows))


def watch(client: Client) -> None:
    """Draw until q is pressed.

    Raises:
        ClientError: the connection is gone for good.
    """
    state = Watching()
    client.fleet()
    while _watch_on(client, state):
        # To all of the job, as a terminal does; here it goes on after the shell's fg.
        os.kill(0, signal.SIGTSTP)


def _watch_on(client: Client, state: Watching) -> bool:
    """Draw until a key ends it; whether it is to go on later, for the key was Ctrl-Z."""
    with single_keys(), Live(screen=True, auto_refresh=False) as live:
        while client.alive():
            views = ordered(client.fleet(settle=False), state.by)

            def draw(shown: list[NodeView] = views) -> None:
                screen = state.draw(
                    shown,
                    time.strftime("%H:%M:%S"),
                    connected=client.connected(),
                    crowded=client.crowded(),
                    rows=live.console.height,
                )
                live.update(screen, refresh=True)

            draw()
            key = key_within(REDRAW_S)
            if key in {"q", "suspend"}:
                return key == "suspend"
            if key is not None and (op := state.press(key, views)) is not None:
                node = state.selected or ""
                state.word = f"{node}: {op} is asked for"
                draw()
                state.word = _carry_out(client, op, node)
    raise ClientError("the connection to the broker has ended; start again")


def _carry_out(client: Client, op: str, node: str) -> str:
    try:
        client.admin(op, node, timeout_s=ADMIN_S)
    except ClientError as error:
        return str(error)
    return f"{node}: {op} is done"
