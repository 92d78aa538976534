"""The wall clock jumps by a year, or stands in 1970 after a boot: nothing expires by it.

The jumps are made where Python reads the wall clock, since setting the machine's is nobody's right in a test; a
boot is a start with another boot id in /proc, in a mount namespace.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from broker import Mosquitto
from device import Device
from faults.nursery import SHIFT, MakeNode
from faults.record import Trial

FAULT = "wall clock jumps"
YEAR_S = 365 * 86_400
BOOT_ID = "/proc/sys/kernel/random/boot_id"
UNEXPIRED = "tokens=30 step_ms=25"
"""Most of a second's answer."""


def test_wall_clock_jumps(broker: Mosquitto, node: MakeNode, tmp_path: Path, trial: Trial) -> None:
    """A jump in mid-answer, and one while the daemon is down, expires nothing; deadlines still hold after it."""
    shift = tmp_path / "shift"
    shift.write_text("0")
    process = node(broker, "n1", environment={SHIFT: str(shift)}).start()
    asking = Device(broker.host, broker.port, "d1", persistent=True).start()
    jumps = [YEAR_S, -YEAR_S, -int(time.time()), 10 * YEAR_S, 0] * 2 * trial.factor
    for turn, jump_s in enumerate(jumps):
        jobs = [asking.ask(UNEXPIRED, deadline_ms=60_000) for _ in range(2)]
        asking.wait_reply(jobs[0], "delta")
        shift.write_text(str(jump_s))
        if turn % 2:
            process.kill()
            process.start()
        for job in jobs:
            end = asking.answer(job).last
            assert (end["type"], end.get("finish_reason")) == ("done", "stop"), end
        late = asking.answer(asking.ask("tokens=100 step_ms=25", deadline_ms=700)).last
        assert (late["type"], late["finish_reason"]) == ("done", "deadline")
    asking.stop()
    trial.note(FAULT, len(jumps), "jumps", also=f"{2 * len(jumps)} questions, none expired")


def test_boot_in_1970(broker: Mosquitto, node: MakeNode, tmp_path: Path, trial: Trial) -> None:
    """After a boot without a clock, what was unfinished is answered within what was left of its deadline."""
    isolated = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here: a boot cannot be told from another")
    boot_id = tmp_path / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    wrapper = [*isolated, "sh", "-c", f'mount --bind "$0" {BOOT_ID} && exec "$@"', str(boot_id)]
    process = node(broker, "n1", forked=False, wrapper=wrapper).start()
    asking = Device(broker.host, broker.port, "d1", persistent=True).start()
    boots = 2 * trial.factor
    for _ in range(boots):
        jobs = [asking.ask(UNEXPIRED, deadline_ms=60_000) for _ in range(2)]
        asking.wait_reply(jobs[0], "delta")
        process.kill()
        boot_id.write_text(f"{uuid.uuid4()}\n")
        process.start()
        for job in jobs:
            end = asking.answer(job).last
            assert (end["type"], end.get("finish_reason")) == ("done", "stop"), end
    asking.stop()
    trial.note(FAULT, boots, "boots with another boot id", also=f"{2 * boots} questions, none expired")
