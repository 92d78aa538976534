"""`edged bench`: prefill and decode in llama-bench's terms, and how near decode comes to the memory's limit."""

import os
import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..adapters import calibration_file
from ..core.calibration import Calibration
from ..core.huge_pages import wanted
from ..core.topology import threads as settle
from ..errors import EngineError, ModelError, NotNowError, SettingsError
from ..footing import calibrated
from ..measuring import tables
from ..measuring.benching import Bench
from ..measuring.benching import bench as run_tests
from ..measuring.site import Site, check, find
from . import ON_THE_BOARD, app, settings_file
from .calibrate import AnywayOption, JsonOption, ModelOption
from .terminal import end_in_order


@app.command(rich_help_panel=ON_THE_BOARD)
def bench(  # noqa: PLR0917 - typer gives them by name
    config: settings_file.Option = None,
    model: ModelOption = None,
    prompt: Annotated[
        int,
        typer.Option("--prompt", "-p", metavar="N", min=0, max=32_768, help="Tokens to read; 0: no test."),
    ] = 512,
    generate: Annotated[
        int,
        typer.Option("--generate", "-n", metavar="N", min=0, max=32_768, help="Tokens to write; 0: no test."),
    ] = 128,
    depth: Annotated[
        int,
        typer.Option("--depth", "-d", metavar="N", min=0, max=131_072, help="Tokens in the cache before."),
    ] = 0,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", "-t", metavar="N", min=1, max=256, help="For both; else as the daemon chooses."
        ),
    ] = None,
    repetitions: Annotated[
        int,
        typer.Option("--repetitions", "-r", metavar="N", min=1, max=100, help="Times that each is measured."),
    ] = 5,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the model as llama-bench does: pp512 and tg128.

    Exit codes: 0 done, 1 failed, 75 not now (another engine is busy), 78 wrong configuration.
    """
    end_in_order()
    console = Console(stderr=True, highlight=False)
    try:
        site = find(lambda: settings_file.load(config), model)
        made, _ = calibrated(site.settings, site.board.name, site.choice)
        counts = _counts(site, threads, made)
        notes = check(site, depth + max(prompt, generate, 1) + 512, anyway=anyway)
        columns = (TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("loading the model", total=1.0)
            result = run_tests(
                site,
                notes,
                threads=counts,
                sizes=(prompt, generate),
                depth=depth,
                repetitions=repetitions,
                llama_cpp=calibration_file.llama_cpp_version(),
                huge_pages=wanted(site.settings.engine.huge_pages, None if made is None else made.huge_pages),
                tell=lambda what, done: progress.update(task, description=what, completed=done),
            )
    except NotNowError as error:
        sys.exit(_failed(error, os.EX_TEMPFAIL))
    except (EngineError, ModelError) as error:
        sys.exit(_failed(error, 1))
    if as_json:
        print(_as_json(result))
    else:
        _show(Console(highlight=False), result)


def _counts(site: Site, threads: int | None, made: Calibration | None) -> tuple[int, int]:
    """Decode and prefill threads, as a daemon with these settings would have them."""
    engine = site.settings.engine
    best = None if made is None else (made.decode_threads, made.prefill_threads)
    decode, prefill = threads or engine.decode_threads, threads or engine.prefill_threads
    try:
        return settle(site.choice, decode, prefill, site.board.cpu_quota, best)
    except ValueError as error:
        raise SettingsError(f"engine: {error}") from error


def _as_json(result: Bench) -> str:
    told = msgspec.to_builtins(result)
    for run, figures in zip(result.runs, told["runs"], strict=True):
        figures |= {"mean_tokens_per_s": round(run.rate, 3), "stdev_tokens_per_s": round(run.spread, 3)}
        if run.read_bytes_per_token:
            figures["bandwidth_share"] = round(
                run.rate * run.read_bytes_per_token / result.read_bytes_per_s, 3
            )
    return msgspec.json.encode(told).decode()


def _show(console: Console, result: Bench) -> None:
    console.print(tables.bench_table(result))
    for sentence in tables.bench_words(result):
        console.print(Text(sentence))
    for note in result.notes:
        console.print(Text(f"doubtful: {note}", style="yellow"))


def _failed(reason: object, code: int) -> int:
    print(f"edged bench: {reason}", file=sys.stderr)
    return code
