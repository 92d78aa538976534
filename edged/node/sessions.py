"""Sessions under way: whose turn it is in each, and what has been said so far. Belongs to the dispatcher thread.

A session is in memory while one of its questions is on this node; else the journal alone has it. Its questions
run one after the other, in the order of acceptance: the next one knows the answer before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from edged.core import session
from edged.core.job import Job
from edged.core.question import Message
from edged.core.records import SessionTurn, StoredSession
from edged.core.session import Conversation, History

Key = tuple[str, str]


@dataclass(slots=True)
class Session:
    """One session: its history, its questions without an answer in order, how many of them are not over."""

    history: History
    line: list[Job] = field(default_factory=list)
    jobs: int = 0


@dataclass(slots=True)
class Sessions:
    """All sessions under way; `limit_bytes` bounds each."""

    limit_bytes: int = 65_536
    _open: dict[Key, Session] = field(default_factory=dict)

    def enter(self, job: Job, stored: StoredSession | None) -> None:
        """A question stands in the journal, which told how its session stands there."""
        key = _key(job)
        if key is None:
            return
        if key not in self._open:
            self._open[key] = Session(session.read(stored or StoredSession()))
        one = self._open[key]
        one.line.append(job)
        one.jobs += 1

    def has_turn(self, job: Job) -> bool:
        """Whether no earlier question of its session waits for its answer; always for one without a session."""
        one = self._of(job)
        return one is None or not one.line or one.line[0] is job

    def busy(self, client: str, name: str | None) -> bool:
        """Whether a question of this session waits for its answer."""
        one = None if name is None else self._open.get((client, name))
        return one is not None and bool(one.line)

    def conversation(self, job: Job) -> Conversation:
        """What the engine is asked, history included.

        Raises:
            Refusal: `too_large`; the history has no room for this question.
        """
        one = self._of(job)
        if one is None:
            return Conversation(job.question.messages, {})
        history = session.fitted(one.history, job.question, self.limit_bytes)
        job.history = history.messages
        job.dropped = one.history.messages - history.messages
        return session.conversation(history, job.question)

    def answered(
        self, job: Job, answer: Message, tokens: tuple[int, ...], trimmed: int
    ) -> SessionTurn | None:
        """An answer is there: take it into the history; returns what the journal is to keep of it.

        `trimmed` messages were left out of the conversation, `job.dropped` included: they are forgotten.
        """
        one, name = self._of(job), job.question.session
        if one is None or name is None:
            return None
        left = session.without_oldest(one.history, trimmed)
        asked = job.question
        if job.progress.turns:
            asked = msgspec.structs.replace(asked, messages=(*asked.messages, *job.progress.turns))
        one.history = session.grown(left, job.number, asked, answer, tokens)
        return session.stored(job.question.client, name, one.history)

    def leave(self, job: Job) -> Job | None:
        """A question has its end; returns the one whose turn it is now."""
        one = self._of(job)
        if one is None or job not in one.line:
            return None
        one.line.remove(job)
        return one.line[0] if one.line else None

    def forget(self, job: Job) -> None:
        """A question's end stands in the journal; after the last one the session need not be kept here."""
        key = _key(job)
        if key is None or (one := self._open.get(key)) is None:
            return
        one.jobs -= 1
        if one.jobs == 0:
            del self._open[key]

    def _of(self, job: Job) -> Session | None:
        key = _key(job)
        return None if key is None else self._open.get(key)


def _key(job: Job) -> Key | None:
    name = job.question.session
    return None if name is None else (job.question.client, name)
