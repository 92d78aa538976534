"""The life of a question inside the daemon, as one table. Pure.

`number` (the journal's) names a job between journal, daemon and engine; (`client`, `id`) names it to devices.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from edged.core.link import Delivery
from edged.core.question import Question
from edged.core.rounds import Progress
from edged.core.upstream import Broke, Why


class State(enum.Enum):
    """Where a job stands."""

    STORING = "storing"  # on its way into the journal; not acknowledged
    WAITING = "waiting"  # stands in the journal; the engine has it in line, or will get it
    RUNNING = "running"  # has a slot
    FINISHING = "finishing"  # over; its last message is on its way into the journal
    GONE = "gone"  # the outbox takes care of its last message


class Happening(enum.Enum):
    """What moves a job on."""

    STORED = "stored"
    STARTED = "started"
    ENDED = "ended"  # by the engine, by a refusal, by a cancel
    ENGINE_GONE = "engine_gone"
    KEPT = "kept"  # the last message stands in the journal
    REFUSED = "refused"  # the journal did not take it


TABLE: dict[tuple[State, Happening], State] = {
    (State.STORING, Happening.STORED): State.WAITING,
    (State.STORING, Happening.REFUSED): State.GONE,
    (State.WAITING, Happening.STARTED): State.RUNNING,
    (State.WAITING, Happening.ENDED): State.FINISHING,
    (State.WAITING, Happening.ENGINE_GONE): State.WAITING,
    (State.RUNNING, Happening.ENDED): State.FINISHING,
    (State.RUNNING, Happening.ENGINE_GONE): State.WAITING,
    (State.FINISHING, Happening.ENGINE_GONE): State.FINISHING,
    (State.FINISHING, Happening.KEPT): State.GONE,
}
"""Every move that exists; anything else is a defect and raises."""

REPLAY_BYTES_MAX = 256 * 1024
"""Deltas kept for `resume`, a job: far more than a context of 2k tokens has text."""


@dataclass(slots=True, eq=False)
class Job:
    """A question that this node has taken on.

    Attributes:
        question: what is asked; replaced when the same question comes again with another reply topic.
        digest: tells the same question from another one under its id.
        arrived: monotonic seconds.
        deadline: monotonic seconds; None for none.
        size_bytes: what it counts for in the queue.
        number: the journal's; 0 until it is stored.
        attempts: runs begun, this one included.
        crashes: how many of them ended with the engine, in this life of the daemon.
        seq: number of the next reply.
        deliveries: messages to acknowledge once it is stored.
        prompt_tokens, context: as the engine measured them; 0 before.
        position, due: how many go first and when its answer is expected, as its device was told last; monotonic s.
        history: earlier messages of its session that it is asked with.
        dropped: earlier messages of its session that the node left out for their size.
        progress: what earlier rounds came to, in which tools of the node were called.
        run: the run of the engine that it shares with questions like it.
        begun: the first run was counted when it was stored, because a slot was free.
        away: why the larger server has it just now; None when it does not.
        broke_away: what the larger server said in place of an answer: it is the board's then.
        replay: the latest deltas, encoded, with their numbers.
    """

    question: Question
    digest: bytes
    arrived: float
    deadline: float | None
    size_bytes: int
    state: State = State.STORING
    number: int = 0
    attempts: int = 0
    crashes: int = 0
    seq: int = 0
    prompt_tokens: int = 0
    context: int = 0
    position: int = 0
    due: float = 0.0
    history: int = 0
    dropped: int = 0
    progress: Progress = field(default_factory=Progress)
    begun: bool = False
    cancel_asked: bool = False
    submitted: bool = False
    run: int | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    away: Why | None = None
    broke_away: Broke | None = None
    replay: deque[tuple[int, bytes]] = field(default_factory=deque)
    replay_bytes: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Client and id."""
        return self.question.client, self.question.id

    def follows(self, other: Job) -> bool:
        """Whether it goes on with the same conversation."""
        mine, its = self.question, other.question
        return mine.session is not None and (mine.client, mine.session) == (its.client, its.session)

    def move(self, happening: Happening) -> None:
        """Go on in the table.

        Raises:
            ValueError: there is no such move; edged is at fault.
        """
        after = TABLE.get((self.state, happening))
        if after is None:
            raise ValueError(f"job {self.number}: {happening.value} cannot follow {self.state.value}")
        self.state = after

    def next_seq(self) -> int:
        """Number of the reply that is being made."""
        self.seq += 1
        return self.seq - 1

    def keep_for_resume(self, seq: int, payload: bytes) -> None:
        """Remember a delta; the oldest ones go when the bound is reached."""
        self.replay.append((seq, payload))
        self.replay_bytes += len(payload)
        while self.replay_bytes > REPLAY_BYTES_MAX:
            self.replay_bytes -= len(self.replay.popleft()[1])

    def begin_anew(self) -> None:
        """The engine is gone: the next attempt counts its replies from 0."""
        self.seq = 0
        self.submitted = False
        self.progress = Progress()
        self.run = None
        self.replay.clear()
        self.replay_bytes = 0
