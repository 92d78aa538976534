"""What may be asked of the writer thread: one frozen value per method of `Journal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edged.core.records import JobRow, Publish, SessionTurn


class Accept(msgspec.Struct, frozen=True):
    """Store a question of which `attempts` runs (0 or 1) begin with it."""

    ticket: object
    row: JobRow
    attempts: int


class Recall(msgspec.Struct, frozen=True):
    """Owe the answer to a question again, if it stands there; store nothing new."""

    ticket: object
    client: str
    id: str
    digest: bytes


class Attempt(msgspec.Struct, frozen=True):
    """Count a run that is about to begin."""

    number: int


class Finish(msgspec.Struct, frozen=True):
    """Store terminal messages, and what the answer adds to its session; `terminal` is the messages' stored form.

    `again`: once the broker has them, the question's id is free.
    """

    number: int
    publishes: tuple[Publish, ...]
    terminal: bytes
    turn: SessionTurn | None = None
    again: bool = False


class Clear(msgspec.Struct, frozen=True):
    """Forget an acknowledged message."""

    outbox_id: int


class Status(msgspec.Struct, frozen=True):
    """Tell where a question stands."""

    ticket: object
    client: str
    id: str


class Forget(msgspec.Struct, frozen=True):
    """Forget a conversation."""

    ticket: object
    client: str
    name: str


class Close(msgspec.Struct, frozen=True):
    """Write what is owed and end."""


Ask = Accept | Recall | Status | Forget
"""Somebody waits for what becomes of it, and is told when the disk takes nothing."""
Owed = Attempt | Finish | Clear
"""Written sooner or later, whatever the disk says now."""
Command = Ask | Owed | Close
