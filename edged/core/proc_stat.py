"""How busy cores were, from the text of /proc/stat (proc_stat(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CORE = re.compile(r"^cpu([0-9]{1,4}) ([0-9 ]{7,300})$", re.ASCII | re.MULTILINE)
_IDLE = (3, 4)  # idle and iowait among the columns


def busy_ticks(stat: str, cores: Iterable[int]) -> int | None:
    """Ticks since boot that these cores were busy, together, stolen time included; None where it is not told."""
    wanted = frozenset(cores)
    total, seen = 0, set()
    for core, columns in _CORE.findall(stat):
        if int(core) in wanted:
            ticks = [int(word) for word in columns.split()[:8]]
            total += sum(count for column, count in enumerate(ticks) if column not in _IDLE)
            seen.add(int(core))
    return total if seen == wanted else None
