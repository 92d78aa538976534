"""What each level allows: one table, and how much of clocks, threads and time an engine spends for an effort.

Clocks go first, where they are ours to lower: they take their voltage along (`clocks`). Threads go next: decoding
is bound by the memory, so the second half of them buys a tenth of the speed for half of the heat (README, "Heat").
Time goes last: rests between passes cost as much speed as they save heat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edged.core.fairness import RANK
from edged.core.heat.clocks import Ladder, spend
from edged.core.pace import PACE_MIN
from edged.core.question import Priority
from edged.core.vitals import LEVELS, Level

ALL: tuple[Priority, ...] = tuple(sorted(RANK, key=lambda priority: RANK[priority]))
CONTEXT_STEP = 64
UNDER_VOLTAGE_EFFORT = 0.5
"""A supply that gives way is relieved like a hot board, for `heat.UNDER_VOLTAGE_S` after the last dip."""
BLIND_EFFORT = 0.5
"""Without a sensor to believe, the engine spends what a fan-less board bears in a warm room."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one level allows.

    Attributes:
        context: where between `context_min` (0) and `context_max` (1) the context stands.
        slots: share of the slots, rounded up.
        effort: the most that the controller may give.
        thinking: tokens of thinking at most; None for what questions ask for.
        admits: priorities that come in; the others are refused as `hot`.
        pools: whether the node takes its share of pool questions.
        paused: whether running answers stand still.
    """

    context: float
    slots: float
    effort: float
    thinking: int | None
    admits: tuple[Priority, ...]
    pools: bool
    paused: bool = False


TABLE: Mapping[Level, Row] = {
    "cool": Row(context=1.0, slots=1.0, effort=1.0, thinking=None, admits=ALL, pools=True),
    "warm": Row(context=0.5, slots=1.0, effort=1.0, thinking=None, admits=ALL, pools=True),
    "hot": Row(context=0.0, slots=0.5, effort=0.5, thinking=64, admits=("interactive",), pools=False),
    "critical": Row(context=0.0, slots=0.0, effort=PACE_MIN, thinking=0, admits=(), pools=False, paused=True),
}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the settings and the board give the engine while it is cool."""

    context_max: int
    context_min: int
    slots: int
    decode_threads: int
    prefill_threads: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may do just now; `edged.engine.messages.SetLimits` tells each but the last.

    Attributes:
        clock: what the caps leave of its cores' clock, a share.
        caps_hz: highest clocks of its cores, by cpufreq policy; empty where they are left alone.
    """

    context: int
    slots: int
    decode_threads: int
    prefill_threads: int
    clock: float
    pace: float
    paused: bool
    reasoning_budget: int | None
    caps_hz: Mapping[str, int] = field(default_factory=dict)


def limits(level: Level, effort: float, ceiling: Ceiling, ladders: Sequence[Ladder] = ()) -> Limits:
    """The engine's limits at a level, for an effort between `PACE_MIN` and 1 from the controller.

    Args:
        level: the verdict's.
        effort: the verdict's.
        ceiling: while the board is cool.
        ladders: clocks that may be lowered; an effort that they pay for leaves threads and time alone.
    """
    row = TABLE[level]
    spent = spend(min(row.effort, effort), ladders)
    effort = spent.left
    between = row.context * (ceiling.context_max - ceiling.context_min)
    context = ceiling.context_min + int(between) // CONTEXT_STEP * CONTEXT_STEP
    return Limits(
        context=ceiling.context_max if row.context == 1.0 else context,
        slots=max(1, math.ceil(row.slots * ceiling.slots)),
        decode_threads=_threads(effort, ceiling.decode_threads),
        prefill_threads=_threads(effort, ceiling.prefill_threads),
        clock=round(spent.clock, 2),
        pace=round(max(PACE_MIN, min(1.0, effort * ceiling.decode_threads)), 2),
        paused=row.paused,
        reasoning_budget=row.thinking,
        caps_hz=spent.caps_hz,
    )


def _threads(effort: float, most: int) -> int:
    """As many threads as the effort pays for, each an equal part of it."""
    return max(1, math.floor(effort * most + 1e-9))


def markdown_table() -> str:
    """The policy for people; the README holds it word for word."""
    lines = [
        "| level | context | slots | effort at most | thinking | admitted | pools | running answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for level in LEVELS:
        row = TABLE[level]
        cells = (
            level,
            {1.0: "`context_max`", 0.0: "`context_min`"}.get(row.context, "half-way between"),
            {1.0: "all", 0.0: "1"}.get(row.slots, f"{row.slots:.0%}, rounded up"),
            "none" if row.paused else f"{row.effort:.0%}",
            "as asked" if row.thinking is None else f"at most {row.thinking} tokens",
            {0: "none", len(ALL): "all"}.get(len(row.admits), ", ".join(f"`{one}`" for one in row.admits)),
            "in" if row.pools else "out",
            "pause" if row.paused else "go on",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
