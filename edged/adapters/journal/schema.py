"""The journal's file: opening, settings, schema versions, and setting a damaged file aside.

No question is read or written here. Runs in the thread that calls `Journal.open`, before the writer starts.

The promise to other versions, which read it before they understand anything else: `application_id`,
`user_version` and the rows `edged_version` and `reader_min` of `meta`.

The way back to an earlier release leads to a file that a later one has migrated. A migration that only adds
(tables, or columns that an INSERT may leave out) does not touch `READER_MIN`: the earlier release uses the
file, and the later one finds it again with what was written meanwhile. One that earlier code cannot live with
raises it to its own version, and the earlier release ends with EX_CONFIG.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import edged
from edged.errors import EdgedError, SettingsError
from edged.whole_file import sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

APPLICATION_ID = 0x65646764  # "edgd": a database without it is someone else's
SET_ASIDE_KEPT = 3  # a card that keeps failing must not fill itself with evidence

# Each entry is the list of statements that leads from version i to i + 1; entries are only ever added.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
        # The answer stands in its question's row: a table of its own, measured, writes more, not less.
        # finished_s counts in journal time (seconds the journal has been in use), NULL while unfinished.
        """CREATE TABLE jobs (
            number INTEGER PRIMARY KEY,
            client TEXT NOT NULL,
            id TEXT NOT NULL,
            digest BLOB NOT NULL,
            received_unix_s REAL NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            finished_s REAL,
            deadline_boot_id TEXT,
            deadline_monotonic_s REAL,
            deadline_remaining_s REAL,
            body BLOB NOT NULL,
            terminal BLOB,
            UNIQUE (client, id)
        ) STRICT""",
        # The messages stand once, in jobs.terminal; an outbox entry says which of them is still owed.
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY) STRICT",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN session TEXT",
        # used_s counts in journal time; bytes are those of the turns.
        """CREATE TABLE sessions (
            client TEXT NOT NULL,
            name TEXT NOT NULL,
            used_s REAL NOT NULL,
            bytes INTEGER NOT NULL,
            system TEXT,
            PRIMARY KEY (client, name)
        ) STRICT, WITHOUT ROWID""",
        # A row for each question, never written again: a conversation that goes on does not wear the card.
        """CREATE TABLE session_turns (
            client TEXT NOT NULL,
            name TEXT NOT NULL,
            number INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (client, name, number)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TRIGGER session_gone AFTER DELETE ON sessions BEGIN
            DELETE FROM session_turns WHERE client = OLD.client AND name = OLD.name;
        END""",
    ),
)

READER_MIN = 2
"""The earliest schema version of an edged that may use a file of the present one."""

# What the disk or its owner may mend while we wait; every other error means that the file is damaged.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
    }
)
_UNREADABLE = frozenset(
    {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
)


_NOT_NOW = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)
_NOT_NOW_ERRNO = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)
"""What may be over at the next start; the rest (rights, a folder in the file's place) somebody has to mend."""


_BEFORE_READING = (
    "busy_timeout = 2000",  # milliseconds; a predecessor may still be closing
    "locking_mode = EXCLUSIVE",  # one process, one connection; also spares the -shm file
)
_WHEN_EMPTY = (  # on any other file, the second one would write, whoever owns it
    "page_size = 2048",  # the fewest bytes written per question on an SD card
    "auto_vacuum = INCREMENTAL",
)
_BEFORE_WRITING = (  # once the file is known to be ours
    "journal_mode = WAL",
    "synchronous = FULL",  # a commit is on the disk when it returns
    "journal_size_limit = 4194304",  # bytes of log kept after a checkpoint
    "secure_delete = FAST",  # Debian's default writes freed pages once more to zero them: wear without need
    "temp_store = MEMORY",
    "cache_size = -512",  # KiB; SQLite's own 2,000 fill up and save nothing: the kernel has the file's pages too
)


_COLUMNS = """SELECT tables.name, lower(columns.name)
    FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'"""


class JournalError(EdgedError):
    """The journal cannot be used; the text names the file and says why."""


class JournalBusyError(JournalError):
    """It cannot be used just now: the disk is full or fails, or another process has it."""


class JournalVersionError(JournalError, SettingsError):
    """The file was written by a newer edged: the operator's to mend, so the process ends with EX_CONFIG."""


class DamagedError(Exception):
    """The file is no journal of ours or cannot be trusted; it will be set aside."""


def passing(error: sqlite3.Error) -> bool:
    """Tell whether waiting may help (disk full, I/O, read-only), or the file itself is damaged."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # absent: text that is no UTF-8
    return (code & 0xFF) in _PASSING and code not in _UNREADABLE


def unusable(error: Exception, text: str, mend: str = "") -> JournalError:
    """What `error` means for a journal that is being opened; `text` says it, `mend` helps if it will not pass."""
    passes = isinstance(error, OSError) and error.errno in _NOT_NOW_ERRNO
    if isinstance(error, sqlite3.Error):
        passes = getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW
    return JournalBusyError(text) if passes else JournalError(text + mend)


def strangers(path: Path) -> str:
    """What to do where the file or its log is another account's, as one that root has put back; else empty."""
    for each in (path, Path(f"{path}-wal")):
        with suppress(OSError):
            if each.stat().st_uid != os.geteuid():
                return f"; it is another account's: chown --reference={path.parent} {path}*"
    return ""


def reason(error: sqlite3.Error) -> str:
    """Return SQLite's name and text of an error; they never hold content."""
    return f"{getattr(error, 'sqlite_errorname', 'SQLITE_CORRUPT')}: {error}"


def connect(path: Path) -> sqlite3.Connection:
    """Open `path` (made with mode 0600 if absent), check it, and bring it to the present schema.

    Raises:
        DamagedError: the file is corrupt or foreign.
        JournalVersionError: a newer edged wrote it.
        sqlite3.Error, OSError: as they come; see `passing`.
    """
    new = not path.exists()
    if new:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        sync_folder(path.parent)
    path.chmod(0o600)
    empty = path.stat().st_size == 0
    fresh = new and _empty(Path(f"{path}-wal"))
    if empty and not fresh:  # SQLite would make a new one of it, and delete the log
        raise DamagedError("an empty file, or none, in the place of one")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _pragmas(connection, _BEFORE_READING)
        if empty:
            _pragmas(connection, _WHEN_EMPTY)
        _recognise(connection, path)
        _pragmas(connection, _BEFORE_WRITING)
        migrate(connection)
        _check_columns(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(
    connection: sqlite3.Connection,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
    version: str = edged.__version__,
    reader_min: int = READER_MIN,
) -> None:
    """Bring the file to schema version `len(migrations)` in one transaction: all of it or nothing.

    A later version that we may use stays as it is.
    """
    present = _pragma(connection, "user_version")
    if present >= len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations[present:]:
            for statement in statements:
                connection.execute(statement)
        told = (("edged_version", version), ("reader_min", reader_min))
        connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", told)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def set_aside(path: Path) -> Path:
    """Move a damaged file and its log to `<path>.corrupt-N` and return that name; the oldest ones go."""
    stem = f"{path.name}.corrupt-"
    taken = {int(tail) for p in path.parent.glob(f"{stem}*") if (tail := p.name.removeprefix(stem)).isdigit()}
    number = max(taken, default=0) + 1
    target = path.with_name(f"{stem}{number}")
    for suffix in ("-wal", "-shm", ""):  # the log first: a new database must never meet an old log
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
    for old in taken:
        if old <= number - SET_ASIDE_KEPT:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(f"{stem}{old}{suffix}").unlink(missing_ok=True)
    sync_folder(path.parent)
    return target


def _empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _pragmas(connection: sqlite3.Connection, pragmas: Sequence[str]) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version or tables:
            raise DamagedError("a database of another program")
        return
    told = dict(connection.execute("SELECT key, value FROM meta")) if version > len(MIGRATIONS) else {}
    if told.get("reader_min", version) > len(MIGRATIONS):
        raise JournalVersionError(
            f"{path}: schema version {version} was written by edged {told.get('edged_version', '(unknown)')}; "
            f"this is edged {edged.__version__} and knows versions up to {len(MIGRATIONS)}: "
            "install that version again or move the file away"
        )
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise DamagedError(f"integrity check: {verdict}")


def _check_columns(connection: sqlite3.Connection) -> None:
    """Look for all that a fresh file has; a later version may have more.

    The integrity check knows no names: one that a worn card has changed would end the writer when it is first used.
    """
    with closing(sqlite3.connect(":memory:")) as fresh:
        migrate(fresh)
        lacking = set(fresh.execute(_COLUMNS)) - set(connection.execute(_COLUMNS))
    if lacking:
        raise DamagedError(f"tables lack columns: {sorted(lacking)}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
