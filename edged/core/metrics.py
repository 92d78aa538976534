"""A node's metrics for Prometheus, made of its health and info and of the latencies it keeps. Pure.

Names begin with `edged_` and end in their base unit, counters in `_total`; they count from the daemon's start,
those of drafts and of prompts read from disk from the engine's, those of throttling and the supply from the
board's. Labels are bounded: zones and clocks by the board, codes, outcomes, phases and levels by the contract. No
label names a client or a question. A value that is not known has no sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import get_args

from edged.core.exposition import Family, Histogram, Kind, Sample
from edged.core.news import Board, Drafts, Health, Heat, Info, Membership, Phase, PrefixStore, Upstream
from edged.core.reply import Timings
from edged.core.topology import format_cores
from edged.core.vitals import LEVELS
from edged.errors import CODES

BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""From the first token of a warm small model to the deadline of questions that bring none (600 s)."""
BREAKER = ("closed", "open", "probing")
NO_CERTIFICATES: Mapping[str, float] = MappingProxyType({})
ZONES_MAX = 64
"""RK3588 has seven thermal zones; a kernel with more than this many is not ours to number."""


def _histogram() -> Histogram:
    return Histogram(BOUNDS_S)


@dataclass(slots=True)
class Latencies:
    """How long answered questions took, in seconds from their arrival."""

    queue: Histogram = field(default_factory=_histogram)
    first_token: Histogram = field(default_factory=_histogram)
    answer: Histogram = field(default_factory=_histogram)

    def answered(self, duration_s: float, timings: Timings) -> None:
        """Count a finished answer: `duration_s` from arrival to its end, whose last parts the engine times."""
        first_token_s = max(0.0, duration_s - timings.decode_ms / 1000)
        self.queue.observe(max(0.0, first_token_s - timings.prefill_ms / 1000))
        self.first_token.observe(first_token_s)
        self.answer.observe(duration_s)


def families(
    info: Info,
    health: Health,
    latencies: Latencies,
    *,
    online: bool,
    interval_s: float,
    certificates: Mapping[str, float] = NO_CERTIFICATES,
) -> list[Family]:
    """All that the node can tell, also those without a sample; made anew every `interval_s`.

    Of `certificates` it is told when they end, in seconds since 1970, by the setting that names their file.
    """
    return [
        *_node(info, health, online=online),
        _gauge(
            "edged_certificate_expiry_timestamp_seconds",
            "When the certificates of a file, as they were read at the start, end: Unix time.",
            (Sample(ends_s, {"setting": setting}) for setting, ends_s in certificates.items()),
        ),
        _one("edged_health_interval_seconds", "Time between two updates of these numbers.", interval_s),
        *_questions(health),
        *_latencies(latencies),
        *_upstream(health.upstream),
        *_engine(health),
        *_board(health.board),
        *_heat(health.heat),
        *_processes(health),
    ]


def _node(info: Info, health: Health, *, online: bool) -> Iterable[Family]:
    model = info.model
    about = {
        "node": info.node,
        "version": info.version,
        "board": info.board or "",
        "model": model.name if model else "",
        "quantisation": model.quantisation if model else "",
    }
    yield Family("edged_info", "gauge", "Who this node is; always 1.", (Sample(1, about),))
    yield _one("edged_online", "Whether the node is online at its broker, and connected.", online)
    yield _one("edged_uptime_seconds", "Time since the daemon started.", health.uptime_s)
    pools = health.membership or Membership()
    yield _gauge(
        "edged_pool_member",
        "Whether the broker deals this pool's questions to the node.",
        (Sample(pool in pools.inside, {"pool": pool}) for pool in sorted({*pools.inside, *pools.out})),
    )
    yield _states(
        "edged_heat_level", "level", LEVELS, health.level, "1 for the level of heat that the board has."
    )


