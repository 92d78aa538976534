"""What the dashboards show: every panel with its expressions, as a table. `dashboards.py` makes JSON of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NODE = '{instance=~"$instance"}'
"""The nodes that are chosen at the top of the dashboard."""
DONE = ', outcome="done"'
READY = 'sum (edged_engine_phase{instance=~"$instance", phase="ready"}) or vector(0)'
LEVELS = {"0": ("cool", "green"), "1": ("warm", "yellow"), "2": ("hot", "orange"), "3": ("critical", "red")}
NO_YES = {"0": ("no", "green"), "1": ("yes", "red")}
IN_OUT = {"0": ("out", "orange"), "1": ("in", "green")}
PHASE = {"0": ("down", "red"), "1": ("ready", "green")}


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and how its series are called; empty for the name of the node."""

    expr: str
    legend: str = "{{instance}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: what it says, what it asks, how wide it is (24 is all of the width), how high a row."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["lines", "stack", "number", "table"] = "lines"
    width: int = 8
    height: int = 7
    words: dict[str, tuple[str, str]] | None = None
    """What a value is called, and its colour."""
    least: float | None = 0


def _rate(metric: str, more: str = "") -> str:
    return f'rate({metric}{{instance=~"$instance"{more}}}[$__rate_interval])'


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (instance, le) ({_rate(metric + '_bucket')}))"


def _latency(title: str, metric: str, says: str) -> Panel:
    queries = tuple(
        Query(_quantile(share, metric), f"{{{{instance}}}} p{round(100 * share)}")
        for share in (0.5, 0.95, 0.99)
    )
    return Panel(title, says, queries, unit="s")


def _number(
    title: str, says: str, query: Query, unit: str = "short", words: dict[str, tuple[str, str]] | None = None
) -> Panel:
    return Panel(title, says, (query,), unit, "number", width=4, height=4, words=words)


WORK = (
    Panel(
        "Questions in the house",
        "Waiting for a slot, and being answered.",
        (
            Query(f"edged_questions_waiting{NODE}", "{{instance}} waiting"),
            Query(f"edged_questions_running{NODE}", "{{instance}} running"),
        ),
        kind="stack",
    ),
    Panel(
        "Questions a second",
        "Taken on, by how they ended, and turned away.",
        (
            Query(f"sum by (outcome) ({_rate('edged_questions_ended_total')})", "{{outcome}}"),
            Query(f"sum ({_rate('edged_questions_refused_total')})", "refused"),
            Query(f"sum ({_rate('edged_questions_duplicate_total')})", "second copies"),
        ),
        unit="reqps",
    ),
    Panel(
        "Refusals and failures by code",
        "The contract's error codes: at the door (refused), and of accepted questions (failed).",
        (
            Query(
                f"sum by (code) ({_rate('edged_questions_refused_total')}) > 0 or vector(0)",
                "{{code}} refused",
            ),
            Query(
                f"sum by (code) ({_rate('edged_questions_failed_total')}) > 0 or vector(0)", "{{code}} failed"
            ),
        ),
        unit="reqps",
        kind="stack",
    ),
    _latency("Time in the queue", "edged_queue_seconds", "From arrival to a slot."),
    _latency("Time to the first token", "edged_first_token_seconds", "From arrival, queue included."),
    _latency("Time to the whole answer", "edged_answer_seconds", "From arrival to the terminal message."),
)

SPEED = (
    Panel(
        "Writing",
        "Tokens a second while there is work (the engine's own measure), and over all time.",
        (
            Query(f"edged_decode_tokens_per_second{NODE}", "{{instance}} while it works"),
            Query(_rate("edged_answer_tokens_total"), "{{instance}} over all"),
        ),
        unit="tokens/s",
    ),
    Panel(
        "Reading",
        "Prompt tokens a second while there is work.",
        (Query(f"edged_prefill_tokens_per_second{NODE}"),),
        unit="tokens/s",
    ),
    Panel(
        "Context",
        "Tokens that a question may have just now, and what the key-value cache holds.",
        (
            Query(f"edged_context_tokens{NODE}", "{{instance}} limit"),
            Query(f"edged_kv_tokens{NODE}", "{{instance}} in the cache"),
        ),
    ),
)

HEAT = (
    Panel(
        "Temperatures against their trip points",
        "Lines are zones; dashed are the trip points at which the board throttles or switches off.",
        (
            Query(f"edged_temperature_celsius{NODE}", "{{instance}} {{zone}}"),
            Query(
                'min by (instance, kind) (edged_trip_celsius{instance=~"$instance", kind!="active"})',
                "trip: {{instance}} {{kind}}",
            ),
            Query(f"edged_heat_target_celsius{NODE}", "trip: {{instance}} target"),
        ),
        unit="celsius",
        width=16,
        height=9,
        least=None,
    ),
    Panel(
        "Room before throttling",
        "Degrees to the nearest trip point; below zero the kernel throttles.",
        (Query(f"edged_headroom_celsius{NODE}"),),
        unit="celsius",
        height=9,
        least=None,
    ),
    Panel(
        "Level",
        "0 cool, 1 warm, 2 hot, 3 critical.",
        (Query('instance:edged_heat_level:index{instance=~"$instance"}'),),
        words=LEVELS,
    ),
    Panel(
        "Pace and effort",
        "Shares of the time that the engine's passes may fill, and of the power that it may spend; 0 while paused.",
        (
            Query(f"edged_heat_pace_ratio{NODE}", "{{instance}} pace"),
            Query(f"edged_heat_effort_ratio{NODE}", "{{instance}} effort"),
        ),
        unit="percentunit",
    ),
    Panel(
        "Clocks",
        "Asked for, by cluster, and the most that heat leaves to the engine; firmware that throttles by itself is "
        "not seen here.",
        (
            Query(f"edged_clock_hertz{NODE}", "{{instance}} cores {{cores}}"),
            Query(f"edged_heat_clock_cap_hertz{NODE}", "{{instance}} cap {{cores}}"),
        ),
        unit="hertz",
    ),
    Panel(
        "Throttled and under-voltage",
        "1 while a clock is held down, or the supply is too low (Raspberry Pi).",
        (
            Query(f"edged_throttled{NODE}", "{{instance}} throttled"),
            Query(f"edged_under_voltage{NODE}", "{{instance}} under-voltage"),
            Query(f"increase(edged_throttles_total{NODE}[1h])", "{{instance}} began to throttle, in an hour"),
        ),
    ),
)

