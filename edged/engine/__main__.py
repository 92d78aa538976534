"""`python -m edged.engine FD`: the engine process with llama.cpp in it. The daemon starts it; people do not."""

from __future__ import annotations

import sys
from collections.abc import Callable

from edged.engine.messages import Configure
from edged.engine.process import LoadedModel, run


def load(setup: Configure, log: Callable[[str, str], None]) -> LoadedModel:
    """Load llama.cpp, and then the model: there is somebody to tell by now where the library is what fails."""
    from edged.engine import loading  # noqa: PLC0415 - it loads llama.cpp

    return loading.load(setup, log)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), load))
