"""`python -m edged.engine FD`: the engine process with llama.cpp in it. The daemon starts it; people do not."""

from __future__ import annotations

import sys

from edged.engine.loading import load
from edged.engine.process import run

if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), load))
