"""What the heat policy costs and saves, on paper: simulated boards for hours, under edged and under its rivals.

    python tests/bench/heat.py [--hours 1.5] [--target 2.5] [--hot 1] [--plot]

Prints a table; `--plot` draws `.github/heat.png` as well (matplotlib). The boards are models with published
figures, see tests/heat_model.py; the policy is the real one. Each board is asked without a pause, by one device or
by four.
(a) is the kernel alone, (b) three fixed thresholds, (c) edged, (d) edged without the right to lower clocks, (e) the
kernel alone once more, had the board its trip where edged holds the temperature: what the margin itself costs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from heat_model import (  # noqa: E402 - path above
    AS_COOL,
    COOLINGS,
    PI_5,
    ROCK_5B,
    Board,
    Result,
    Simulation,
    policies,
)

from edged.core.heat.margins import Margins  # noqa: E402 - path above

PLACES = (("no fan", 20.0), ("no fan", 30.0), ("no fan", 40.0), ("no fan", 45.0), ("fan", 40.0))
NAMES = {"kernel": "a", "thresholds": "b", "edged": "c", "edged, no clocks": "d", AS_COOL: "e"}
PLOT = Path(__file__).parents[2] / ".github" / "heat.png"


@dataclass(frozen=True, eq=False)
class Case:
    """One run; `policy` is a name of `heat_model.policies`."""

    board: Board
    cooling: str
    ambient_c: float
    streams: int
    policy: str
    hours: float
    margins: Margins

    @property
    def place(self) -> tuple[str, str, float, int]:
        """What is the same for all policies."""
        return self.board.name, self.cooling, self.ambient_c, self.streams


def run(case: Case) -> Result:
    """Simulate a case."""
    policy = policies(case.board, case.streams, case.margins)[case.policy]
    cooling = COOLINGS[case.board.name, case.cooling]
    held_c = case.board.trip_c - case.margins.target_c if case.policy == AS_COOL else None
    board = Simulation(case.board, cooling, policy, case.ambient_c, case.streams, held_c=held_c)
    return board.run(case.hours)


def table(results: dict[Case, Result]) -> str:
    """All runs in rows, a place after the other."""
    columns = "board, cooling, air, devices|policy|tokens/h|of (a)|of (b)|of (e)|highest C"
    heads = [*columns.split("|"), "above trip, s/h", "changes/h", "longest answer, s"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    hourly = {(case.place, case.policy): result.tokens_per_hour for case, result in results.items()}
    for case, result in results.items():
        board, cooling, ambient_c, streams = case.place
        of = [hourly[case.place, rival] for rival in ("kernel", "thresholds", AS_COOL)]
        lines.append(
            f"| {board}, {cooling}, {ambient_c:.0f} C, {streams} | ({NAMES[case.policy]}) {case.policy} "
            f"| {result.tokens_per_hour:.0f} "
            + "".join(f"| {result.tokens_per_hour / one:.2f} " if one else "| - " for one in of)
            + f"| {result.highest_c:.1f} | {result.above_trip_s * 2 / case.hours:.0f} "
            f"| {result.changes_per_hour:.1f} | {result.latency_s:.0f} |"
        )
    return "\n".join(lines)


def plot(results: dict[Case, Result]) -> None:
    """Temperatures over time in warm air without a fan, and tokens an hour at each place."""
    import matplotlib as mpl  # noqa: PLC0415 - only for plots

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 - after the choice of the backend

    figure, axes = pyplot.subplots(2, 2, figsize=(12, 7.5), constrained_layout=True)
    colours = {
        "kernel": "tab:red",
        "thresholds": "tab:orange",
        "edged": "tab:blue",
        "edged, no clocks": "tab:cyan",
    }
    for row, (board, ambient_c) in enumerate(((ROCK_5B, 40.0), (PI_5, 30.0))):
        left, right = axes[row]
        for case, result in results.items():
            if case.place == (board.name, "no fan", ambient_c, 1) and case.policy in colours:
                minutes = [second / 60 for second in result.seconds]
                left.plot(minutes, result.temps_c, color=colours[case.policy], label=case.policy, linewidth=1)
        left.axhline(board.trip_c, color="black", linestyle="--", linewidth=0.8, label="first trip")
        left.set(
            title=f"{board.name}, no fan, air at {ambient_c:.0f} C, one device",
            xlabel="minutes",
            ylabel="chip, C",
            xlim=(0, 60),
        )
        left.legend(fontsize=8)
        for at, (name, colour) in enumerate(colours.items()):
            heights = [
                result.tokens_per_hour / 1000
                for case, result in results.items()
                if (case.board, case.policy, case.streams) == (board, name, 1)
            ]
            places = [place + 0.2 * at for place in range(len(heights))]
            right.bar(places, heights, 0.2, color=colour, label=name)
        right.set(title=f"{board.name}, one device (on paper)", ylabel="thousand tokens an hour")
        right.set_xticks(
            [n + 0.3 for n in range(len(PLACES))], [f"{how}\n{c:.0f} C" for how, c in PLACES], fontsize=8
        )
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=80)


def main() -> int:
    """Simulate all cases."""
    parser = argparse.ArgumentParser(description="The heat policy beside its rivals, on paper.")
    parser.add_argument("--hours", type=float, default=1.5, help="of each run; the second half counts")
    parser.add_argument("--plot", action="store_true", help=f"draw {PLOT.parent.name}/{PLOT.name}")
    usual = Margins()
    parser.add_argument("--target", type=float, default=usual.target_c, help="`heat.target_c` of edged")
    parser.add_argument("--hot", type=float, default=usual.hot_c, help="`heat.hot_c` of edged")
    arguments = parser.parse_args()
    margins = replace(usual, target_c=arguments.target, hot_c=arguments.hot)
    cases = [
        Case(board, cooling, ambient_c, streams, policy, arguments.hours, margins)
        for board in (ROCK_5B, PI_5)
        for streams in (1, 4)
        for cooling, ambient_c in PLACES
        for policy in NAMES
    ]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        results = dict(zip(cases, pool.map(run, cases), strict=True))
    print(table(results))
    if arguments.plot:
        plot(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
