"""What the engine's processes find in their environment.

glibc asks for huge pages where its tunable is 1 (2.35 and newer; another C library ignores it). A process that
shall have none is begun alike, and says no to the kernel itself (`edged.child.do_without_huge_pages`): that holds
where they come unasked, too. Decoding is 1.12 times as fast with them (SmolLM2) and 1.07 times (1.5B shape) on one
x86 machine; on another a lone answer of that shape was 0.88 and 0.74 times as fast (`tests/bench/streams.py`). So
`edged calibrate` measures both.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from edged.core.huge_pages import HugePages, parse

TUNABLES, HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
SPINCOUNT, WAIT_POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
SPINS = {"x86_64": 30_000}
"""How often a thread that waits for the others of a pass looks for them before it sleeps, by machine.

libgomp has 300,000 looks. On x86 each is a PAUSE of some 140 cycles, all together 13 ms, longer than the kernel
lets a thread run while others want its core: beside one busy program a prompt was read at 15 tokens a second, with
a tenth of the looks at 186, and alone at 672 and 679; writing alone was 0.99 and 1.00 times as fast (SmolLM2, 1.5B
shape, by hand). On Arm a look takes a nanosecond, and libgomp's number is left."""


def environment(present: Mapping[str, str], sys: Path = Path("/sys")) -> dict[str, str]:
    """The environment for a process that runs a model.

    Args:
        present: the daemon's own; what it says of `glibc.malloc.hugetlb` and of OpenMP's waiting stays.
        sys: where sysfs is.
    """
    ours = {**present, "OPENBLAS_NUM_THREADS": "1"}  # numpy's library would start threads of its own
    spins = SPINS.get(platform.machine())
    if spins is not None and WAIT_POLICY not in present:
        ours.setdefault(SPINCOUNT, str(spins))
    tunables = present.get(TUNABLES, "")
    pages = huge_pages(sys)
    if HUGE not in tunables and pages is not None and pages.asked_for:
        ours[TUNABLES] = ":".join(filter(None, (tunables, f"{HUGE}=1")))
    return ours


def stands_in_huge_pages(given: Mapping[str, str], sys: Path) -> bool:
    """Whether the kernel gives huge pages to a process with this environment: only then there is a choice.

    Args:
        given: what `environment` returned.
        sys: where sysfs is.
    """
    pages = huge_pages(sys)
    if pages is None:
        return False
    return pages.unasked or (pages.asked_for and f"{HUGE}=1" in given.get(TUNABLES, "").split(":"))


def huge_pages(sys: Path) -> HugePages | None:
    """What this kernel gives; None where it has none, or does not tell."""
    folder = sys / "kernel/mm/transparent_hugepage"
    try:
        return parse(
            (folder / "enabled").read_text(encoding="ascii"),
            (folder / "hpage_pmd_size").read_text(encoding="ascii"),
        )
    except (OSError, ValueError):
        return None
