"""Recovery: the questions that an earlier life of this node left unfinished are taken up again, once, at the start.

Belongs to the dispatcher thread. Another version of edged may have written what stands in the journal, and a worn
card may have changed it; and one of these questions may be what ended the life before.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from edged.core.job import Happening, Job
from edged.core.question import Question
from edged.core.records import JobRow, Recovered, remaining_s
from edged.core.topics import Topics
from edged.errors import DECODE_ERRORS, Refusal
from edged.node.desk import Desk

BEGUN_MAX = 10
"""Runs of a question that none of its daemons saw end, after which it is `poison`: a question that takes the
board down leaves no other trace, and an orderly restart in mid-answer is no fault of the question."""

UNREADABLE = Refusal(
    "interrupted",
    "this node was restarted and cannot read this question any more, which another version of it wrote down; ask "
    "again under a new id",
)

LOST = Refusal(
    "interrupted",
    "this node had an answer and cannot read it any more, its disk has damaged it; ask again",
    retry_after_ms=1000,
)
"""Said of a question that is finished, and whose body is dropped therefore, but for its device's sake."""

log = structlog.get_logger()


def recover(
    desk: Desk,
    recovered: Recovered,
    boot_id: str,
    boot_now_s: float,
    is_passing: Callable[[str, str], bool] = lambda _client, _id: False,
) -> None:
    """Take up the unfinished questions, in their old order.

    Args:
        desk: where they are answered.
        recovered: what stood in the journal. Runs that ended with an orderly stop of the node are no sign that the
            question crashes it.
        boot_id: names this boot of the board, as in `records.Instant`.
        boot_now_s: seconds since then.
        is_passing: a question of (client, id) came by a connection that is gone: it ends here.
    """
    for old in recovered.jobs:
        question = _question(old.row.body)
        left_s = remaining_s(old.row, boot_id, boot_now_s)
        now = desk.clock()
        job = Job(
            question=question or _unreadable(old.row, desk.replies.topics),
            digest=old.row.digest,
            arrived=now,
            deadline=None if old.row.deadline is None else now + left_s,
            size_bytes=len(old.row.body),
            attempts=old.attempts,
        )
        desk.roster.add(job)
        desk.roster.number(job, old.number)
        job.move(Happening.STORED)
        desk.sessions.enter(job, old.session)
        if is_passing(*job.key):
            desk.cancel(job)
        elif question is None:
            desk.course.fail(job, UNREADABLE if old.row.body else LOST)
        elif old.attempts >= BEGUN_MAX and not recovered.stopped:
            desk.blame.poison(job, f"was begun {old.attempts} times and never ended")
        else:
            desk.giving.give(job)


def _question(body: bytes) -> Question | None:
    """A question as the journal has it; None where another version, or a worn card, wrote what we cannot read."""
    try:
        return msgspec.msgpack.decode(body, type=Question)
    except DECODE_ERRORS:
        return None


def _unreadable(row: JobRow, topics: Topics) -> Question:
    """What is known of a question whose text is not: enough to tell its device."""
    log.error("question_unreadable", client=row.client, job_id=row.id)
    return Question(
        row.client,
        row.id,
        made_id=False,
        plain=False,
        messages=(),
        reply_to=topics.answer(row.client, row.id),
    )
