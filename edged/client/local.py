"""Orders to the daemon on this machine, by its Unix socket: one JSON line out, one back."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Any

import msgspec

from edged.core.admin import Result
from edged.errors import EdgedError

PLACES = (Path("/run/edged/control.sock"), Path("/var/lib/edged/control.sock"))
"""Where the daemon listens as a service, and where it does from a terminal unless its settings say otherwise."""
_decoder = msgspec.json.Decoder(Result)


class NoDaemonError(EdgedError):
    """Nobody listens there, or we may not ask."""


class SilentError(NoDaemonError):
    """Somebody listens there, and says nothing."""


def usual() -> Path:
    """The place where a socket is, else the service's."""
    # Not `exists`: the second one lies where nobody but root may look, once systemd has made the folder.
    return next((place for place in PLACES if os.access(place, os.F_OK)), PLACES[0])


def order(path: Path, op: str, /, *, timeout_s: float = 30.0, **fields: Any) -> Result:  # noqa: ANN401 - JSON values
    """Give one order and wait for its answer.

    Raises:
        NoDaemonError: the socket cannot be reached.
        SilentError: there was no answer in time.
    """
    request = {"transaction": secrets.token_hex(8), "op": op, **fields}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(timeout_s)
            line.connect(str(path))
            line.sendall(msgspec.json.encode(request) + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                more = line.recv(65_536)
                if not more:
                    break
                answer += more
        return _decoder.decode(answer)
    except TimeoutError:
        mend = "restart it (sudo systemctl restart edged)"
        raise SilentError(f"{path}: the daemon does not answer within {timeout_s:g} s; {mend}") from None
    except (OSError, msgspec.DecodeError) as error:
        if isinstance(error, msgspec.DecodeError):  # it ends, as `systemctl restart` has it do
            reason = "it closed the connection before it had answered"
        else:
            reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            mend = "root and the service's group may: use sudo"
        else:
            mend = "start edged, or name its socket (admin.socket, else control.sock in paths.state)"
        raise NoDaemonError(f"{path}: no daemon answers here: {reason}; {mend}") from None
