"""Metrics are what Prometheus' own client reads and promtool finds in order, and say what health says."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edged.core import metrics, news
from edged.core.exposition import Family, Histogram, Sample, text
from edged.core.metrics import BOUNDS_S, Latencies
from edged.core.reply import Timings
from edged.errors import CODES

INFO: dict[str, Any] = {"node": "shed", "version": "1.0", "contract": 1, "board": 'Radxa "5\\B"\n'}
HEALTH: dict[str, Any] = {
    "level": "hot",
    "uptime_s": 3600,
    "engine": "ready",
    "engine_restarts": 2,
    "queue": 3,
    "active": 2,
    "counts": {
        "accepted": 10,
        "done": 6,
        "cancelled": 1,
        "errors": 2,
        "refused": 4,
        "tokens": 900,
        "refusals": {"busy": 3, "hot": 1},
        "failures": {"expired": 2},
    },
    "upstream": {
        "state": "open",
        "active": 1,
        "asked": 9,
        "done": 4,
        "failed": 3,
        "cancelled": 1,
        "busy_s": 8.5,
    },
    "context": 2048,
    "decode_tokens_per_s": 12.5,
    "calibrated_share": 0.5,
    "slow": True,
    "heat": {
        "target_c": 80.0,
        "pace": 0.5,
        "clock_cap_hz": {"4-5": 1_608_000_000, "6-7": 1_416_000_000},
        "paused": False,
        "under_voltages": 2,
        "sensors": {"gpu": "stuck"},
    },
    "membership": {"in": ["hall"], "out": ["yard"], "reasons": ["full"]},
    "journal": {"unfinished": 5, "outbox": 0, "bytes": 40960},
    "memory": {"daemon_rss_bytes": 50_000_000},
    "board": {
        "zones": {
            "bigcore0-thermal": {
                "temp_c": 81.2,
                "trips": [
                    {"kind": "passive", "temp_c": 75.0, "hysteresis_c": 2.0},
                    {"kind": "passive", "temp_c": 85.0},
                    {"kind": "critical", "temp_c": 115.0},
                ],
            },
            "npu-thermal": {"trips": []},
        },
        "clocks": [{"cores": [4, 5], "now_hz": 2_256_000_000, "governor": "schedutil"}],
        "headroom_c": -6.2,
        "throttled": True,
    },
    "something_newer": {"than": "this"},
}


def latencies() -> Latencies:
    """Two answers, one of them slow."""
    kept = Latencies()
    kept.answered(1.5, Timings(queue_ms=100, prefill_ms=300, decode_ms=1000))
    kept.answered(3000.0, Timings(prefill_ms=1000, decode_ms=1_000_000))
    return kept


def exposition(health: dict[str, Any], kept: Latencies | None = None) -> str:
    """The text of such a node."""
    return text(
        metrics.families(
            news.info(INFO), news.health(health), kept or Latencies(), online=True, interval_s=15.0
        )
    )


def samples(exposed: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, as Prometheus' client reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposed)
        for sample in family.samples
    }


def value(exposed: str, name: str, **labels: str) -> float:
    """One sample."""
    return samples(exposed)[name, tuple(sorted(labels.items()))]


def test_clocks_are_named_by_the_cores_that_they_have() -> None:
    """A core in the midst that is off-line is not in the label, which is the same as that of the cap."""
    board = {"clocks": [{"cores": [4, 6, 7], "now_hz": 2_400_000_000}]}
    exposed = exposition({"board": board, "heat": {"clock_cap_hz": {"4,6-7": 1_608_000_000}}})
    assert value(exposed, "edged_clock_hertz", cores="4,6-7") == 2_400_000_000
    assert value(exposed, "edged_heat_clock_cap_hertz", cores="4,6-7") == 1_608_000_000


def test_health_is_told() -> None:
    """Numbers come through with their units and labels."""
    exposed = exposition(HEALTH, latencies())
    assert value(exposed, "edged_questions_waiting") == 3
    assert value(exposed, "edged_questions_refused_total", code="busy") == 3
    assert value(exposed, "edged_questions_refused_total", code="poison") == 0
    assert value(exposed, "edged_questions_failed_total", code="expired") == 2
    assert value(exposed, "edged_questions_ended_total", outcome="done") == 6
    assert value(exposed, "edged_heat_level", level="hot") == 1
    assert value(exposed, "edged_heat_level", level="cool") == 0
    assert value(exposed, "edged_engine_phase", phase="ready") == 1
    assert value(exposed, "edged_temperature_celsius", zone="bigcore0-thermal") == 81.2
    trip = {"zone": "bigcore0-thermal", "trip": "1", "kind": "passive"}
    assert value(exposed, "edged_trip_celsius", **trip) == 85.0
    assert value(exposed, "edged_headroom_celsius") == -6.2
    assert value(exposed, "edged_clock_hertz", cores="4-5") == 2_256_000_000
    assert value(exposed, "edged_throttled") == 1
    assert value(exposed, "edged_heat_pace_ratio") == 0.5
    assert value(exposed, "edged_heat_clock_cap_hertz", cores="4-5") == 1_608_000_000
    assert value(exposed, "edged_calibrated_ratio") == 0.5
    assert value(exposed, "edged_slow") == 1
    assert value(exposed, "edged_upstream_state", state="open") == 1
    assert value(exposed, "edged_upstream_state", state="closed") == 0
    assert value(exposed, "edged_upstream_ended_total", outcome="failed") == 3
    assert value(exposed, "edged_upstream_busy_seconds_total") == 8.5
    assert value(exposed, "edged_under_voltages_total") == 2
    assert value(exposed, "edged_sensor_distrusted", sensor="gpu", why="stuck") == 1
    assert value(exposed, "edged_pool_member", pool="hall") == 1
    assert value(exposed, "edged_pool_member", pool="yard") == 0
    assert value(exposed, "edged_journal_failing") == 0
    about = {"node": "shed", "version": "1.0", "board": INFO["board"], "model": "", "quantisation": ""}
    assert value(exposed, "edged_info", **about) == 1


NUMBERS: dict[str, float] = {
    "edged_online": 1,
    "edged_uptime_seconds": 11,
    "edged_health_interval_seconds": 15,
    "edged_questions_waiting": 12,
    "edged_questions_running": 13,
    "edged_questions_accepted_total": 14,
    "edged_questions_duplicate_total": 16,
    "edged_messages_dropped_total": 17,
    "edged_messages_retained_total": 18,
    "edged_answer_tokens_total": 19,
    "edged_upstream_running": 20,
    "edged_upstream_asked_total": 21,
    "edged_engine_restarts_total": 22,
    "edged_context_tokens": 23,
    "edged_kv_tokens": 24,
    "edged_prefix_store_bytes": 25,
    "edged_prefix_store_loads_total": 26,
    "edged_draft_tokens_total": 27,
    "edged_draft_tokens_right_total": 28,
    "edged_decode_tokens_per_second": 29,
    "edged_prefill_tokens_per_second": 30,
    "edged_under_voltage": 1,
    "edged_board_load1": 31,
    "edged_board_memory_bytes": 32,
    "edged_board_memory_available_bytes": 33,
    "edged_heat_target_celsius": 34,
    "edged_heat_effort_ratio": 0.35,
    "edged_heat_paused": 1,
    "edged_heat_trip_seconds": 36,
    "edged_heat_slots": 37,
    "edged_throttles_total": 38,
    "edged_journal_unfinished": 39,
    "edged_journal_outbox": 40,
    "edged_sessions": 41,
    "edged_journal_bytes": 42,
    "edged_journal_failing": 1,
}
"""What has one sample and no label, but for what `test_health_is_told` looks at."""


def test_each_number_stands_under_its_name() -> None:
    """And none under another's: each is one of a kind here."""
    exposed = exposition(
        {
            "uptime_s": 11,
            "queue": 12,
            "active": 13,
            "counts": {"accepted": 14, "duplicates": 16, "dropped": 17, "retained_ignored": 18, "tokens": 19},
            "upstream": {"state": "closed", "active": 20, "asked": 21},
            "engine_restarts": 22,
            "context": 23,
            "kv_tokens": 24,
            "prefix_store": {"bytes": 25, "loads": 26},
            "drafts": {"tokens": 27, "right": 28},
            "decode_tokens_per_s": 29.0,
            "prefill_tokens_per_s": 30.0,
            "board": {
                "under_voltage": True,
                "load_1m": 31.0,
                "memory_total_bytes": 32,
                "memory_available_bytes": 33,
                "clocks": [{"cores": [0], "now_hz": 43, "max_hz": 44, "hardware_max_hz": 45}],
            },
            "heat": {
                "target_c": 34.0,
                "effort": 0.35,
                "paused": True,
                "time_to_trip_s": 36,
                "slots": 37,
                "throttles": 38,
            },
            "journal": {
                "unfinished": 39,
                "outbox": 40,
                "sessions": 41,
                "bytes": 42,
                "failing": "SQLITE_FULL",
            },
            "memory": {"daemon_rss_bytes": 46, "engine_rss_bytes": 47},
        }
    )
    told = samples(exposed)
    assert {name: told.get((name, ())) for name in NUMBERS} == NUMBERS
    clocks = ("edged_clock_hertz", "edged_clock_allowed_hertz", "edged_clock_hardware_hertz")
    assert [value(exposed, name, cores="0") for name in clocks] == [43, 44, 45]
    memory = "edged_resident_memory_bytes"
    assert [value(exposed, memory, process=each) for each in ("daemon", "engine")] == [46, 47]


