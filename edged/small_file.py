"""Files that settings name: a secret, a template, a certificate. Read in any process, never more than fits.

A pipe would wait for ever, and a device such as /dev/zero never ends: neither is opened.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path

SECRET_BYTES_MAX = 65_535
"""Of a password by MQTT (5, 3.1.3.6); keys are shorter."""
PEM_BYTES_MAX = 1 << 22
"""Of certificates: Debian's bundle of all authorities has a quarter of a million bytes."""


def check(path: Path, most_bytes: int) -> None:
    """Look at a file that a library is to read by its name.

    Raises:
        OSError: it is not there, is no regular file, or is longer than `most_bytes`; `strerror` says so.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    if found.st_size > most_bytes:
        raise _too_long(path, most_bytes)


def read(path: Path, most_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer than `most_bytes`; `strerror` says so.
    """
    check(path, most_bytes)
    return read_open(path, most_bytes)


def read_open(path: Path, most_bytes: int) -> bytes:
    """The same of whatever a person names, also a pipe: what `<(...)` of a shell is.

    Raises:
        OSError: as of `read`.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_long(path, most_bytes)
    return content


Mark = tuple[int, int, int] | None
"""What tells a file from one that takes its place, inode, size, time; None for one that cannot be seen."""


def mark(path: Path) -> Mark:
    """A file as it is now; of any size."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _too_long(path: Path, most_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"longer than {most_bytes} bytes", str(path))
