"""Prometheus' text format, version 0.0.4: families of samples, and histograms that are kept by hand. Pure.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/. The official client is a test's oracle and not
used here: it keeps values of its own, and what a node knows stands in its health already.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: a value under labels; `suffix` for the parts of a histogram."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Samples that share a name, a meaning and a kind. The name of a counter ends in `_total`."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


class Histogram:
    """Observations in fixed buckets.

    Args:
        bounds: upper bounds of the buckets, ascending; what is larger counts as well.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count an observation; a bucket holds what is at most its bound."""
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self) -> tuple[Sample, ...]:
        """Its cumulative buckets, sum and count."""
        so_far = 0
        buckets = []
        for bound, count in zip((*map(number, self.bounds), "+Inf"), self._counts, strict=True):
            so_far += count
            buckets.append(Sample(so_far, {"le": bound}, "_bucket"))
        return (*buckets, Sample(self.total, suffix="_sum"), Sample(so_far, suffix="_count"))


def text(families: Iterable[Family]) -> str:
    """The exposition; a family without samples is left out."""
    return "".join(_family(family) for family in families if family.samples)


def _family(family: Family) -> str:
    lines = [f"# HELP {family.name} {_escaped(family.help, '')}", f"# TYPE {family.name} {family.kind}"]
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped(value, chr(34))}"' for name, value in sample.labels.items())
        braces = f"{{{labels}}}" if labels else ""
        lines.append(f"{family.name}{sample.suffix}{braces} {number(sample.value)}")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """A value as Go reads it; whole numbers without a fraction."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def _escaped(value: str, also: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace(also, "\\" + also) if also else escaped
