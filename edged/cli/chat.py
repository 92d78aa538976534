"""`edged chat`: a conversation with a node, turn by turn. The node keeps it: a session of this client.

`/new` begins anew, `/forget` has the node forget what was said, `/quit` or ctrl-D ends, ctrl-C takes the running
question back.
"""

import contextlib
import secrets
import sys
from typing import Annotated, Any

import typer

from ..client import Client, ClientError
from . import OVER_MQTT, app, broker
from .ask import complain, follow, note
from .terminal import end_in_order

with contextlib.suppress(ImportError):
    import readline  # noqa: F401 - gives input() its arrows and its memory

PROMPT = "> "
_FORGOTTEN = {
    "forgotten": "forgotten",
    "unknown": "the node keeps nothing of this conversation",
    "running": "a question is not over yet; nothing was forgotten",
}


@app.command(rich_help_panel=OVER_MQTT)
def chat(  # noqa: PLR0917 - typer gives them by name
    node: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Board to talk to; not needed where one alone is online."),
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="NAME", help="Go on with this conversation.")] = None,
    host: broker.Host = broker.HOST,
    port: broker.Port = broker.PORT,
    username: broker.Username = None,
    password_file: broker.PasswordFile = None,
    cafile: broker.CaFile = None,
    cert: broker.Cert = None,
    key: broker.Key = None,
    name: broker.Name = None,
    prefix: broker.Prefix = broker.PREFIX,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Longest wait.")
    ] = 600.0,
    as_json: broker.AsJson = False,
) -> None:
    """Talk with a node, which remembers what was said.

    /new begins anew, /forget has the node forget it, /quit or Ctrl-D ends, Ctrl-C stops an answer.

    Exit codes: 0 ended, 1 refused, 75 not now.
    """
    end_in_order()
    try:
        name = name or username or broker.own_name()  # whose the session is
        with broker.connect(host, port, username, password_file, cafile, cert, key, name, prefix) as client:
            chosen = broker.choose(client, node)
            if sys.stdin.isatty():
                note(f"talking with {chosen}; /new begins anew, /forget forgets what was said, /quit ends")
            converse(client, chosen, session or new_session(), max_tokens, timeout_s, as_json=as_json)
        code = 0
    except (ClientError, ValueError, OSError) as error:
        code = complain("edged chat", error)
    sys.exit(code)


def converse(
    client: Client,
    node: str,
    session: str,
    max_tokens: int | None,
    timeout_s: float,
    *,
    as_json: bool = False,
) -> None:
    """Ask what is typed, until the input ends."""
    given: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    while True:
        line = typed()
        if line is None or line == "/quit":
            return
        if line == "/new":
            session = new_session()
            note("a new conversation")
        elif line == "/forget":
            try:
                note(_FORGOTTEN[client.forget_session(session, node)])
            except (ClientError, ValueError) as error:  # the second where --session is no name
                complain("edged chat", error)
        elif line.startswith("/"):
            note(f"{line.split()[0]}: there are /new, /forget and /quit")
        elif line:
            try:
                answer = client.ask(
                    line, node=node, session=session, overflow="trim_history", timeout_s=timeout_s, **given
                )
                follow(answer, as_json=as_json)
            except (ClientError, ValueError) as error:  # of this question: the conversation goes on
                complain("edged chat", error)


def typed() -> str | None:
    """The next line, or None where there is no more."""
    person = sys.stdin.isatty()
    try:
        return input(PROMPT if person else "").strip()
    except (EOFError, KeyboardInterrupt):
        if person:
            print()  # the shell's prompt begins a line of its own
        return None


def new_session() -> str:
    """A name that no conversation has had."""
    return f"chat-{secrets.token_hex(4)}"
