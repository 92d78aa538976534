"""A way to die at a chosen place. For the fault tests only; does nothing unless the environment asks for it.

`EDGED_FAILPOINT=before_accept_commit|after_accept_commit|before_finish_commit|after_finish_commit[:N]`
makes the process kill itself with SIGKILL at the Nth passage (1 when not given): no handler runs, as in a
power cut.
"""

from __future__ import annotations

import os
import signal


class Failpoint:
    """Counts passages of one named place; called from one thread."""

    def __init__(self, spec: str) -> None:
        self._name, _, nth = spec.partition(":")
        self._left = int(nth or 1)

    @classmethod
    def from_environment(cls) -> Failpoint:
        """Return the one named in EDGED_FAILPOINT, or one that never fires."""
        return cls(os.environ.get("EDGED_FAILPOINT", ""))

    def passage(self, name: str) -> None:
        """Die here if this is the place and the count is reached."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