def test_what_is_not_known_has_no_sample() -> None:
    """Absent is not zero."""
    names = {name for name, _ in samples(exposition({"queue": 1}))}
    assert "edged_questions_waiting" in names
    for absent in (
        "edged_temperature_celsius",
        "edged_context_tokens",
        "edged_throttled",
        "edged_under_voltage",
    ):
        assert absent not in names


def test_latencies_count_from_arrival() -> None:
    """What the engine does not time is waiting; what is slower than the last bucket counts as well."""
    exposed = exposition(HEALTH, latencies())
    assert value(exposed, "edged_queue_seconds_bucket", le="0.25") == 1
    assert value(exposed, "edged_queue_seconds_bucket", le="0.1") == 0
    assert value(exposed, "edged_first_token_seconds_bucket", le="0.5") == 1
    assert value(exposed, "edged_answer_seconds_bucket", le="640") == 1
    assert value(exposed, "edged_answer_seconds_bucket", le="+Inf") == 2
    assert value(exposed, "edged_answer_seconds_sum") == 3001.5
    assert value(exposed, "edged_answer_seconds_count") == 2


def lint(exposed: str) -> tuple[int, str]:
    """What Prometheus' own lint says of names, units, help and types."""
    ended = subprocess.run(
        ["promtool", "check", "metrics"], input=exposed, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("health", [HEALTH, {}, {"engine": "failed", "board": {"under_voltage": False}}])
def test_promtool_is_content(health: dict[str, Any]) -> None:
    """Prometheus' own lint finds nothing to say."""
    assert lint(exposition(health, latencies())) == (0, "")


def test_promtool_would_notice() -> None:
    """The check above can fail."""
    code, said = lint(exposition(HEALTH).replace("_total", "_milliseconds"))
    assert code != 0
    assert "edged_questions_accepted_milliseconds" in said


def label_values(exposed: str) -> Iterator[tuple[str, str]]:
    """Every label with its value."""
    for _, labels in samples(exposed):
        yield from labels


def test_labels_are_bounded() -> None:
    """A node that was asked by a thousand clients has as many series as one that was asked by none."""
    busy = {**HEALTH, "counts": {**HEALTH["counts"], "refusals": dict.fromkeys([*CODES, "invented"], 1)}}
    assert len(samples(exposition(busy))) == len(samples(exposition(HEALTH)))
    assert "invented" not in {label for _, label in label_values(exposition(busy))}
    many = {"zones": {f"zone{number}": {"temp_c": 50.0} for number in range(1000)}}
    assert len(samples(exposition({"board": many}))) < 200


@given(st.lists(st.floats(0, 10_000, allow_nan=False)))
def test_histograms_are_cumulative(observed: list[float]) -> None:
    """Buckets never fall, hold what is at most their bound, and end with the count."""
    histogram = Histogram(BOUNDS_S)
    for each in observed:
        histogram.observe(each)
    family = Family("edged_x_seconds", "histogram", "x", histogram.samples())
    told = samples(text([family]))
    for bound in (*BOUNDS_S, math.inf):
        le = "+Inf" if bound == math.inf else f"{bound:g}"
        assert told["edged_x_seconds_bucket", (("le", le),)] == sum(each <= bound for each in observed)
    assert told["edged_x_seconds_count", ()] == len(observed)
    assert told["edged_x_seconds_sum", ()] == pytest.approx(math.fsum(observed))


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_number_comes_back(label: str, number: float) -> None:
    """What stands in a label or a value is read back as it was."""
    exposed = text([Family("edged_x", "gauge", "Any \\ text\n.", (Sample(number, {"zone": label}),))])
    assert value(exposed, "edged_x", zone=label) == number


def test_every_name_is_documented() -> None:
    """What a dashboard may ask for has a help text that ends like a sentence."""
    helps = re.findall(r"^# HELP (\S+) (.+)$", exposition(HEALTH, latencies()), re.MULTILINE)
    assert len(helps) > 30
    assert all(name.startswith("edged_") and meaning.endswith(".") for name, meaning in helps)


def test_a_calibrated_node_tells_both_rates() -> None:
    """The calibrated rate and whether the node is slow are there once it is calibrated, and absent before."""
    calibrated = news.Health(decode_tokens_per_s=5.0, calibrated_decode_tokens_per_s=12.4, slow=True)
    info = news.Info(node="n1", version="1", contract=1)
    told = text(metrics.families(info, calibrated, Latencies(), online=True, interval_s=15.0))
    assert "edged_calibrated_decode_tokens_per_second 12.4" in told
    assert "edged_slow 1" in told
    told = text(metrics.families(info, news.Health(), Latencies(), online=True, interval_s=15.0))
    assert "edged_slow" not in told
    assert "edged_calibrated" not in told
