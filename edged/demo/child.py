"""A child process that ends with its parent: `python -m edged.demo.child run ...` is `edged run ...` bound so.

The demo ends its children itself; this is for the demo that is killed and cannot. Linux alone: prctl(2).
"""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the thread that started this process is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    from edged.cli import main

    end_with_parent()
    main(sys.argv[1:])
