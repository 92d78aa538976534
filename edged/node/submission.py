"""From a job to the engine's order: what it is asked, and what the model may call. Values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.core import rounds
from edged.core.job import Job
from edged.core.session import Conversation
from edged.core.tools import Tool
from edged.engine.messages import Submit
from edged.errors import Refusal


def order(job: Job, conversation: Conversation, offered: dict[str, Any], *, shared: bool) -> Submit:
    """The order that has a job computed.

    Args:
        job: whose turn it is.
        conversation: what the session adds.
        offered: from `offered`.
        shared: others may join, and want every piece.
    """
    question = job.question
    return Submit(
        number=job.number,
        client=question.client,
        messages=(*conversation.messages, *job.progress.turns),
        priority=question.priority,
        max_tokens=rounds.left(question.max_tokens, job.progress),
        deadline=job.deadline,
        temperature=question.temperature,
        top_p=question.top_p,
        seed=question.seed,
        stop=question.stop,
        reasoning_mode=question.reasoning_mode,
        reasoning_budget=rounds.thinking_left(question.reasoning_budget, job.progress),
        stream=question.stream or shared,
        overflow=question.overflow,
        reuse=question.cache != "bypass",
        schema=question.schema,
        sampled=conversation.sampled,
        session=question.session is not None,
        spent=job.progress.usage.completion_tokens,
        context=job.context if job.progress.rounds else 0,
        **offered,
    )


def offered(job: Job, local: Mapping[str, Tool], rounds_max: int) -> dict[str, Any]:
    """What the model may call in this round, as fields of `Submit`.

    Args:
        job: whose turn it is.
        local: the node's own tools, by name.
        rounds_max: rounds of calls that a question may make.

    Raises:
        Refusal: `unsupported`; a tool of the node is not there, or not any more.
    """
    offer = job.question.tools
    if offer is None:
        return {}
    missing = [name for name in offer.local if name not in local]
    if missing:
        there = ", ".join(local) or "none"
        raise Refusal("unsupported", f"this node has no tool {missing[0]}; it has {there}")
    mode, named = rounds.mode(offer, job.progress.rounds, rounds_max)
    return {
        "tools": (*offer.tools, *(local[name] for name in offer.local)),
        "tool_mode": mode,
        "tool_named": named,
        "tools_parallel": offer.parallel,
    }


def local_names(job: Job) -> tuple[str, ...]:
    """The node's own tools that this job asked for."""
    return () if job.question.tools is None else job.question.tools.local
