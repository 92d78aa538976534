"""`edged demo`: the main job on a bare machine. A broker, the daemon, a real model, a question, an answer.

Everything runs on loopback, in processes that this command starts and ends itself, in a folder that it
removes. With `--once` the answer alone stands on standard output and all else on standard error. Exit codes
are those of `edged ask`, and 143 after SIGTERM.
"""

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.rule import Rule
from rich.text import Text

from .. import __version__
from ..client import Answer, AnswerError, Client, ClientError
from ..core.reply import Failed
from ..core.transcript import Transcript
from ..demo import board, processes
from ..demo.flow import WIDTH_MAX, Flow
from ..demo_model import ensure_demo_model
from ..errors import EdgedError
from . import EX_INTERRUPTED, app
from .ask import closing, complain, follow, wait_cancelled
from .terminal import end_in_order, printable

QUESTION = "Why should a CPU be kept cool?"
NAME = "you"
READY_S = 300.0
"""A slow card reads the model for minutes; the daemon gives up by itself before."""
ANSWER_S = 300.0


@app.command()
def demo(
    once: Annotated[
        str | None, typer.Option(metavar="QUESTION", help="Answer this on standard output, and end.")
    ] = None,
) -> None:
    """Show edged at work here: a broker, the daemon, a real model.

    Exit codes: 0 answered, 1 failed, 75 not now, 130 interrupted.
    """
    if once is not None and not once.strip():
        raise typer.BadParameter("the question is empty")
    console = Console(stderr=once is not None, highlight=False)
    end_in_order()
    try:
        code = _run(console, once)
    except EdgedError as error:
        code = complain("edged demo", error) if isinstance(error, ClientError) else _failed(error)
    except KeyboardInterrupt:
        code = EX_INTERRUPTED
    sys.exit(code)


def _run(console: Console, once: str | None) -> int:
    if once is None:
        console.print()
        console.print(
            Text.assemble(
                "  ",
                ("edged", "bold"),
                f" {__version__}",
                ("  a model on this machine, asked over MQTT", "dim"),
            )
        )
        console.print()
    with ExitStack() as stack:
        try:
            return _play(console, once, stack)
        finally:
            _hold_signals()  # the way out is not to be left half done; every step of it has its time limit


def _play(console: Console, once: str | None, stack: ExitStack) -> int:
    folder = stack.enter_context(_folder())
    model = _model(console)
    with _step(console, "starting a broker on loopback"):
        port = stack.enter_context(processes.broker(folder))
    daemon = stack.enter_context(processes.daemon(folder, port, model))
    with _step(console, "starting the daemon and loading the model"):
        client = stack.enter_context(Client(port=port, node=processes.NODE, name=NAME))
        _until_ready(client, daemon)
    if once is not None:
        return follow(client.ask(once, timeout_s=ANSWER_S, temperature=0))
    _ask(console, client, QUESTION)
    _show_board(console, client)
    _show_lines(console, port, daemon.log)
    return _more(console, client, daemon)


# one question ----------------------------------------------------------------------------------------------


def _ask(console: Console, client: Client, question: str, *, shown: bool = False) -> None:
    """Ask and stream the answer; an interrupt cancels it, an error is told."""
    if not shown:
        console.print(Text.assemble(("  > ", "cyan"), (question, "bold")))
    console.print()
    flow = Flow(console)
    try:
        answer = client.ask(question, timeout_s=ANSWER_S, temperature=0)
        try:
            _stream(answer, flow)
        except KeyboardInterrupt:
            wait_cancelled(answer)
        flow.end()
        if isinstance(answer.terminal, Failed):
            raise AnswerError(answer.terminal)
    except (ClientError, ValueError) as error:  # of this question: a line that is no UTF-8
        flow.end()
        console.print(Text(f"  {printable(str(error))}", style="red"))
        return
    console.print()
    console.print(Text(f"  {closing(answer)}", style="dim"))
    console.print()


def _stream(answer: Answer, flow: Flow) -> None:
    transcript = Transcript()
    for reply in answer:
        for kind, text in transcript.feed(msgspec.to_builtins(reply)):
            flow.put(printable(text), "dim" if kind == "reasoning" else "")


