"""Where the broker is and how to get in: the options that every command shares which talks to it. No command.

The environment names the same settings as for the daemon, so a shell on a board needs no options at all.
"""

import os
import re
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..client import Client, ClientError, UnreachableError
from ..small_file import SECRET_BYTES_MAX, read_open

PANEL = "The broker (environment: EDGED_MQTT__HOST and so on)"
_options = partial(typer.Option, rich_help_panel=PANEL, show_envvar=False)

Host = Annotated[str, _options(metavar="HOST", envvar="EDGED_MQTT__HOST", help="Where the broker is.")]
Port = Annotated[
    int,
    _options(metavar="PORT", envvar="EDGED_MQTT__PORT", min=1, max=65535, help="Its port; 8883 with TLS."),
]
Username = Annotated[
    str | None,
    _options(metavar="NAME", envvar="EDGED_MQTT__USERNAME", help="User name there; no board's own."),
]
PasswordFile = Annotated[
    Path | None,
    _options(
        metavar="FILE",
        envvar="EDGED_MQTT__PASSWORD_FILE",
        help="File with the password.",
        exists=True,
        dir_okay=False,
    ),
]
CaFile = Annotated[
    Path | None,
    _options(
        metavar="FILE",
        envvar="EDGED_MQTT__TLS__CA",
        help="Who signed its certificate (PEM); switches TLS on.",
        exists=True,
        dir_okay=False,
    ),
]
Cert = Annotated[
    Path | None,
    _options(
        metavar="FILE",
        envvar="EDGED_MQTT__TLS__CERT",
        help="Own certificate, where it asks for one.",
        exists=True,
    ),
]
Key = Annotated[
    Path | None,
    _options(metavar="FILE", envvar="EDGED_MQTT__TLS__KEY", help="The certificate's key.", exists=True),
]
Name = Annotated[
    str | None,
    _options(
        metavar="NAME",
        help="Own name in topics; else the user name, or a random one; with a session the same each time.",
    ),
]
Prefix = Annotated[
    str, _options(metavar="TOPIC", envvar="EDGED_NODE__PREFIX", help="First level of every topic.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]

HOST, PORT, PREFIX = "127.0.0.1", 1883, "edged"


def connect(  # noqa: PLR0917 - in the order of the options
    host: str,
    port: int,
    username: str | None,
    password_file: Path | None,
    cafile: Path | None,
    cert: Path | None,
    key: Path | None,
    name: str | None,
    prefix: str,
) -> Client:
    """A client that is ready to connect.

    Raises:
        OSError: a file cannot be read.
        ValueError: the name does not fit into a topic.
    """
    return Client(
        host,
        port,
        name=name,
        username=username,
        password=password(password_file),
        tls=_tls(cafile, cert, key),
        prefix=prefix,
    )


def password(file: Path | None) -> str | None:
    """The password that stands in a file, without the line's end."""
    if file is None:
        return None
    try:
        text = read_open(file, SECRET_BYTES_MAX).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8", param_hint="--password-file") from None
    return text.removesuffix("\n").removesuffix("\r")


def choose(client: Client, node: str | None) -> str:
    """The node to ask: the one that is named and not offline, or the only one online.

    Where none is online, one that loads its model is asked: questions wait for that.

    Raises:
        ClientError: there is no such node, or a choice to make.
    """
    if node is not None:
        if client.status(node, timeout_s=0.5) == "offline" and node not in _starting(client):
            raise UnreachableError(f"{node} is offline; ask another node, or again later")
        return node
    known = client.nodes()
    online = [name for name, word in known.items() if word == "online"]
    if not online:
        online = _starting(client)
    if len(online) == 1:
        return online[0]
    if online:
        raise ClientError(f"{len(online)} nodes are online, choose one with --node: {', '.join(online)}")
    if known:
        raise UnreachableError(f"no node is online; offline: {', '.join(known)}")
    raise UnreachableError("no node has ever been at this broker; start one with edged run")


def _starting(client: Client) -> list[str]:
    return [view.name for view in client.fleet() if view.starting]


def own_name() -> str:
    """Who sits here, as a name for topics.

    A session belongs to its client: the same person on the same machine must have the same name again.
    """
    words = f"chat-{os.getuid()}-{socket.gethostname()}"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", words)[:64]


def interactive() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _tls(cafile: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cafile is None:
        if cert is not None or key is not None:
            raise typer.BadParameter("--cert and --key need --cafile, which switches TLS on")
        return None
    if cert is None and key is not None:
        raise typer.BadParameter("--key needs --cert, the certificate that it belongs to")
    try:
        context = ssl.create_default_context(cafile=str(cafile))
    except ssl.SSLError:
        raise typer.BadParameter(f"{cafile} holds no certificate in PEM", param_hint="--cafile") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise typer.BadParameter(
                f"{cert} and {key or 'no --key'} are no certificate and its key in PEM: {error.reason}",
                param_hint="--cert",
            ) from None
    return context
