"""Last words: the terminal message of a job, from what is known of it when it ends. Values in, values out.

Here stands what is in a `done`, a `cancelled` or a refusal; when a job ends is the desk's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edged.core import reply
from edged.core.answer_cache import Kept
from edged.core.job import Job
from edged.errors import Refusal
from edged.node.joint import Run


@dataclass(frozen=True, slots=True)
class Who:
    """Who answers: the node, its model, its heat level; `upstream` where a larger server did, with its model."""

    node: str
    model: str
    level: str | None
    upstream: str | None = None


def done(
    job: Job,
    who: Who,
    outcome: reply.FinishReason,
    *,
    parsed: object = None,
    calls: list[dict[str, Any]] | None = None,
    trimmed: int = 0,
    cached: bool = False,
) -> reply.Done:
    """The answer that this job's own run, or one that it shared, came to."""
    progress = job.progress
    return reply.Done(
        id=job.question.id,
        seq=job.next_seq(),
        text=progress.text,
        reasoning=progress.reasoning or None,
        finish_reason=outcome,
        usage=progress.usage,
        timings=progress.timings,
        model=who.model,
        upstream=who.upstream,
        node=who.node,
        attempt=job.attempts,
        parsed=parsed,
        tool_calls=calls,
        cached=cached or None,
        trimmed=trimmed or None,
        level=who.level,
    )


def given_again(job: Job, who: Who, kept: Kept) -> reply.Done:
    """An answer that was computed before, for somebody who asks the same."""
    return reply.Done(
        id=job.question.id,
        seq=job.next_seq(),
        text=kept.text,
        reasoning=kept.reasoning or None,
        finish_reason=kept.finish_reason,
        usage=kept.usage,
        timings=reply.Timings(),
        model=who.model,
        node=who.node,
        attempt=job.attempts + 1,
        parsed=None if job.question.schema is None else reply.parsed(kept.text),
        cached=True,
        level=who.level,
    )


def cut_off(job: Job, who: Who, run: Run) -> reply.Done:
    """What a shared run has written by the deadline of one who shares it."""
    return reply.Done(
        id=job.question.id,
        seq=job.next_seq(),
        text=run.so_far("text"),
        reasoning=run.so_far("reasoning") or None,
        finish_reason="deadline",
        usage=_usage(job, run),
        timings=reply.Timings(),
        model=who.model,
        node=who.node,
        attempt=job.attempts,
        cached=None if run.first is job else True,
        level=who.level,
    )


def cancelled(job: Job, run: Run | None = None) -> reply.Cancelled:
    """Its device took it back; `run` where others go on with it."""
    return reply.Cancelled(
        id=job.question.id,
        seq=job.next_seq(),
        text=job.progress.text if run is None else run.so_far("text"),
        usage=job.progress.usage if run is None else _usage(job, run),
    )


def too_long(job: Job, besides: str, retry_after_ms: int | None) -> Refusal:
    """The board cannot hold it, and the larger server did not take it."""
    mend = "mend that" if retry_after_ms is None else "ask again"
    return Refusal(
        "too_long",
        f"the prompt has {job.prompt_tokens} tokens and this board's context holds {job.context}; "
        f"{besides}; shorten the prompt or {mend}",
        retry_after_ms=retry_after_ms,
        details={"prompt_tokens": job.prompt_tokens, "context": job.context},
    )


def _usage(job: Job, run: Run) -> reply.Usage:
    """What the engine has written by now for all who share a run."""
    return reply.Usage(job.prompt_tokens, 0, run.written, run.thought)
