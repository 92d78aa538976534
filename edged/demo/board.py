"""A node's `info` and `health` as a table for people. Pure: from JSON objects to a rich table.

What a board does not tell is left out, but for temperatures: their absence is said in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from edged.core.topology import format_cores

LEVEL_STYLE = {"cool": "green", "warm": "yellow", "hot": "red", "critical": "bold red"}

Json = dict[str, Any]


def table(info: Json, health: Json) -> Table:
    """Who the node is and how it is, one line a matter."""
    grid = Table(box=box.SIMPLE, show_header=False, pad_edge=True, padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows(info, health):
        grid.add_row(name, value)
    return grid


def rows(info: Json, health: Json) -> Iterator[tuple[str, Text]]:
    """The table's lines: name and value."""
    level = str(health.get("level", "unknown"))
    board: Json = health.get("board", {})
    yield "node", Text(str(info.get("node")))
    if info.get("board"):
        yield "board", Text(str(info["board"]))
    yield "cores", Text(str(info.get("cores", {}).get("reason", "")))
    why = health.get("reason", "") if board.get("zones") else ""  # else said below: there is no sensor
    yield "level", Text.assemble((level, LEVEL_STYLE.get(level, "")), (f"  {why}", "dim"))
    yield "temperature", _temperatures(board)
    if clocks := _clocks(board):
        yield "clocks", clocks
    if flags := _flags(board):
        yield "power", flags
    yield "memory", _memory(health.get("memory", {}), board)
    model = info.get("model", {})
    yield "model", Text(f"{model.get('name')}, {model.get('quantisation')}, {_mb(model.get('bytes', 0))}")
    if "decode_tokens_per_s" in health:
        yield (
            "speed",
            Text(
                f"{health['decode_tokens_per_s']:.1f} tokens/s answering, "
                f"{health.get('prefill_tokens_per_s', 0):.0f} tokens/s reading"
            ),
        )
    yield (
        "queue",
        Text(
            f"{health.get('queue', 0)} waiting, {health.get('active', 0)} running, {info.get('slots')} at a time"
        ),
    )
    yield "context", Text(f"{health.get('context', info.get('context_max'))} tokens")


def _temperatures(board: Json) -> Text:
    zones: Json = board.get("zones", {})
    if not zones:
        return Text("no thermal sensor on this machine")
    lines = []
    for name, zone in zones.items():
        temp_c = zone.get("temp_c")
        shown = "no reading" if temp_c is None else f"{temp_c:.1f} C"
        trips = ", ".join(f"{trip['kind']} {trip['temp_c']:g} C" for trip in zone.get("trips", []))
        lines.append(Text.assemble(f"{name} {shown}", (f"  {trips}" if trips else "", "dim")))
    return Text("\n").join(lines)


def _clocks(board: Json) -> Text:
    lines = []
    for clock in board.get("clocks", []):
        now, highest = clock.get("now_hz"), clock.get("max_hz") or clock.get("hardware_max_hz")
        rates = " of ".join(f"{hz / 1e9:.2f} GHz" for hz in (now, highest) if hz)
        governor = clock.get("governor")
        lines.append(
            Text.assemble(f"cores {format_cores(clock['cores'])} {rates}", (f"  {governor or ''}", "dim"))
        )
    return Text("\n").join(lines)


def _flags(board: Json) -> Text:
    told = []
    if board.get("throttled"):
        told.append("throttled: a clock is held below its hardware's maximum")
    if "under_voltage" in board:
        told.append("UNDER VOLTAGE: use a stronger supply" if board["under_voltage"] else "voltage good")
    return Text(", ".join(told))


def _memory(processes: Json, board: Json) -> Text:
    parts = [
        f"{name} {_mb(processes[key])}"
        for name, key in (("daemon", "daemon_rss_bytes"), ("engine", "engine_rss_bytes"))
        if key in processes
    ]
    total, free = board.get("memory_total_bytes"), board.get("memory_available_bytes")
    if total and free:
        parts.append(f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    return Text(", ".join(parts))


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
