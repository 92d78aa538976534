"""Whether the disk takes what the journal writes, told in the log where that changes. Dispatcher thread.

A question that cannot be stored has a line of its own; of an answer that cannot, its device would otherwise wait
without a word in the log. A disk that hangs refuses nothing: it is told by the time that it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from edged.core.records import Depth

HANGS_S = 10.0
"""A card that tidies up its blocks takes some seconds now and then; this is longer."""
MEND = "questions and answers wait for it: make room (df) where it is full, else see what the kernel says (dmesg)"

log = structlog.get_logger()


@dataclass(slots=True)
class DiskWatch:
    """The journal's counters, with an eye on them.

    Attributes:
        depth: reads them.
    """

    depth: Callable[[], Depth]
    _failing: bool = False

    def __call__(self) -> Depth:
        """How full the journal is; called as often as health goes out."""
        found = self.depth()
        if found.failing is None and found.writing_s >= HANGS_S:
            hangs = f"the disk has not answered for {found.writing_s:.0f} s"
            found = msgspec.structs.replace(found, failing=hangs)
        failing = found.failing is not None
        if failing and not self._failing:
            log.error("journal_failing", reason=found.failing, owed=found.owed, mend=MEND)
        elif self._failing and not failing:
            log.info("journal_writes_again")
        self._failing = failing
        return found
