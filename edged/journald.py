"""The journal's own protocol: one datagram an event, with fields that `journalctl` can ask for.

`journalctl -u edged EDGED_JOB_ID=press-7-0001` finds all lines of one question, `EDGED_EVENT=job_finished` one line
of each. The protocol is systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL): `NAME=value`
lines, or the name, a length and the bytes where the value has line ends. Nothing is known here but the socket.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

SOCKET = Path("/run/systemd/journal/socket")
NAME_CHARACTERS_MAX = 64
"""Longest name of a field; the journal drops longer ones (journal_field_valid of systemd)."""
DATAGRAM_BYTES_MAX = 128 * 1024
"""Larger events go to standard error: Linux's socket buffers hold 208 KiB by default (net.core.wmem_default)."""


def datagram(message: str, priority: int, fields: Mapping[str, object]) -> bytes:
    """An event as the journal takes it.

    Args:
        message: what people read.
        priority: 0 to 7, syslog(3).
        fields: names of any kind, each becomes `EDGED_NAME`; values None are left out.
    """
    parts = [
        _field("MESSAGE", message),
        _field("PRIORITY", str(priority)),
        _field("SYSLOG_IDENTIFIER", "edged"),
    ]
    parts += [_field(_name(name), _text(value)) for name, value in fields.items() if value is not None]
    return b"".join(parts)


def send(data: bytes, path: Path = SOCKET) -> bool:
    """Hand an event to the journal; whether it was taken. Never waits: a journal that hangs stops no answer."""
    if len(data) > DATAGRAM_BYTES_MAX:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            line.sendto(data, str(path))
    except OSError:
        return False
    return True


def _name(name: str) -> str:
    return f"EDGED_{re.sub(r'[^A-Z0-9_]', '_', name.upper())}"[:NAME_CHARACTERS_MAX]


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _field(name: str, text: str) -> bytes:
    value = text.encode("utf-8", "replace")
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name.encode(), value)
