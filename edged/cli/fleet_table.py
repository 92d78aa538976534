"""How a fleet looks to a person: one line a node, one node from near. Views in, tables out. No command."""

import os
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ..client import NodeView
from ..core.news import Health, Info, Membership
from ..core.topology import format_cores
from ..core.vitals import LEVELS
from .terminal import one_line

STYLES = {"cool": "green", "warm": "yellow", "hot": "red", "critical": "bold white on red"}
STALE_S = 60.0
"""Health that came so long ago is shown dimmed: intervals are 15 s unless set otherwise."""
ROOMY, NARROW = 100, 60
"""Columns of a terminal from which all is shown, and below which only what needs a look is."""
OTHERS_WIDTH, FEW_WIDTH = 54, 31
"""What the other columns take, of a terminal that is not roomy and of a narrow one: the names have the rest."""
NAME_WIDTH_MIN = 8
FIGURE_MAX = 1_000_000
"""No board says more; a node may say anything, and a hundred digits would take the columns of all others."""
STATUS_WIDTH, VERSION_WIDTH = 8, 20
"""Columns of a status, and of a version: a node may say anything, and would take those of all names."""
UNCUT = 1000
"""Columns of a pipe, which has none: what stands in it is for `grep`."""
ORDERS = ("name", "heat", "queue", "speed")
"""What the lines can be sorted by."""


def ordered(views: Sequence[NodeView], by: str) -> list[NodeView]:
    """The views in an order of `ORDERS`, the most remarkable first; names break ties."""

    def key(view: NodeView) -> tuple[float, str]:
        health = view.health
        if health is None or by == "name":
            return (0.0 if by == "name" else 1.0, view.name)
        if by == "heat":
            room_c = health.board.headroom_c
            return (-1000.0 * LEVELS.index(health.level) + (100.0 if room_c is None else room_c), view.name)
        if by == "queue":
            return (-health.queue - health.active, view.name)
        return (-(health.decode_tokens_per_s or 0.0), view.name)

    return sorted(views, key=key)


class FleetTable:
    """One line a node, as wide as the terminal lets it be; the selected one is marked."""

    def __init__(self, views: Sequence[NodeView], selected: str | None = None) -> None:
        self._views, self._selected = views, selected

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table for this terminal."""
        width = options.max_width
        roomy, narrow = width >= ROOMY, width < NARROW
        room = width if roomy else width - (FEW_WIDTH if narrow else OTHERS_WIDTH)
        table = Table(box=None, pad_edge=False, header_style="dim")
        names = ["node", "", "level", "temp", "queue"]
        names += [] if narrow else ["active", "tokens/s"]
        names += ["context"] if roomy else []
        names += [] if narrow else ["model"]
        names += ["version"] if roomy else []
        for name in names:
            right = name in {"temp", "queue", "active", "tokens/s", "context"}
            table.add_column(
                name,
                justify="right" if right else "left",
                # What may be wrapped gives way first: of all columns the model's, which cuts its text then.
                no_wrap=name != "model",
                overflow="ellipsis",
            )
        for view in self._views:
            cells = _cells(view, max(NAME_WIDTH_MIN, room))
            row = [*cells, _model(view), _version(view)] if roomy else [*cells[:7], _model(view)]
            table.add_row(*row[: len(names)], style="reverse" if view.name == self._selected else None)
        yield table


def paper() -> Console:
    """Where a table is printed once: as wide as the terminal, or in a pipe as wide as it needs to be."""
    out = Console()
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = UNCUT
    return out


def shortened(name: str, width: int) -> str:
    """A name in so many columns: its end stays, in which those of one hall differ."""
    if len(name) <= width:
        return name
    head = width // 2
    return f"{name[:head]}…{name[head + 1 - width :]}"


def _cells(view: NodeView, name_width: int) -> list[Text]:
    health = view.health
    cells = [Text(shortened(one_line(view.name), name_width), "bold"), standing(view)]
    if health is None or view.status != "online":
        return cells + [Text("")] * 6
    old = "dim" if (view.health_age_s or 0.0) > STALE_S else ""
    speed = health.decode_tokens_per_s
    return [
        *cells,
        Text(health.level, STYLES.get(health.level, "")),
        Text(temperature(view), old),
        Text(figure(health.queue), old),
        Text(figure(health.active), old),
        Text("" if speed is None else figure(speed, 1), old),
        Text("" if health.context is None else figure(health.context), old),
    ]


def figure(value: float, places: int = 0) -> str:
    """A number in a few columns, whatever it is."""
    if abs(value) > FIGURE_MAX:
        return f"{'<-' if value < 0 else '>'}{FIGURE_MAX}"
    return f"{value:.{places}f}"


def standing(view: NodeView) -> Text:
    """Whether it answers, in one word: its status, or why it takes no questions although it is there."""
    if view.status == "online" and view.health is not None and view.health.draining:
        return Text("draining", "yellow")
    if view.starting:
        return Text("starting", "yellow")
    return _cut(view.status, STATUS_WIDTH, "" if view.status == "online" else "red")


def _model(view: NodeView) -> Text:
    info = view.info
    if info is not None and info.model is None and (view.status != "offline" or view.starting):
        return Text(info.engine, "yellow")
    name = "" if info is None or info.model is None else info.model.name
    return Text(one_line(name), no_wrap=True, overflow="ellipsis")


def _version(view: NodeView) -> Text:
    return _cut("" if view.info is None else view.info.version, VERSION_WIDTH, "dim")


def _cut(word: str, width: int, style: str) -> Text:
    cut = Text(one_line(word), style)
    cut.truncate(width, overflow="ellipsis")
    return cut


def temperature(view: NodeView) -> str:
    """The zone nearest to its trip, as in `71/85 C`; empty where nothing is known."""
    hottest = view.hottest
    if hottest is None:
        return ""
    _, temp_c, trip_c = hottest
    return f"{figure(temp_c)} C" if trip_c is None else f"{figure(temp_c)}/{figure(trip_c)} C"


def closer(view: NodeView) -> RenderableType:
    """One node from near: what it runs, its zones and clocks, what came and went.

    Its words stand in `Text`: rich takes brackets in a string for its own markup.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    if view.info is not None:
        membership = view.info.membership if view.health is None else view.health.membership
        _add_info(grid, view.info, membership)
    if view.health is not None:
        _add_health(grid, view.health)
    return Group(Text(f"\n{one_line(view.name)}", "bold"), grid)