HOUSE = (
    Panel(
        "Restarts",
        "Of the engine process, and of the daemon, within an hour.",
        (
            Query(f"increase(edged_engine_restarts_total{NODE}[1h])", "{{instance}} engine"),
            Query(f"resets(edged_uptime_seconds{NODE}[1h])", "{{instance}} daemon"),
        ),
    ),
    Panel(
        "Memory",
        "Resident, by process; the engine's holds the model.",
        (
            Query(f"edged_resident_memory_bytes{NODE}", "{{instance}} {{process}}"),
            Query(f"edged_board_memory_available_bytes{NODE}", "{{instance}} still to be had"),
        ),
        unit="bytes",
    ),
    Panel(
        "Journal",
        "Questions not finished and answers that the broker does not have yet.",
        (
            Query(f"edged_journal_unfinished{NODE}", "{{instance}} unfinished"),
            Query(f"edged_journal_outbox{NODE}", "{{instance}} owed to the broker"),
        ),
    ),
    Panel(
        "Larger server",
        "Questions a second that ended there, by how, and 1 while it is spared because it failed.",
        (
            Query(f"sum by (outcome) ({_rate('edged_upstream_ended_total')})", "{{outcome}}"),
            Query('edged_upstream_state{instance=~"$instance", state="open"}', "{{instance}} spared"),
        ),
    ),
    Panel(
        "Pools",
        "1 while the broker deals the pool's questions to the node.",
        (Query(f"edged_pool_member{NODE}", "{{instance}} {{pool}}"),),
        words=IN_OUT,
    ),
)

NUMBERS = (
    _number(
        "Engine",
        "Whether it answers.",
        Query('edged_engine_phase{instance=~"$instance", phase="ready"}'),
        words=PHASE,
    ),
    _number(
        "Level",
        "How hot the board is.",
        Query('instance:edged_heat_level:index{instance=~"$instance"}'),
        words=LEVELS,
    ),
    _number(
        "Hottest zone",
        "Of all zones.",
        Query(f"max by (instance) (edged_temperature_celsius{NODE})"),
        unit="celsius",
    ),
    _number(
        "Throttled",
        "Whether a clock is held below the hardware's maximum.",
        Query(f"edged_throttled{NODE}"),
        words=NO_YES,
    ),
    _number(
        "Writing", "Tokens a second, lately.", Query(f"edged_decode_tokens_per_second{NODE}"), unit="tokens/s"
    ),
    _number("Up for", "Since the daemon's start.", Query(f"edged_uptime_seconds{NODE}"), unit="s"),
)

FLEET = (
    _number("Nodes that answer", "Engines that are ready.", Query(READY, "ready")),
    _number(
        "Nodes that do not",
        "Seen within a day, and without an engine that is ready just now: loading, broken, or the node is gone.",
        Query(f"count (present_over_time(edged_uptime_seconds{NODE}[1d])) - ({READY})", "not ready"),
    ),
    _number(
        "Hot or critical",
        "Nodes that shed work for heat.",
        Query('sum (edged_heat_level{instance=~"$instance", level=~"hot|critical"})', "hot"),
    ),
    _number(
        "Waiting", "Questions, all nodes together.", Query(f"sum (edged_questions_waiting{NODE})", "waiting")
    ),
    _number(
        "Answers a second",
        "All nodes together.",
        Query(f"sum ({_rate('edged_questions_ended_total', DONE)})", "answers"),
        unit="reqps",
    ),
    _number(
        "Writing",
        "Tokens a second, all nodes together.",
        Query(f"sum ({_rate('edged_answer_tokens_total')})", "tokens"),
        unit="tokens/s",
    ),
    Panel(
        "Who they are",
        "Version, board and model of every node.",
        (Query(f"edged_info{NODE}"),),
        kind="table",
        width=24,
    ),
    Panel("Level by node", "0 cool to 3 critical.", HEAT[2].queries, words=LEVELS),
    Panel(
        "Hottest zone by node",
        "",
        (Query(f"max by (instance) (edged_temperature_celsius{NODE})"),),
        unit="celsius",
        least=None,
    ),
    Panel("Waiting by node", "", (Query(f"edged_questions_waiting{NODE}"),), kind="stack"),
    Panel(
        "Answers a second by node",
        "Even where the pool deals evenly and the boards are alike.",
        (Query(_rate("edged_questions_ended_total", DONE)),),
        unit="reqps",
        kind="stack",
    ),
    Panel(
        "Time to the first token, 95 %",
        "",
        (Query(_quantile(0.95, "edged_first_token_seconds")),),
        unit="s",
    ),
    Panel(
        "Turned away by node",
        "",
        (Query(f"sum by (instance) ({_rate('edged_questions_refused_total')})"),),
        unit="reqps",
        kind="stack",
    ),
    Panel("Restarts by node", "", HOUSE[0].queries, width=24),
)
