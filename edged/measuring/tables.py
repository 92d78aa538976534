"""Measurements for people: tables with bars for a terminal, a plot as SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from rich import box
from rich.table import Table
from rich.text import Text

from edged.core.calibration import Calibration, Kind, Trial, bandwidth_share, of_kind
from edged.core.topology import format_cores
from edged.measuring.benching import Bench

BAR_CELLS = 12
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """A bar of at most `cells` characters; `share` is 0 to 1."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8].strip())


def calibration_table(made: Calibration) -> Table:
    """Rates over thread counts, decode and prefill side by side, the chosen ones marked. 80 columns are enough."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    grid.add_column("cores", no_wrap=True)
    grid.add_column("threads", justify="right", no_wrap=True)
    for name in ("decode", "prefill"):
        grid.add_column(name, justify="right", no_wrap=True)
        grid.add_column("tokens/s", no_wrap=True)
    sets = sorted({trial.cores for trial in made.trials}, key=lambda cores: (cores != made.key.cores, cores))
    for cores in sets:
        decode, prefill = of_kind(made.trials, "decode", cores), of_kind(made.trials, "prefill", cores)
        rates = {trial.threads: trial for trial in prefill}
        for trial in decode:
            other = rates.get(trial.threads)
            ours = cores == made.key.cores
            grid.add_row(
                format_cores(cores),
                str(trial.threads),
                f"{trial.rate:.1f}",
                _bar(trial, _most(made, "decode"), chosen=ours and trial.threads == made.decode_threads),
                f"{other.rate:.1f}" if other else "",
                _bar(other, _most(made, "prefill"), chosen=ours and trial.threads == made.prefill_threads)
                if other
                else "",
            )
    return grid


def _bar(trial: Trial, most: float, *, chosen: bool) -> Text:
    return Text.assemble(
        (bar(trial.rate / most), "cyan" if chosen else "dim"), (" chosen" if chosen else "", "bold")
    )


def _most(made: Calibration, kind: Kind) -> float:
    return max(trial.rate for trial in made.trials if trial.kind == kind)


def calibration_words(made: Calibration) -> Iterable[str]:
    """What follows from the figures, a sentence each."""
    cores = format_cores(made.key.cores)
    yield (
        f"decode {made.decode_tokens_per_s:.1f} tokens/s with {_threads(made.decode_threads)}, "
        f"prefill {made.prefill_tokens_per_s:.1f} tokens/s with {_threads(made.prefill_threads)}, on cores {cores}"
    )
    share = bandwidth_share(made.decode_tokens_per_s, made.bytes_per_token, made.read_bytes_per_s)
    if share is not None and made.read_bytes_per_s is not None:
        yield (
            f"memory reads at {made.read_bytes_per_s / 1e9:.1f} GB/s; decoding reads "
            f"{made.bytes_per_token / 1e6:.0f} MB a token: {share:.0%} of that limit"
        )
    best = max((trial.rate for trial in of_kind(made.trials, "decode", made.key.cores)), default=0.0)
    if made.huge_pages is not None:
        yield f"huge pages: {made.huge_pages.words}"
    for trial in made.trials:
        if trial.kind == "decode" and trial.cores != made.key.cores and best and trial.rate > 1.05 * best:
            yield (
                f"all cores together ({format_cores(trial.cores)}) decode faster, {trial.rate:.1f} tokens/s: "
                f'engine.cores = "{format_cores(trial.cores)}" would use them'
            )


def bench_table(result: Bench) -> Table:
    """The rows of llama-bench: model, size, parameters, threads, test, tokens per second with their spread."""
    grid = Table(box=box.MARKDOWN, padding=(0, 1))
    for name in ("model", "size", "params", "threads"):
        grid.add_column(name, justify="left" if name == "model" else "right", overflow="fold")
    grid.add_column("test", justify="right", no_wrap=True)
    grid.add_column("t/s", justify="right", no_wrap=True)
    for run in result.runs:
        grid.add_row(
            result.model,
            f"{result.model_bytes / 2**20:.2f} MiB",
            f"{result.parameters / 1e6:.2f} M",
            str(run.threads),
            run.test,
            f"{run.rate:.2f} ± {run.spread:.2f}",
        )
    return grid


def bench_words(result: Bench) -> Iterable[str]:
    """What follows from the figures, a sentence each."""
    yield f"cores {format_cores(result.cores)}; {result.system_info}"
    for run in result.runs:
        share = bandwidth_share(run.rate, run.read_bytes_per_token, result.read_bytes_per_s)
        if share is not None and run.read_bytes_per_token:
            yield (
                f"{run.test}: {run.read_bytes_per_token / 1e6:.0f} MB read a token, "
                f"{run.rate * run.read_bytes_per_token / 1e9:.1f} of the {result.read_bytes_per_s / 1e9:.1f} GB/s "
                f"that reading memory gives: {share:.0%} of the bandwidth limit"
            )


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def calibration_svg(made: Calibration) -> str:
    """Rates over thread counts as a picture: two panels, one line each, the chosen count filled."""
    panels = []
    kinds: tuple[Kind, ...] = ("decode", "prefill")
    for place, kind in enumerate(kinds):
        line = of_kind(made.trials, kind, made.key.cores)
        chosen = made.decode_threads if kind == "decode" else made.prefill_threads
        panels.append(_panel(kind, line, chosen, 40 + place * 360))
    title = escape(f"{made.key.board or 'board'}, cores {format_cores(made.key.cores)}")
    notes = [
        f'<text x="40" y="{300 + 16 * row}" fill="#9a6700">doubtful: {escape(note)}</text>'
        for row, note in enumerate(made.notes)
    ]
    height = 300 + 16 * len(notes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="740" height="{height}" fill="white"/>'
        f'<text x="40" y="22" font-size="14">{title}</text>{"".join(panels)}{"".join(notes)}</svg>\n'
    )


def _panel(kind: str, line: tuple[Trial, ...], chosen: int, left: float) -> str:
    width, top, height = 300.0, 76.0, 170.0
    most = max((trial.rate for trial in line), default=1.0)
    last = max((trial.threads for trial in line), default=1)
    bottom = top + height

    def at(trial: Trial) -> tuple[float, float]:
        return left + width * trial.threads / last, bottom - height * trial.rate / most

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, line))
    marks = []
    for trial in line:
        x, y = at(trial)
        fill = "#1f6feb" if trial.threads == chosen else "white"
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="#1f6feb" fill="{fill}"/>')
        marks.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{trial.rate:.1f}</text>')
        marks.append(f'<text x="{x:.1f}" y="{bottom + 16:.0f}" text-anchor="middle">{trial.threads}</text>')
    marks.append(
        f'<text x="{left + width / 2:.0f}" y="{bottom + 32:.0f}" text-anchor="middle">threads</text>'
    )
    return (
        f'<text x="{left:.0f}" y="{top - 28:.0f}">{kind}, tokens/s over threads; filled: chosen</text>'
        f'<path d="M{left:.0f},{top:.0f} V{bottom:.0f} H{left + width:.0f}" stroke="#888" fill="none"/>'
        f'<polyline points="{points}" stroke="#1f6feb" fill="none"/>{"".join(marks)}'
    )
