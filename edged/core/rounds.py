"""A question that is answered in rounds: the model calls tools of the node, reads their results, goes on. Pure.

To its device it stays one question: texts, tokens and times of all rounds are added up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from edged.core.question import Message
from edged.core.reply import Timings, Usage
from edged.core.tools import Call, Mode, Offer


@dataclass(frozen=True, slots=True)
class Progress:
    """What the rounds so far came to.

    Attributes:
        rounds: how many called tools of the node.
        turns: their calls and results, as messages that follow the question's own.
        text, reasoning: what was said and thought beside the calls.
        calls: those that run just now; empty when none does.
        run: names the calls that run, among all of the node's.
        enough: its device has seen enough of the thinking.
    """

    rounds: int = 0
    turns: tuple[Message, ...] = ()
    text: str = ""
    reasoning: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    calls: tuple[Call, ...] = ()
    run: int = 0
    enough: bool = False


def called(progress: Progress, said: str, calls: tuple[Call, ...], run: int) -> Progress:
    """One round more: the model called tools, after it `said` something in this round."""
    turn = Message("assistant", said or None, tool_calls=[call.shape() for call in calls])
    return _replace(progress, rounds=progress.rounds + 1, turns=(*progress.turns, turn), calls=calls, run=run)


def answered(progress: Progress, results: Sequence[str]) -> Progress:
    """The tools have said what they had to."""
    turns = [
        Message("tool", result, name=call.name, tool_call_id=call.id)
        for call, result in zip(progress.calls, results, strict=True)
    ]
    return _replace(progress, turns=(*progress.turns, *turns), calls=())


def added(
    progress: Progress, text: str, reasoning: str, usage: Usage, timings: Timings
) -> tuple[str, str, Usage, Timings]:
    """Text, thinking, tokens and times of all rounds together with those of the latest."""
    spent, before = progress.usage, progress.timings
    tokens = Usage(*(getattr(spent, name) + getattr(usage, name) for name in Usage.__struct_fields__))
    prefill_ms, decode_ms = before.prefill_ms + timings.prefill_ms, before.decode_ms + timings.decode_ms
    times = Timings(
        queue_ms=before.queue_ms + timings.queue_ms,
        prefill_ms=prefill_ms,
        decode_ms=decode_ms,
        prefill_tokens_per_s=_rate(tokens.prompt_tokens - tokens.cached_tokens, prefill_ms),
        decode_tokens_per_s=_rate(tokens.completion_tokens - progress.rounds - 1, decode_ms),
    )
    return progress.text + text, progress.reasoning + reasoning, tokens, times


def kept(progress: Progress, whole: tuple[str, str, Usage, Timings]) -> Progress:
    """The progress with what `added` returned as its own."""
    text, reasoning, usage, timings = whole
    return _replace(progress, text=text, reasoning=reasoning, usage=usage, timings=timings)


def mode(offer: Offer, rounds: int, rounds_max: int) -> tuple[Mode, str | None]:
    """Whether the model may call in the round after `rounds` others, and the tool that it must call.

    What had to be called has been called then; and after `rounds_max` rounds there is only an answer left.
    """
    if rounds == 0:
        return offer.mode, offer.named
    return ("auto" if rounds < rounds_max else "none"), None


def left(max_tokens: int | None, progress: Progress) -> int | None:
    """Tokens that may still be written, at least one; None for no bound."""
    return None if max_tokens is None else max(1, max_tokens - progress.usage.completion_tokens)


def enough(progress: Progress) -> Progress:
    """Its device has seen enough of the thinking: the rounds to come do without."""
    return _replace(progress, enough=True)


def thinking_left(budget: int | None, progress: Progress) -> int | None:
    """Tokens that may still be thought, where the question or its device says how many; 0 and None stay.

    At least one: a template that is asked for no thinking may write another prompt, of which nothing is known.
    """
    if progress.rounds and progress.enough and budget != 0:
        return 1
    return max(1, budget - progress.usage.reasoning_tokens) if budget else budget


def _replace(progress: Progress, **changes: object) -> Progress:
    return dataclasses.replace(progress, **changes)  # type: ignore[arg-type]  # names of its own fields


def _rate(tokens: int, milliseconds: int) -> float:
    return round(1000 * tokens / milliseconds, 1) if milliseconds > 0 and tokens > 0 else 0.0