def _more(console: Console, client: Client, daemon: processes.Part) -> int:
    asked = sys.stdin.isatty() and console.is_terminal
    if asked:
        console.print(Text("  Ask on. An empty line ends; Ctrl-C stops an answer.", style="dim"))
        console.print()
    while True:
        try:
            line = input("  > ") if asked else sys.stdin.readline()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            raise
        question = line.strip()
        if not question:
            return 0
        _ask(console, client, question, shown=asked)
        daemon.check()


# what is shown besides ---------------------------------------------------------------------------------------


def _show_board(console: Console, client: Client) -> None:
    with _step(console, "reading this machine"):
        health = client.health(timeout_s=6.0, fresh=True) or {}
        info = client.info() or {}
    _heading(console, "this machine")
    console.print(board.table(info, health), width=min(console.width, WIDTH_MAX))


def _show_lines(console: Console, port: int, log: Path) -> None:
    """The same with Mosquitto's tools; both need -V 5, the demo's broker speaks MQTT 5 alone."""
    _heading(console, "the same from another terminal")
    console.print()
    there = f"-V 5 -p {port}"
    mine = "edged/v1/client/me/#"
    ask = f"edged/v1/node/{processes.NODE}/ask/me"
    for line in (
        f"mosquitto_sub {there} -q 1 -t {shlex.quote(mine)}",
        f"mosquitto_pub {there} -q 1 -t {ask} -m {shlex.quote(QUESTION)}",
        f"mosquitto_sub {there} -t edged/v1/node/{processes.NODE}/health",
        f"{_program()} ask --port {port} {shlex.quote(QUESTION)}",
    ):
        console.print(Text(f"  {line}"), soft_wrap=True)
    console.print()
    console.print(Text(f"  the daemon's log: {log}", style="dim"), soft_wrap=True)
    console.print()


def _program() -> str:
    """How this very program is called from here."""
    called = sys.argv[0]
    if os.path.basename(called) != "edged" or shutil.which("edged") == called:  # noqa: PTH119 - text, no path yet
        return "edged"
    return min(called, os.path.relpath(called), key=len)


def _heading(console: Console, words: str) -> None:
    rule = Rule(Text(words, style="bold"), align="left", style="dim", characters="─")
    console.print(Padding(rule, (0, 2)), width=min(console.width, WIDTH_MAX))


# parts -------------------------------------------------------------------------------------------------------


def _model(console: Console) -> Path:
    bar = Progress(
        TextColumn("  {task.description}"),
        BarColumn(24),
        TaskProgressColumn(),
        console=console,
        transient=True,
    )
    said = ""
    with bar:
        task = bar.add_task("looking for the demo model", total=1.0)

        def tell(step: str, fraction: float) -> None:
            nonlocal said
            if step != said and not console.is_terminal:
                console.print(f"  {step}", soft_wrap=True)
            said = step
            bar.update(task, description=step, completed=fraction)

        return ensure_demo_model(progress=tell)


def _until_ready(client: Client, daemon: processes.Part) -> None:
    """Wait for the node to be online; whether its engine is well it says itself when it is asked."""
    end_s = time.monotonic() + READY_S
    while client.status(timeout_s=0.2) != "online":
        daemon.check()
        if time.monotonic() > end_s:
            raise processes.DemoError(f"the daemon is not ready after {READY_S:.0f} s:\n{daemon.tail()}")
        time.sleep(0.05)


@contextmanager
def _step(console: Console, words: str) -> Iterator[None]:
    """Say what is being done while it is being done: in motion on a terminal, else on a line."""
    if console.is_terminal:
        with console.status(Text(words, style="dim"), spinner="dots"):
            yield
    else:
        console.print(f"  {words}")
        yield


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for state and logs; it stays where something failed, for the logs in it."""
    folder = Path(tempfile.mkdtemp(prefix="edged-demo-"))
    try:
        yield folder
    except processes.DemoError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _hold_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _failed(error: EdgedError) -> int:
    print(f"edged demo: {printable(str(error))}", file=sys.stderr)
    return 1
