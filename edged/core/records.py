"""What the journal keeps and what it reports: plain values. Pure.

Here live the rows, the events and the arithmetic of deadlines that survive restarts. Not here: SQL, files,
threads, clocks (the present moment is passed in as an `Instant`). Used by the daemon's dispatcher thread
and by the journal's writer thread, which share only these frozen values.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

PUBLISHES_MAX = 8
"""How many messages one finish may carry (a JSON terminal and its plain text make two)."""
SECONDS_MAX = 1e10
"""Three centuries: more seconds than that in a journal were made by a worn card."""


class Instant(msgspec.Struct, frozen=True):
    """A moment that no wall clock can move.

    Attributes:
        boot_id: names one run of the kernel (/proc/sys/kernel/random/boot_id).
        monotonic_s: CLOCK_BOOTTIME, seconds since that boot, counting suspension.
    """

    boot_id: str
    monotonic_s: float


class Deadline(msgspec.Struct, frozen=True):
    """When a question expires, in the clock of one boot, and what was left when that was last recorded."""

    boot_id: str
    monotonic_s: float
    remaining_s: float


class Publish(msgspec.Struct, frozen=True):
    """One message of the outbox, as it goes to the broker at QoS 1.

    Attributes:
        topic: where to.
        payload: the bytes, opaque to the journal.
        properties: MQTT 5 properties by the sender's names; values None, bool, int, float, str or bytes.
    """

    topic: str
    payload: bytes
    properties: dict[str, Any] = {}


class StoredSession(msgspec.Struct, frozen=True):
    """A conversation as it is stored; what is in a turn is its owner's, see `edged.core.session`.

    Attributes:
        system: its system prompt; None for the node's own.
        turns: each with the number of the question that brought it, oldest first.
    """

    system: str | None = None
    turns: tuple[tuple[int, bytes], ...] = ()


class SessionTurn(msgspec.Struct, frozen=True):
    """What a finished question adds to its session.

    Attributes:
        client, name: whose session, and which.
        system: the session's system prompt from now on.
        first: number of the oldest turn that stays.
        body: the turn, encoded by the owner.
    """

    client: str
    name: str
    system: str | None
    first: int
    body: bytes


class SessionBounds(msgspec.Struct, frozen=True):
    """How many sessions are kept, and for how long after their last question (in the journal's time)."""

    keep_s: float = 86_400.0
    per_client: int = 16
    total: int = 256


Outbox = tuple[tuple[int, Publish], ...]
"""Messages that the broker has not acknowledged, each with the id that `clear` takes."""

State = Literal["unfinished", "finished"]


class JobRow(msgspec.Struct, frozen=True):
    """A question as it is stored.

    Attributes:
        client: the asking client's name, ASCII.
        id: the question's id, ASCII; unique within the client.
        digest: SHA-256 (32 bytes) of the question as it was understood; tells a repetition from a new one.
        body: the question, encoded by the owner; opaque here; dropped when the question is finished.
        received_unix_s: wall clock at arrival, for people only: nothing is decided by it.
        deadline: when it expires; None for never.
        session: the conversation that it goes on with; None for none.
    """

    client: str
    id: str
    digest: bytes
    body: bytes
    received_unix_s: float
    deadline: Deadline | None = None
    session: str | None = None


class RecoveredJob(msgspec.Struct, frozen=True):
    """An unfinished question found at start; `attempts` runs of it had begun; `session` as it stands now."""

    number: int
    attempts: int
    row: JobRow
    session: StoredSession | None = None


class Recovered(msgspec.Struct, frozen=True):
    """What stood in the journal at start.

    Attributes:
        jobs: unfinished questions in the order of their acceptance.
        outbox: terminal messages that the broker has not acknowledged, in the order of their questions.
        set_aside: path of a corrupt or foreign file that was moved out of the way; None when all was well.
        unreadable: finished questions whose stored answer could not be read and was dropped; those of `jobs` whose
            `body` is empty are among them, for nobody has told their devices how they ended.
        stopped: the last life of the node ended in order: the runs that were going on then crashed nothing.
    """

    jobs: tuple[RecoveredJob, ...] = ()
    outbox: Outbox = ()
    set_aside: str | None = None
    unreadable: int = 0
    stopped: bool = False


class Depth(msgspec.Struct, frozen=True):
    """How full the journal is; counters, cheap to read from any thread.

    Attributes:
        unfinished: questions accepted and not finished.
        outbox: terminal messages not acknowledged by the broker.
        bytes: size of the database and its write-ahead log on disk.
        commits: transactions made durable since start.
        owed: commands kept in memory until the disk takes them (or until the lazy commit of clears).
        failing: why the disk refuses just now; None when it does not.
        sessions: conversations that are kept.
        writing_s: how long what is being written has been on its way; 0.0 where nothing is.
    """

    unfinished: int
    outbox: int
    bytes: int
    commits: int
    owed: int
    failing: str | None
    sessions: int = 0
    writing_s: float = 0.0


class Entered(msgspec.Struct, frozen=True):
    """A question that runs at once is a new one; its commit is under way, `Accepted` or `Failed` follows."""

    ticket: object
    session: StoredSession | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The question stands on disk: it may be acknowledged. `session` is its conversation as far as it is stored."""

    ticket: object
    number: int
    session: StoredSession | None = None


class Duplicate(msgspec.Struct, frozen=True):
    """The same question stood there already: it may be acknowledged.

    For a finished one, `outbox` holds its terminal messages, which are in the outbox again (one entry a
    message however often it is asked): publish and clear them as those of `Finished`.
    """

    ticket: object
    number: int
    state: State
    outbox: Outbox = ()


class Conflict(msgspec.Struct, frozen=True):
    """Another question uses this client and id."""

    ticket: object


class NotKnown(msgspec.Struct, frozen=True):
    """No answer to the question stands there, so there is none to give again.

    `unreadable` is the number of a finished one whose answer cannot be read; 0 for none.
    """

    ticket: object
    unreadable: int = 0


class Failed(msgspec.Struct, frozen=True):
    """The question was NOT stored; `reason` names SQLite's error, never any content.

    `answer` holds the messages that ended it before, for reading needs no room; they are not in the outbox.
    """

    ticket: object
    reason: str
    answer: tuple[Publish, ...] = ()


class AttemptCounted(msgspec.Struct, frozen=True):
    """`attempts` runs have begun, this one included; 0: no such unfinished question, do not run it."""

    number: int
    attempts: int


class Finished(msgspec.Struct, frozen=True):
    """The terminal messages stand on disk and may be published; none if finished before or unknown."""

    number: int
    outbox: Outbox


class StatusFound(msgspec.Struct, frozen=True):
    """Where a question stands; `state` and `number` are None for one that the journal does not know."""

    ticket: object
    state: State | None
    number: int | None
    attempts: int


class SessionForgotten(msgspec.Struct, frozen=True):
    """A session is gone from the journal; `known` tells whether it was there."""

    ticket: object
    known: bool


class Broken(msgspec.Struct, frozen=True):
    """The writer thread has ended: the file is damaged or the code is. The process must start again."""

    reason: str


JournalEvent = (
    Entered
    | Accepted
    | Duplicate
    | Conflict
    | NotKnown
    | Failed
    | AttemptCounted
    | Finished
    | StatusFound
    | SessionForgotten
    | Broken
)


def remaining_s(row: JobRow, boot_id_now: str, monotonic_now: float) -> float:
    """Return the seconds until `row` expires: negative after that, infinite without a deadline.

    Within the boot that recorded it, a deadline runs with the monotonic clock. After a reboot nobody knows
    how long the power was off, and the wall clock may stand in 1970: then it is what was left when last
    recorded, so that no question expires by a jump. It is never more than that in either case.
    """
    deadline = row.deadline
    if deadline is None:
        return math.inf
    if deadline.boot_id != boot_id_now:
        return deadline.remaining_s
    return min(deadline.monotonic_s - monotonic_now, deadline.remaining_s)


def deadline_in(seconds: float, now: Instant) -> Deadline:
    """Return the deadline `seconds` from `now`."""
    return Deadline(boot_id=now.boot_id, monotonic_s=now.monotonic_s + seconds, remaining_s=seconds)


def recorded(row: JobRow, now: Instant) -> JobRow:
    """Return `row` with its deadline expressed in the present boot and what is left of it recorded."""
    if row.deadline is None:
        return row
    left_s = remaining_s(row, now.boot_id, now.monotonic_s)
    return msgspec.structs.replace(row, deadline=deadline_in(left_s, now))
