"""The clock that deadlines and ages are measured with. Any thread; no wall clock here."""

from __future__ import annotations

import time
import uuid
from functools import cache
from pathlib import Path

from edged.core.records import Instant

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4): one UUID a boot


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Unknown: each process counts as a boot, so nothing expires by the time between.
        return str(uuid.uuid4())


def read_instant() -> Instant:
    """Return the present moment: boot id and CLOCK_BOOTTIME (which counts suspension)."""
    return Instant(boot_id=_boot_id(), monotonic_s=time.clock_gettime(time.CLOCK_BOOTTIME))
