"""The node's metrics as text, made anew with every health. Made by the dispatcher thread, read by any.

A scrape gets the newest text as it is: it is as old as `health.interval_s` at most, and however often a scraper
asks, the dispatcher has nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import structlog

from edged.core import metrics, news
from edged.core.exposition import text
from edged.core.metrics import NO_CERTIFICATES, Latencies

log = structlog.get_logger()


class Sink(Protocol):
    """`edged.adapters.textfile.Textfile`, as far as the meter needs it. It never raises."""

    def write(self, text: str) -> None:
        """Take a new text in place of the last one."""

    def remove(self) -> None:
        """Show none any more."""


class Meter:
    """Keeps the newest text.

    Args:
        sink: where each text goes as well.
        certificates: when those that were read at the start end, by setting, in seconds since 1970.
    """

    def __init__(self, sink: Sink | None = None, certificates: Mapping[str, float] = NO_CERTIFICATES) -> None:
        self._text = ""
        self._sink = sink
        self._certificates = certificates

    def read(self) -> str:
        """The newest text; empty before the first health. Any thread."""
        return self._text

    def tell(
        self,
        info: dict[str, Any],
        health: dict[str, Any],
        latencies: Latencies,
        *,
        online: bool,
        interval_s: float,
    ) -> None:
        """Make the text of what is told just now; the next one follows after `interval_s`."""
        try:
            told = news.info(info), news.health(health)
        except msgspec.ValidationError as error:  # a defect, but none that should cost an answer
            log.error("metrics_failed", reason=str(error))  # noqa: TRY400 - the reason says it all
            return
        made = metrics.families(
            *told, latencies, online=online, interval_s=interval_s, certificates=self._certificates
        )
        self._text = text(made)
        if self._sink is not None:
            self._sink.write(self._text)

    def close(self) -> None:
        """The end of the node, however it comes."""
        if self._sink is not None:
            self._sink.remove()
