"""Small files that settings name: a secret, a template. Read whole, in any process, and never more than fits.

A pipe would wait for ever, and a device such as /dev/zero never ends: neither is opened.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def read(path: Path, most_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer than `most_bytes`; `strerror` says so.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return read_open(path, most_bytes)


def read_open(path: Path, most_bytes: int) -> bytes:
    """The same of whatever a person names, also a pipe: what `<(...)` of a shell is.

    Raises:
        OSError: as of `read`.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"longer than {most_bytes} bytes", str(path))
    return content
