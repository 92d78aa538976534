"""The daemon's handle on the engine process, where there is none."""

from __future__ import annotations

import queue

import psutil
from configured import configured

from edged.engine.client import EngineClient, EngineGone, EngineSaid

SETUP = configured(batch_tokens=16)


def test_a_process_that_cannot_be_started() -> None:
    """It is gone at once, with the reason, and leaves no file behind: its keeper tries again."""
    told: queue.SimpleQueue[EngineSaid | EngineGone] = queue.SimpleQueue()
    client = EngineClient(told.put, ("/nowhere/engine",))
    files = psutil.Process().num_fds()
    for run in (1, 2):
        client.start(SETUP)
        gone = told.get(timeout=1)
        assert isinstance(gone, EngineGone)
        assert (gone.run, client.run, client.pid) == (run, run, None)
        assert "No such file" in gone.why
    assert psutil.Process().num_fds() == files
    client.kill()
    client.stop(1.0)
