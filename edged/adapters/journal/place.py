"""Where the journal's file lies, and how it comes back there when somebody has taken it away.

SQLite writes on into a file that has no name any more, or lies elsewhere, and reports each commit as durable; the
next start would know of none of them. Runs in the thread that owns the connection, outside of a transaction.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edged.whole_file import sync_folder

if TYPE_CHECKING:
    import sqlite3


class TakenAwayError(Exception):
    """The file does not stand in its place; all that somebody waits for stands there again, for the next start."""


class Place:
    """The place of the file that this connection has open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
        self._file = _identity(self._path)

    @property
    def lost(self) -> bool:
        """Whether it stands there no longer, or another one does."""
        try:
            return _identity(self._path) != self._file
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # a disk that fails says more when it is written to

    def restore(self) -> None:
        """Write all that the connection sees into the place.

        Raises:
            FileExistsError: somebody has put another file there, which is to count.
            OSError, sqlite3.Error: as they come; what is there is whole or nothing.
        """
        # SQLite leaves the log there, and would apply what is in it to whatever file lies beside it.
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if self._path.exists():
            raise FileExistsError(errno.EEXIST, "another file lies there", str(self._path))
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.part")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            self._sql.execute("VACUUM INTO ?", (str(part),))
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(self._path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(self._path.parent)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
