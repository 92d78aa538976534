"""`python -m scripted_daemon FILE`: the daemon as `edged run --config FILE` starts it, with a scripted engine.

SCRIPTED_ENGINE in the environment names its module; `scripted_engine` without it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The log first, as in `edged run`: it keeps rich out of the daemon.
from edged import logs

# isort: split
from edged import daemon, settings

ENGINE = (sys.executable, "-m", os.environ.get("SCRIPTED_ENGINE", "scripted_engine"))

if __name__ == "__main__":
    loaded = settings.load(Path(sys.argv[1]))
    logs.configure(loaded.log.level, loaded.log.format)
    sys.exit(daemon.run(loaded, engine=ENGINE, load=lambda: settings.load(Path(sys.argv[1]), again=True)))
