"""Lines that a device can cause at will: a few of them in the log, all of them at debug. Dispatcher thread."""

from __future__ import annotations

from typing import Literal

import structlog

from edged.core.ration import Ration

log = structlog.get_logger()


def say_seldom(
    event: str,
    ration: Ration,
    who: str,
    now: float,
    level: Literal["info", "error"] = "info",
    **fields: object,
) -> None:
    """Log `event` about client `who`, if the ration has a line left; with it how many were left out before."""
    left_out = ration.takes(who, now)
    if left_out is None:
        log.debug(event, **fields)
        return
    if left_out:
        fields["left_out"] = left_out
    getattr(log, level)(event, **fields)
