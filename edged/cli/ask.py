"""`edged ask`: a question from the command line, the answer as it comes. Talks to the broker alone.

Exit codes: 0 answered; 1 refused, failed, or the broker does not let us; 2 wrong usage; 75 (`os.EX_TEMPFAIL`)
when asking again later may help: busy, hot, loading, draining, interrupted, expired, no answer in
time, broker or node not there; 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP, the question then is
cancelled.

`edged demo` shows answers and errors with the functions here.
"""

import os
import sys
from codecs import BOM_UTF8
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from ..client import Answer, AnswerError, AnswerTimeoutError, ClientError, UnreachableError
from ..core.answer_text import Kind
from ..core.reply import Accepted, Cancelled, Done, Failed, Reply
from ..core.transcript import Transcript
from ..errors import DECODE_ERRORS
from . import EX_INTERRUPTED, EX_NO_READER, OVER_MQTT, app, broker, is_no_room
from .terminal import end_in_order, one_line, printable

TEMPORARY = frozenset({"busy", "hot", "loading", "draining", "interrupted", "expired"})
"""Error codes of the contract after which the same question may be answered later."""
EX_USAGE = 2  # as typer ends on a wrong option
CANCEL_S = 5.0


@app.command(rich_help_panel=OVER_MQTT)
def ask(  # noqa: PLR0917 - typer gives them by name
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask; - reads standard input.")],
    node: Annotated[
        str | None, typer.Option(metavar="NAME", help="Board to ask; not needed where one alone is online.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pool of boards to ask, whichever is free.")
    ] = None,
    host: broker.Host = broker.HOST,
    port: broker.Port = broker.PORT,
    username: broker.Username = None,
    password_file: broker.PasswordFile = None,
    cafile: broker.CaFile = None,
    cert: broker.Cert = None,
    key: broker.Key = None,
    name: broker.Name = None,
    prefix: broker.Prefix = broker.PREFIX,
    session: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with this conversation, or begin it.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON schema that the answer must follow.", exists=True, dir_okay=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="`large`: the larger server's, where the board has one."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", min=0, max=2, help="0: always the likeliest; 0.6 without it.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Longest wait.")
    ] = 600.0,
    as_json: broker.AsJson = False,
) -> None:
    """Ask a question over MQTT and print the answer as it comes.

    Thinking is dimmed on a terminal and left out in a pipe. Ctrl-C takes the question back.

    Exit codes: 0 answered, 1 refused or failed, 2 usage, 75 not now (busy, hot, loading, draining, offline, no
    answer in time), 130 interrupted.
    """
    end_in_order()
    if node is not None and pool is not None:
        raise typer.BadParameter("give --node or --pool, not both")
    if session is not None and pool is not None:
        raise typer.BadParameter(
            "a conversation is one board's, and a pool deals each question to another: give --node with --session"
        )
    fields = {"max_tokens": max_tokens, "temperature": temperature, "session": session, "model": model}
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if schema is not None:
        given["response_format"] = {"type": "json_schema", "json_schema": {"schema": _schema(schema)}}
    if not as_json and not sys.stdout.isatty():
        given["reasoning"] = {"mode": "hide"}  # nobody to show it to
    if session is not None:
        name = name or username or broker.own_name()  # whose it is: a random one would never find it again
    try:
        client = broker.connect(host, port, username, password_file, cafile, cert, key, name, prefix)
        if question == "-":
            question = _standard_input()
        with client:
            if pool is None:
                node = broker.choose(client, node)
            answer = client.ask(question, node=node, pool=pool, timeout_s=timeout_s, **given)
            code = follow(answer, as_json=as_json)
    except (ClientError, ValueError, OSError) as error:
        code = complain("edged ask", error)
    sys.exit(code)


def follow(answer: Answer, *, as_json: bool = False) -> int:
    """Print an answer on standard output, its closing line on standard error; returns the exit code.

    An interrupt cancels the question.

    Raises:
        ClientError: the node refused, or the answer cannot come.
    """
    out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    column = _Column(out)
    try:
        for reply in answer:
            if as_json:
                print(msgspec.json.encode(reply).decode(), flush=True)
            else:
                column.show(reply)
    except KeyboardInterrupt:
        column.close()
        wait_cancelled(answer)
        note("cancelled")
        return EX_INTERRUPTED
    except (BrokenPipeError, SystemExit):  # rich makes the second of the first
        wait_cancelled(answer)
        raise
    finally:
        with suppress(BrokenPipeError):
            column.close()  # what is said next begins a line of its own
    if isinstance(answer.terminal, Failed):
        raise AnswerError(answer.terminal)
    if not as_json:
        note(closing(answer))
    return EX_INTERRUPTED if isinstance(answer.terminal, Cancelled) else 0


