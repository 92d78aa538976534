"""Keeps the engine's memory from being swapped out, where the settings ask for it. Once, when all is in place.

llama.cpp's own way (LLAMA_LOAD_MODE_MLOCK) leaves out the copy of the weights that it makes to suit the CPU, two
thirds of SmolLM2, and where it fails only a line at loading says so.
"""

from __future__ import annotations

import ctypes
import os

MCL_CURRENT, MCL_ONFAULT = 1, 4
"""mlock2(2), asm-generic/mman.h: what is mapped now; of it what is in use, so that no thread's stack grows."""
ADVICE = "give the service LimitMEMLOCK=infinity (systemd/edged.service has it), or set engine.lock_memory to false"


def lock_memory() -> str:
    """Lock what the process has in memory now; returns why it could not be, nothing where it worked."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.mlockall(MCL_CURRENT | MCL_ONFAULT) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