def _questions(health: Health) -> Iterable[Family]:
    counts = health.counts
    yield _one("edged_questions_waiting", "Questions taken on that have no slot yet.", health.queue)
    yield _one("edged_questions_running", "Questions being answered.", health.active)
    yield _count("edged_questions_accepted", "Questions taken into the journal.", counts.accepted)
    outcomes = {"done": counts.done, "cancelled": counts.cancelled, "error": counts.errors}
    yield Family(
        "edged_questions_ended_total",
        "counter",
        "Accepted questions by their terminal message.",
        tuple(Sample(value, {"outcome": outcome}) for outcome, value in outcomes.items()),
    )
    yield _codes("edged_questions_refused", "Questions turned away at the door.", counts.refusals)
    yield _codes("edged_questions_failed", "Accepted questions that ended in an error.", counts.failures)
    yield _count("edged_questions_duplicate", "Second copies of questions.", counts.duplicates)
    yield _count("edged_messages_dropped", "Messages that nobody could be answered for.", counts.dropped)
    yield _count("edged_messages_retained", "Retained questions, which are ignored.", counts.retained_ignored)
    yield _count("edged_answer_tokens", "Tokens of all answers, thinking included.", counts.tokens)


def _latencies(latencies: Latencies) -> Iterable[Family]:
    for name, histogram, what in (
        ("queue", latencies.queue, "From arrival to a slot"),
        ("first_token", latencies.first_token, "From arrival to the first token"),
        ("answer", latencies.answer, "From arrival to the end of the answer"),
    ):
        meaning = f"{what}, of questions that were answered."
        yield Family(f"edged_{name}_seconds", "histogram", meaning, histogram.samples())


def _upstream(upstream: Upstream | None) -> Iterable[Family]:
    """The larger server; nothing for a node without one."""
    if upstream is None:
        return
    yield _states(
        "edged_upstream_state",
        "state",
        BREAKER,
        upstream.state,
        "1 for the state of the breaker: closed asks the larger server, open spares it, probing tries it.",
    )
    yield _one("edged_upstream_running", "Questions at the larger server.", upstream.active)
    yield _count("edged_upstream_asked", "Questions sent to the larger server.", upstream.asked)
    outcomes = {"done": upstream.done, "cancelled": upstream.cancelled, "failed": upstream.failed}
    yield Family(
        "edged_upstream_ended_total",
        "counter",
        "Questions at the larger server by how they ended there.",
        tuple(Sample(value, {"outcome": outcome}) for outcome, value in outcomes.items()),
    )
    yield _count(
        "edged_upstream_busy_seconds",
        "From sending to the end, of those that are done; divided by their number it is the mean.",
        upstream.busy_s,
    )


def _engine(health: Health) -> Iterable[Family]:
    phases = get_args(Phase)
    yield _states(
        "edged_engine_phase", "phase", phases, health.engine, "1 for the phase that the engine is in."
    )
    yield _count(
        "edged_engine_restarts", "Times that the engine process ended by itself.", health.engine_restarts
    )
    yield _one("edged_context_tokens", "Prompt and answer that a question may have just now.", health.context)
    yield _one("edged_kv_tokens", "Tokens in the key-value cache.", health.kv_tokens)
    store = health.prefix_store or PrefixStore()
    yield _one("edged_prefix_store_bytes", "Size of the prompts on disk.", store.bytes)
    yield _count("edged_prefix_store_loads", "Prompts that were read from disk.", store.loads)
    drafts = health.drafts or Drafts()
    yield _count("edged_draft_tokens", "Tokens that were guessed beside the next one.", drafts.tokens)
    yield _count("edged_draft_tokens_right", "Guessed tokens that the model then chose.", drafts.right)
    yield _one("edged_decode_tokens_per_second", "Tokens written lately.", health.decode_tokens_per_s)
    yield _one(
        "edged_calibrated_decode_tokens_per_second",
        "Of one question alone, as calibrated.",
        health.calibrated_decode_tokens_per_s,
    )
    yield _one("edged_calibrated_ratio", "Share of that rate reached lately.", health.calibrated_share)
    yield _one(
        "edged_slow",
        "Whether a cool board was far below its calibrated rate when it last wrote alone.",
        health.slow,
    )
    yield _one("edged_prefill_tokens_per_second", "Prompt tokens read lately.", health.prefill_tokens_per_s)


