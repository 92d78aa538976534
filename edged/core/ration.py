"""How often a line of one kind is worth writing. Pure.

A device that is refused and asks again in a loop would write hundreds of lines a second: they push weeks of others
out of a journal of bounded size, and beyond the unit's rate journald drops what comes, whether it matters or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

EACH, TOGETHER, WINDOW_S = 20, 100, 60.0
"""Lines about one client, and about all, in so long. A hundred a minute are 7 MB of journal an hour."""


@dataclass(slots=True)
class Ration:
    """What is left of a window's lines.

    Attributes:
        left_out: lines that were not written since the last one that was.
        written: those of this window that were, by client.
    """

    left_out: int = 0
    written: dict[str, int] = field(default_factory=dict)
    _began: float = -math.inf

    def takes(self, who: str, now: float) -> int | None:
        """How many lines were left out before this one about `who`, which is to be written; None if it is not."""
        if now - self._began >= WINDOW_S:
            self._began = now
            self.written.clear()
        mine = self.written.get(who, 0)
        if mine >= EACH or sum(self.written.values()) >= TOGETHER:
            self.left_out += 1
            return None
        self.written[who] = mine + 1
        before, self.left_out = self.left_out, 0
        return before


def worth_a_line(times: int, *, first: int, then_each: int) -> bool:
    """Whether what happens again and again, for as long as nobody mends it, is told this time.

    Args:
        times: in a row, this one counted.
        first: so many are told one by one, then each doubling of their number.
        then_each: and at last one in so many; a power of two.
    """
    doubled = times & (times - 1) == 0
    return times <= first or doubled or times % then_each == 0
