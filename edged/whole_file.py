"""Writing files that stand there whole or not at all, whatever comes between. In any process."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, *parts: bytes | bytearray, part: Path, mode: int = 0o600, sync: bool = True) -> None:
    """Put a file with these contents in the place of what is there.

    Args:
        path: the file.
        parts: its contents, one behind the other.
        part: where it grows, in the same folder. It is made anew, never what lies there: root may be who writes,
            into a folder that is the service's, whose account could have put a link to another file there.
        mode: of the file, whatever the umask.
        sync: also a power cut leaves the old one or the new one, and from the return of this call on the new one.

    Raises:
        OSError: the disk does not take it; `path` is as it was, but where the folder alone was not taken.
    """
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb"
        ) as file:
            for content in parts:
                file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: who is there, and who is not any more.

    Raises:
        OSError: the disk does not take them.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
