"""`python -m edged.engine.trial_process FD`: runs `edged.engine.trials`, where llama.cpp can be loaded."""

from __future__ import annotations

import socket
import sys
from typing import Any, cast

from edged.engine.channel import Channel
from edged.engine.trial_messages import Failed, Frame, TrialOrder
from edged.errors import LibraryError


def run(fd: int) -> int:
    """Carry out orders; one that is told why, where the library is not there. Returns the exit code."""
    try:
        from edged.engine import trials  # noqa: PLC0415 - it loads llama.cpp
    except LibraryError as error:
        channel: Channel[Frame, Frame] = Channel(socket.socket(fileno=fd), cast("Any", TrialOrder))
        if next(channel.receive(), None) is not None:
            channel.send(Failed(str(error)))
        return 0
    return trials.run(fd)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