def _pools(pools: Sequence[str], membership: Membership | None) -> Text:
    names = one_line(", ".join(pools))
    if membership is None or not membership.out:
        return Text(names)
    return Text(f"{names} (out of them: {one_line(', '.join(membership.reasons)) or 'leaving'})", "yellow")


def _add_info(grid: Table, info: Info, membership: Membership | None) -> None:
    grid.add_row("board", Text(one_line(info.board or "unknown")))
    if info.model is not None:
        grid.add_row("model", Text(one_line(f"{info.model.name}, {info.model.quantisation}")))
    if info.cores is not None:
        engine, daemon = format_cores(info.cores.engine), format_cores(info.cores.daemon)
        grid.add_row("cores", f"engine {engine}, daemon {daemon}")
    if info.pools:
        grid.add_row("pools", _pools(info.pools, membership))
    if info.reason:
        grid.add_row("engine", Text(one_line(info.reason), "yellow"))


def _add_health(grid: Table, health: Health) -> None:
    if health.reason:
        grid.add_row("heat", Text(one_line(health.reason)))
    for name, zone in health.board.zones.items():
        trips = ", ".join(f"{trip.kind} {figure(trip.temp_c)}" for trip in zone.trips)
        now = "no reading" if zone.temp_c is None else f"{figure(zone.temp_c, 1)} C"
        grid.add_row("zone", Text(one_line(f"{name}: {now}" + (f" ({trips})" if trips else ""))))
    for clock in health.board.clocks:
        now_hz, top_hz = clock.now_hz, clock.hardware_max_hz
        if now_hz is not None and top_hz is not None:
            now, top = (figure(hz // 1_000_000) for hz in (now_hz, top_hz))
            grid.add_row("clock", Text(f"cores {clock.cores}: {now} of {top} MHz"))
    counts = health.counts
    grid.add_row(
        "questions",
        f"{counts.accepted} accepted, {counts.done} done, {counts.cancelled} cancelled, "
        f"{counts.errors} errors, {counts.refused} refused",
    )
