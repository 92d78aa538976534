"""Lists every metric of a node: name, type, labels, meaning. Writes `metrics.md` beside itself; `--check` compares.

python deploy/prometheus/metrics.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from edged.core import metrics, news
from edged.core.exposition import Family

FILE = Path(__file__).with_suffix(".md")
HEAD = """\
# Metrics of a node

Made by `python deploy/prometheus/metrics.py`. Counters count from the daemon's start, those of guesses (drafts) and
of prompts read from disk from the engine's, those of throttling and the supply from the board's. What is not known
has no sample. Where a label's values are few, they stand behind it.

| name | type | labels | meaning |
|---|---|---|---|
"""
FEW = 6
OF_THE_SITE = frozenset(
    {
        "node",
        "version",
        "board",
        "model",
        "quantisation",
        "pool",
        "zone",
        "trip",
        "cores",
        "sensor",
        "why",
        "le",
    }
)
"""Labels whose values no table can list: names, numbers, versions."""
EXAMPLE = {
    "membership": {"in": ["a"]},
    "upstream": {"state": "closed"},
    "board": {
        "zones": {
            "a": {
                "temp_c": 1.0,
                "trips": [{"kind": "passive", "temp_c": 2.0}, {"kind": "critical", "temp_c": 3.0}],
            }
        },
        "clocks": [{"cores": [0], "now_hz": 1, "max_hz": 1, "hardware_max_hz": 1}],
    },
    "heat": {"clock_cap_hz": {"0": 1}, "throttles": 0, "under_voltages": 0, "sensors": {"a": "stuck"}},
    "memory": {"daemon_rss_bytes": 1, "engine_rss_bytes": 1},
}
"""A node that has one of everything, so that each metric shows its labels."""


def table() -> str:
    """The whole file."""
    info = news.info({"node": "a", "version": "1", "contract": 1})
    known = metrics.families(
        info,
        news.health(EXAMPLE),
        metrics.Latencies(),
        online=True,
        interval_s=15.0,
        certificates=dict.fromkeys(("mqtt.tls.ca", "mqtt.tls.cert", "http.tls.cert"), 1.0),
    )
    return HEAD + "".join(_row(family) for family in known)


def _row(family: Family) -> str:
    values: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            values.setdefault(label, []).append(value)
    labels = "; ".join(_label(label, list(dict.fromkeys(found))) for label, found in values.items())
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |\n"


def _label(label: str, values: list[str]) -> str:
    if label in OF_THE_SITE or len(values) > FEW:
        return f"`{label}`"
    return f"`{label}` ({', '.join(values)})"


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit code."""
    text = table()
    if "--check" not in arguments:
        FILE.write_text(text, "utf-8")
    elif not FILE.exists() or FILE.read_text("utf-8") != text:
        sys.stderr.write(f"{FILE.name} is not what metrics.py makes: run it\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