def _board(board: Board) -> Iterable[Family]:
    zones = sorted(board.zones.items())[:ZONES_MAX]
    yield _gauge(
        "edged_temperature_celsius",
        "Temperature of a thermal zone.",
        (Sample(zone.temp_c, {"zone": name}) for name, zone in zones if zone.temp_c is not None),
    )
    yield _gauge(
        "edged_trip_celsius",
        "Trip point of a thermal zone; `trip` counts those of one zone.",
        (
            Sample(trip.temp_c, {"zone": name, "trip": str(number), "kind": trip.kind})
            for name, zone in zones
            for number, trip in enumerate(zone.trips)
        ),
    )
    yield _one("edged_headroom_celsius", "To the nearest trip point; negative beyond it.", board.headroom_c)
    for name, attribute, what in (
        ("edged_clock_hertz", "now_hz", "Clock that is asked for."),
        ("edged_clock_allowed_hertz", "max_hz", "Highest clock allowed at the moment."),
        ("edged_clock_hardware_hertz", "hardware_max_hz", "Highest clock that the hardware has."),
    ):
        yield _gauge(
            name,
            what,
            (
                Sample(value, {"cores": format_cores(clock.cores)})
                for clock in board.clocks
                if (value := getattr(clock, attribute)) is not None
            ),
        )
    yield _one("edged_throttled", "Whether a clock is held below the hardware's maximum.", board.throttled)
    yield _one("edged_under_voltage", "Whether the supply is too low.", board.under_voltage)
    yield _one("edged_board_load1", "Load average of a minute.", board.load_1m)
    yield _one("edged_board_memory_bytes", "Memory of the board.", board.memory_total_bytes)
    yield _one("edged_board_memory_available_bytes", "Memory to be had.", board.memory_available_bytes)


def _heat(heat: Heat) -> Iterable[Family]:
    yield _one("edged_heat_target_celsius", "What is held in the hottest zone.", heat.target_c)
    yield _one("edged_heat_effort_ratio", "Share of its power that the engine may spend.", heat.effort)
    yield _one("edged_heat_pace_ratio", "Share of the time that its passes may fill.", heat.pace)
    yield _gauge(
        "edged_heat_clock_cap_hertz",
        "Highest clock that heat leaves to the engine's cores.",
        (Sample(hz, {"cores": cores}) for cores, hz in sorted(heat.clock_cap_hz.items())[:ZONES_MAX]),
    )
    yield _one("edged_heat_paused", "Whether running answers stand still.", heat.paused)
    yield _one("edged_heat_trip_seconds", "Time to the trip point at the present rise.", heat.time_to_trip_s)
    yield _one("edged_heat_slots", "Slots that heat leaves to the engine.", heat.slots)
    for name, value, what in (
        ("edged_throttles", heat.throttles, "Times that the kernel began to hold a clock down."),
        ("edged_under_voltages", heat.under_voltages, "Times that the supply fell too low."),
    ):
        if value is not None:
            yield _count(name, what, value)
    yield _gauge(
        "edged_sensor_distrusted",
        "1 for a sensor that is not believed, and why.",
        (Sample(1, {"sensor": name, "why": why}) for name, why in sorted(heat.sensors.items())[:ZONES_MAX]),
    )


def _processes(health: Health) -> Iterable[Family]:
    journal, memory = health.journal, health.memory
    sizes = {"daemon": memory.daemon_rss_bytes, "engine": memory.engine_rss_bytes}
    yield _gauge(
        "edged_resident_memory_bytes",
        "Resident memory of a process.",
        (Sample(size, {"process": name}) for name, size in sizes.items() if size is not None),
    )
    yield _one("edged_journal_unfinished", "Questions accepted and not finished.", journal.unfinished)
    yield _one("edged_journal_outbox", "Terminal messages that the broker does not have.", journal.outbox)
    yield _one("edged_sessions", "Conversations that are kept.", journal.sessions)
    yield _one("edged_journal_bytes", "Size of the journal on disk.", journal.bytes)
    yield _one(
        "edged_journal_failing", "Whether the disk refuses, or does not answer.", journal.failing is not None
    )


def _gauge(name: str, what: str, samples: Iterable[Sample]) -> Family:
    return Family(name, "gauge", what, tuple(samples))


def _one(name: str, what: str, value: float | None, kind: Kind = "gauge") -> Family:
    return Family(name, kind, what, () if value is None else (Sample(value),))


def _count(name: str, what: str, value: float) -> Family:
    return _one(f"{name}_total", what, value, "counter")


def _codes(name: str, what: str, by_code: dict[str, int]) -> Family:
    """A counter by error code; every code has a sample, so that a rate sees the first one."""
    codes = sorted(CODES)
    return Family(
        f"{name}_total",
        "counter",
        what,
        tuple(Sample(by_code.get(code, 0), {"code": code}) for code in codes),
    )


def _states(name: str, label: str, words: tuple[str, ...], now: str, what: str) -> Family:
    return _gauge(name, what, (Sample(word == now, {label: word}) for word in words))
