"""Huge pages for the weights. Pure.

Every token reads all weights once, and each page of them needs its own translation from address to memory. Linux
gives pages of 2 MiB in place of 4 KiB, by its default on many distributions only to those who ask (`madvise` in
/sys/kernel/mm/transparent_hugepage/enabled, its admin-guide/mm/transhuge).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BYTES_MAX = 2 * 1024 * 1024
"""With base pages of 16 KiB, as on a Raspberry Pi 5, a huge page has 32 MiB: a heap of many small things would grow
by tens of MB, and there are four times fewer pages to translate to begin with."""


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
    def asked_for(self) -> bool:
        """Whether the engine asks for them."""
        return self.usable and self.mode == "madvise"


def parse(enabled: str, size: str) -> HugePages | None:
    """From the kernel's own texts, such as `always [madvise] never`; None where they say nothing."""
    mode = re.search(r"\[(\w+)\]", enabled)
    return HugePages(mode[1], int(size)) if mode and size.strip().isdecimal() else None
