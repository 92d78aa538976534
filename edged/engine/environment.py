"""What the engine's processes find in their environment.

Huge pages: every token reads all weights once, and each page of them needs its own translation from address to
memory. Linux gives pages of 2 MiB in place of 4 KiB, by its default on many distributions only to those who ask
(`madvise` in /sys/kernel/mm/transparent_hugepage/enabled, its admin-guide/mm/transhuge). glibc asks for them where
its tunable is 1 (2.35 and newer; another C library ignores it). Decoding is 1.12 times as fast with them (SmolLM2)
and 1.07 times (1.5B shape), on x86: `tests/bench/end_to_end.py` with `glibc.malloc.hugetlb` at 1 and at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TUNABLES, HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
HUGE_BYTES_MAX = 2 * 1024 * 1024
"""With base pages of 16 KiB, as on a Raspberry Pi 5, a huge page has 32 MiB: a heap of many small things would grow
by tens of MB, and there are four times fewer pages to translate to begin with."""


def environment(present: Mapping[str, str], sys: Path = Path("/sys")) -> dict[str, str]:
    """The environment for a process that runs a model.

    Args:
        present: the daemon's own; what it says of `glibc.malloc.hugetlb` stays.
        sys: where sysfs is.
    """
    ours = {**present, "OPENBLAS_NUM_THREADS": "1"}  # numpy's library would start threads of its own
    tunables = present.get(TUNABLES, "")
    if HUGE not in tunables and _given_on_request(sys / "kernel/mm/transparent_hugepage"):
        ours[TUNABLES] = ":".join(filter(None, (tunables, f"{HUGE}=1")))
    return ours


def _given_on_request(settings: Path) -> bool:
    try:
        mode = (settings / "enabled").read_text(encoding="ascii")
        size_bytes = int((settings / "hpage_pmd_size").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False  # a kernel without them
    return "[madvise]" in mode and size_bytes <= HUGE_BYTES_MAX
