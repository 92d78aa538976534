"""The SQL of sessions: conversations as rows, a row for each question of theirs, within bounds.

Each function runs within a transaction of `writer`, in the thread that owns the connection. Times are the
journal's own, see `upkeep`. What is in a turn, and what is made of it, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.core.records import SessionBounds, SessionTurn, StoredSession

if TYPE_CHECKING:
    import sqlite3


class Sessions:
    """The conversations behind one connection. Those used last are kept; `count` follows what is done here."""

    def __init__(self, connection: sqlite3.Connection, bounds: SessionBounds) -> None:
        self._sql = connection
        self._bounds = bounds
        self.count = int(connection.execute("SELECT count(*) FROM sessions").fetchone()[0])

    def read(self, client: str, name: str, time_s: float) -> StoredSession:
        """A conversation as it stands; an empty one where there is none, or it was not used for too long."""
        found = self._sql.execute(
            "SELECT system FROM sessions WHERE client = ? AND name = ? AND used_s >= ?",
            (client, name, time_s - self._bounds.keep_s),
        ).fetchone()
        if found is None:
            return StoredSession()
        turns = self._sql.execute(
            "SELECT number, body FROM session_turns WHERE client = ? AND name = ? ORDER BY number",
            (client, name),
        )
        return StoredSession(found[0], tuple(turns))

    def add(self, number: int, turn: SessionTurn, time_s: float) -> None:
        """Append the turn of question `number`, drop those before `turn.first`, keep within the bounds."""
        whose = (turn.client, turn.name)
        self._sql.execute(
            "DELETE FROM session_turns WHERE client = ? AND name = ? AND number < ?", (*whose, turn.first)
        )
        self._sql.execute(
            "INSERT INTO session_turns (client, name, number, body) VALUES (?, ?, ?, ?)",
            (*whose, number, turn.body),
        )
        self._sql.execute(
            """INSERT INTO sessions (client, name, used_s, bytes, system) SELECT ?1, ?2, ?3, sum(length(body)), ?4
            FROM session_turns WHERE client = ?1 AND name = ?2
            ON CONFLICT DO UPDATE SET used_s = excluded.used_s, bytes = excluded.bytes, system = excluded.system""",
            (*whose, time_s, turn.system),
        )
        self._sql.execute(
            """DELETE FROM sessions WHERE client = ?1 AND name IN
            (SELECT name FROM sessions WHERE client = ?1 ORDER BY used_s DESC, name LIMIT -1 OFFSET ?2)""",
            (turn.client, self._bounds.per_client),
        )
        self._sql.execute(
            """DELETE FROM sessions WHERE (client, name) IN
            (SELECT client, name FROM sessions ORDER BY used_s DESC, client, name LIMIT -1 OFFSET ?)""",
            (self._bounds.total,),
        )
        self.recount()

    def prune(self, time_s: float) -> None:
        """Forget what was not used for too long."""
        horizon_s = time_s - self._bounds.keep_s
        if self._sql.execute("DELETE FROM sessions WHERE used_s < ?", (horizon_s,)).rowcount:
            self.recount()

    def recount(self) -> None:
        """Follow what was done to the table."""
        self.count = int(self._sql.execute("SELECT count(*) FROM sessions").fetchone()[0])
