"""What a child process asks of the kernel: to end with its parent, to go first when memory runs out, small pages.

For engine, trials, tools and the demo's children, each in its main thread, before anything else. Linux alone; where
the kernel does not do as asked, the parent still ends its children itself.
"""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""prctl(2), linux/prctl.h. The parent it watches is the thread that started us."""
PR_SET_THP_DISABLE = 41
"""For all memory that the process has later, whether it asks for huge pages or gets them unasked (Linux 3.15)."""


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have this signal sent to us when the thread that started this process is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def offer_to_oom_killer(score: int) -> None:
    """When memory runs out the kernel shall end this process and leave the daemon (proc(5)).

    Args:
        score: -1000 to 1000, added to what the kernel makes of its size.
    """
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score), "ascii")
    except OSError:
        pass  # without /proc, or a sandbox's rule: the kernel then goes by size


def do_without_huge_pages() -> None:
    """Have what this process allocates from now on stand in pages of the usual size."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
