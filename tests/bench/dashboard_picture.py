"""The panels of the node's Grafana dashboard as a picture: what a real Prometheus answers to their expressions.

Belongs to pictures.py. Grafana itself does not run here: matplotlib draws the panels of `deploy/grafana/panels.py`.
The node is real and its model scripted; its board is a tree of files that is warmed by hand, so that there is
something to see: 90 s of questions, some too many, a board that gets hot and cools, a larger server that is away.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boards
import matplotlib as mpl
from broker import Mosquitto, free_port
from daemon_process import DaemonProcess
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from prometheus import Prometheus

sys.path.append(str(Path(__file__).parents[2] / "deploy" / "grafana"))

from panels import HEAT, HOUSE, NUMBERS, SPEED, WORK, Panel, Query

from edged.client import Client, ClientError

NODE = "press-hall"
LASTS_S = 90.0
STEP_S = 2.0
WINDOW = "15s"
DEVICES = 8
STEADY = 3
"""So many of them ask all the time; the others come and go together."""
TIDE_S = 24.0
WARMTH = ((0.0, 62.0), (0.25, 70.0), (0.4, 80.0), (0.5, 83.5), (0.6, 84.0), (0.68, 76.0), (1.0, 66.0))
"""Share of the time, degrees: what the hand does to the big cores."""
BACK, CARD, INK, SOFT, GRID = "#111217", "#181b1f", "#d8d9da", "#8e8e99", "#2c3235"
COLOURS = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#5794f2", "#96d98d", "#ffb357")
NAMED = {"green": "#73bf69", "yellow": "#f2cc0c", "orange": "#ff780a", "red": "#f2495c"}
SHORT = frozenset({"short", "s", "bytes", "hertz", "celsius", "percentunit", "reqps"})
UNITS = {"hertz": " GHz", "celsius": " °C", "percentunit": " %", "reqps": "/s", "short": ""}
COLUMNS = 3


def dashboard(file: Path) -> None:
    """Run a node under a Prometheus, then draw every panel."""
    with tempfile.TemporaryDirectory(prefix="edged-") as place, ExitStack() as stack:
        home = Path(place)
        for name in ("broker", "prometheus", "node"):
            (home / name).mkdir()
        broker = Mosquitto(home / "broker").start()
        stack.callback(broker.stop)
        key, port = home / "key", free_port()
        key.write_text("a-key-of-thirty-two-characters--\n")
        tree = boards.rk3588_mainline(home / "tree")
        sections: dict[str, dict[str, Any]] = {
            "node": {"id": NODE, "pools": ["hall"]},
            "http": {"enabled": True, "port": port, "key_file": str(key)},
            "paths": {"sys": str(tree / "sys"), "state": str(home / "state")},
            "limits": {"queue_jobs": 7, "client_jobs": 7},
            "upstream": {"url": f"http://127.0.0.1:{free_port()}/v1", "model": "big", "when": ["asked"]},
            "heat": {"interval_s": 1.0, "dwell_s": 5.0},
        }
        node = DaemonProcess(home / "node", broker.host, broker.port, sections, scripted=True)
        stack.callback(node.close)
        node.start()
        prometheus = Prometheus(home / "prometheus", f"127.0.0.1:{port}", key)
        stack.callback(prometheus.stop)
        prometheus.start()
        prometheus.wait(lambda: prometheus.query("edged_online == 1"))
        with Client("127.0.0.1", broker.port, node=NODE) as client:
            for _ in range(3):  # rates of a model that takes its time
                client.ask(f"tokens=20 step_ms=60 read_ms=4 {'word ' * 40}").text()
        prometheus.wait(lambda: prometheus.query("edged_questions_ended_total{outcome='done'} == 3"))
        begun_s = time.time()
        work(broker.port, tree)
        draw(file, prometheus, begun_s, time.time())


def work(port: int, tree: Path) -> None:
    """Ask and warm for a while."""
    over = threading.Event()
    threads = [threading.Thread(target=ask, args=(port, number, over)) for number in range(DEVICES)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    while (share := (time.monotonic() - begun) / LASTS_S) < 1:
        for (at, low), (end, high) in itertools.pairwise(WARMTH):
            if at <= share < end:
                temp_c = low + (high - low) * (share - at) / (end - at)
                boards.set_temp_c(tree, "bigcore0-thermal", round(temp_c, 1))
                boards.set_temp_c(tree, "bigcore2-thermal", round(temp_c - 2.5, 1))
        time.sleep(0.5)
    over.set()
    for thread in threads:
        thread.join()


def ask(port: int, number: int, over: threading.Event) -> None:
    """A device: asks, of every ninth question the larger server, takes some back, tries again when refused."""
    with Client("127.0.0.1", port, name=f"press-{number}", node=NODE) as client:
        for count in itertools.count():
            if over.is_set():
                return
            if number >= STEADY and time.monotonic() % TIDE_S > TIDE_S / 2:
                over.wait(1.0)
                continue
            tokens = 8 + 7 * (count % 4) + 3 * number
            model: dict[str, Any] = {"model": "large"} if count % 9 == number else {}
            words = f"tokens={tokens} step_ms=60 read_ms=4 " + "word " * (20 + 9 * number)
            answer = client.ask(words, priority="normal" if number % 2 else "interactive", **model)
            try:
                if count % 8 == 7:
                    answer.cancel()
                answer.text()
            except ClientError:
                over.wait(0.5)
            over.wait(0.25 * number)


def draw(file: Path, prometheus: Prometheus, begun_s: float, ended_s: float) -> None:
    """The panels, as `dashboards.py` lays them out."""
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 8, "font.family": "sans-serif"})
    panels = [*WORK, *SPEED, *HEAT, *HOUSE]
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(14, 1.1 + 2.25 * rows), facecolor=BACK)
    sides = {"left": 0.045, "right": 0.985, "hspace": 0.62, "wspace": 0.16}
    tiles = figure.add_gridspec(1, len(NUMBERS), top=0.982, bottom=0.957, **sides)
    grid = figure.add_gridspec(rows, COLUMNS, top=0.935, bottom=0.03, **sides)
    for number, panel in enumerate(NUMBERS):
        one = figure.add_subplot(tiles[0, number])
        last = [line for query in panel.queries for line in prometheus.query(filled(query))]
        tile(one, panel, float(last[0]["value"][1]) if last else math.nan)
    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        lines = {
            legend(query, series["metric"]): [(float(at) - begun_s, float(v)) for at, v in series["values"]]
            for query in panel.queries
            for series in prometheus.query_range(filled(query), begun_s, ended_s, STEP_S)
        }
        chart(figure.add_subplot(grid[row, column]), panel, lines, ended_s - begun_s)
    figure.savefig(file, facecolor=BACK, metadata={"Date": None})


def filled(query: Query) -> str:
    """The expression, as Grafana would send it."""
    return query.expr.replace("$__rate_interval", WINDOW).replace('"$instance"', '".*"')


def legend(query: Query, labels: dict[str, str]) -> str:
    """What a series is called."""
    named = {**labels, "instance": NODE}
    return re.sub(r"{{(\w+)}}", lambda found: named.get(found[1], ""), query.legend)


def tile(one: Axes, panel: Panel, value: float) -> None:
    """A number."""
    one.set(xticks=[], yticks=[], facecolor=CARD)
    words, colour = (panel.words or {}).get(f"{value:g}", (shown(value, panel.unit), "green"))
    one.set_title(panel.title, color=INK, loc="left", fontsize=8)
    one.text(
        0.5, 0.45, words, color=NAMED[colour], fontsize=13, ha="center", va="center", transform=one.transAxes
    )
    for spine in one.spines.values():
        spine.set_color(GRID)


def chart(one: Axes, panel: Panel, lines: dict[str, list[tuple[float, float]]], lasted_s: float) -> None:
    """Lines over time; dashed for trips, as in Grafana."""
    one.set_facecolor(CARD)
    told = panel.unit if panel.unit not in SHORT else ""
    one.set_title(f"{panel.title}, {told}" if told else panel.title, color=INK, loc="left", fontsize=9)
    one.grid(color=GRID, linewidth=0.6)
    one.tick_params(colors=SOFT, length=0)
    for spine in one.spines.values():
        spine.set_color(GRID)
    for (name, points), colour in zip(lines.items(), itertools.cycle(COLOURS), strict=False):
        times, values = zip(*points, strict=True)
        trip = name.startswith("trip: ")
        style: dict[str, Any] = {"linestyle": "--", "linewidth": 0.9} if trip else {"linewidth": 1.3}
        one.plot(
            times, values, color=colour, label=name.removeprefix("trip: ").removeprefix(f"{NODE} "), **style
        )
        if panel.kind == "stack":
            one.fill_between(times, values, color=colour, alpha=0.18, linewidth=0)
    one.set_xlim(0, lasted_s)
    if panel.least is not None:
        highest = max(
            (value for points in lines.values() for _, value in points if math.isfinite(value)), default=0.0
        )
        one.set_ylim(panel.least, 1.08 * highest or 1.0)
    if panel.words:
        one.set_ylim(-0.15, len(panel.words) - 0.85)
        one.set_yticks([float(value) for value in panel.words], [word for word, _ in panel.words.values()])
    else:
        one.yaxis.set_major_formatter(lambda value, _place: shown(value, "short" if told else panel.unit))
    one.xaxis.set_major_formatter(lambda value, _place: f"{value:g} s")
    one.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.1),
        ncols=3 if len(lines) <= 9 else 4,
        fontsize=6.5,
        frameon=False,
        labelcolor=SOFT,
        handlelength=1.2,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def shown(value: float, unit: str) -> str:
    """A value with its unit, shortened as Grafana does."""
    scale, name = 1.0, UNITS.get(unit, f" {unit}")
    if unit == "bytes":
        scale, name = (2.0**30, " GiB") if value >= 2**30 else (2.0**20, " MiB")
    elif unit == "hertz":
        scale = 1e9
    elif unit == "percentunit":
        scale = 0.01
    elif unit == "s" and 0 < value < 1:
        scale, name = 1e-3, " ms"
    return f"{value / scale:.4g}{name}"