def wait_cancelled(answer: Answer) -> None:
    """Take the question back and wait a moment for the node's word, so that it is not left computing."""
    answer.cancel()
    answer.within(CANCEL_S)
    try:
        answer.text()
    except ClientError:
        pass  # it ended in another way: it ended


def closing(answer: Answer) -> str:
    """One line about an answer that is complete: tokens, rate, time to the first piece, who."""
    last = answer.terminal
    if not isinstance(last, Done):
        return "cancelled" if isinstance(last, Cancelled) else ""
    usage, timings = last.usage, last.timings
    parts = [f"{usage.completion_tokens} tokens"]
    if usage.reasoning_tokens:
        parts[0] += f" ({usage.reasoning_tokens} of them thinking)"
    parts.append(f"{timings.decode_tokens_per_s:.1f} tokens/s")
    if answer.first_s is not None:
        parts.append(f"first piece after {answer.first_s:.2f} s")
    parts.append(
        f"by {last.node}" if last.upstream is None else f"by {last.upstream}, sent on by {last.node}"
    )
    if last.finish_reason in {"length", "deadline"}:
        parts.append("cut at the token limit" if last.finish_reason == "length" else "cut at the deadline")
    return one_line(" · ".join(parts))


def complain(who: str, error: Exception) -> int:
    """Say in one line what went wrong and what to do; returns the exit code.

    Raises:
        OSError: what is printed finds no room, of which `main` tells for all commands.
    """
    if isinstance(error, OSError) and is_no_room(error):
        raise error
    if isinstance(error, BrokenPipeError):  # nobody reads on, as behind `| head`: nothing to complain of
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_NO_READER
    text, temporary = str(error), isinstance(error, AnswerTimeoutError | UnreachableError)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    if isinstance(error, AnswerError):
        temporary = error.code in TEMPORARY
        if error.retry_after_ms is not None:
            tenths = error.retry_after_ms // 100  # a node may say what no float holds
            text += f" (ask again in {tenths // 10}.{tenths % 10} s)"
    print(f"{who}: {one_line(' '.join(text.split()))}", file=sys.stderr)
    if isinstance(error, ValueError):  # what was typed fits into no topic, or is no text
        return EX_USAGE
    return os.EX_TEMPFAIL if temporary else 1


def note(line: str) -> None:
    """Print an aside on standard error, dimmed on a terminal."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(printable(line), style="dim"))


class _Column:
    """Prints pieces as they come: thinking dimmed and apart from the answer, on a terminal alone.

    Pieces may be lost on the way: after a gap nothing is printed until the end, which repeats the whole text.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._transcript = Transcript()
        self._kind: Kind | None = None
        self._ends_line = True

    def show(self, reply: Reply) -> None:
        match reply:
            case Accepted(seq=0) if self._kind is not None and self._out.is_terminal:
                self._void()
                self._transcript = Transcript()
            case Accepted(seq=0, position=position, eta_ms=eta_ms) if position and sys.stderr.isatty():
                others = "one question has" if position == 1 else f"{position} questions have"
                note(
                    f"{others} to end before it begins; the answer may be there in {(eta_ms + 500) // 1000} s"
                )
            case _:
                pass
        parts = self._transcript.feed(msgspec.to_builtins(reply))
        if isinstance(reply, Done) and self._transcript.diverged:
            self._void()
            parts = [("text", reply.text)]
        for kind, text in parts:
            if kind == "text" or self._out.is_terminal:
                self._put(kind, text)

    def close(self) -> None:
        if not self._ends_line:
            self._out.print()
        self._ends_line = True

    def _void(self) -> None:
        self.close()
        note("the node was restarted and answers anew")
        self._kind = None

    def _put(self, kind: Kind, text: str) -> None:
        if self._kind not in {None, kind}:
            self.close()
            self._out.print()
        if self._kind != kind:
            text = text.lstrip("\n")
        self._kind = kind
        shown = printable(text) if self._out.is_terminal else text
        if shown:
            self._out.print(Text(shown, style="dim" if kind == "reasoning" else ""), end="")
            self._out.file.flush()
            self._ends_line = shown.endswith("\n")


def _standard_input() -> str:
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input is not UTF-8: byte {error.start + 1} is 0x{raw[error.start]:02x}"
        ) from None


def _schema(file: Path) -> Any:  # noqa: ANN401 - any JSON value is a schema
    try:
        told = msgspec.json.decode(file.read_bytes().removeprefix(BOM_UTF8))
    except DECODE_ERRORS as error:
        raise typer.BadParameter(f"{file} is no JSON: {error}", param_hint="--schema") from error
    if isinstance(told, dict) and isinstance(told.get("schema"), dict) and "type" not in told:
        return told["schema"]  # as OpenAI has it, with a name around it
    return told
