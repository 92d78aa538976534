"""Huge pages for the weights. Pure.

Every token reads all weights once, and each page of them needs its own translation from address to memory. Linux
gives pages of 2 MiB in place of 4 KiB, by its default on many distributions only to those who ask (`madvise` in
/sys/kernel/mm/transparent_hugepage/enabled, its admin-guide/mm/transhuge).
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

BYTES_MAX = 2 * 1024 * 1024
"""With base pages of 16 KiB, as on a Raspberry Pi 5, a huge page has 32 MiB: a heap of many small things would grow
by tens of MB, and there are four times fewer pages to translate to begin with."""
CLEARLY = 1.05
"""Rates of one process and the next differ by a few percent where nothing was changed."""
Rates = Annotated[tuple[Annotated[float, Meta(gt=0, le=1e15)], ...], Meta(min_length=1, max_length=100)]


@dataclass(frozen=True, slots=True)
class HugePages:
    """What a kernel gives.

    Attributes:
        mode: `always`, `madvise` or `never`.
        size_bytes: of one page.
    """

    mode: str
    size_bytes: int

    @property
    def usable(self) -> bool:
        """Not too large for the heap of a process."""
        return self.size_bytes <= BYTES_MAX

    @property
    def unasked(self) -> bool:
        """Whether every process has them."""
        return self.mode == "always"

    @property
    def asked_for(self) -> bool:
        """Whether the engine asks for them."""
        return self.usable and self.mode == "madvise"


class Measured(msgspec.Struct, frozen=True):
    """One answer alone in huge pages and without, in turn, the model loaded anew each time.

    Which is faster is a matter of the machine and the model: `tests/README.md` has figures of both kinds.

    Attributes:
        with_tokens_per_s, without_tokens_per_s: the rate of each round, in order.
    """

    with_tokens_per_s: Rates
    without_tokens_per_s: Rates

    @property
    def gain(self) -> float:
        """How many times as fast it is without, by medians."""
        return statistics.median(self.without_tokens_per_s) / statistics.median(self.with_tokens_per_s)

    @property
    def slower(self) -> bool:
        """Whether an answer is clearly slower in huge pages, and in each round: a busy machine decides nothing."""
        rounds = zip(self.with_tokens_per_s, self.without_tokens_per_s, strict=False)
        return self.gain >= CLEARLY and all(without > huge for huge, without in rounds)

    @property
    def words(self) -> str:
        """What follows, for people."""
        taken = "the engine does without" if self.slower else "the engine has them"
        return f"{taken}; one answer is {self.gain:.2f} times as fast without"


def wanted(setting: str, measured: Measured | None) -> bool:
    """Whether the engine shall have huge pages where the kernel gives any: as set, else as measured, else yes.

    Args:
        setting: `engine.huge_pages`.
        measured: on this board, with this model.
    """
    if setting != "auto":
        return setting == "on"
    return measured is None or not measured.slower


def parse(enabled: str, size: str) -> HugePages | None:
    """From the kernel's own texts, such as `always [madvise] never`; None where they say nothing."""
    mode = re.search(r"\[(\w+)\]", enabled)
    return HugePages(mode[1], int(size)) if mode and size.strip().isdecimal() else None
