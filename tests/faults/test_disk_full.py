"""The disk full under a running daemon: questions are not acknowledged and not lost; it goes on with room.

The journal alone is filled at every write point in test_power_loss.py; here it is the whole path.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess
from device import Device
from faults.journal_child import CHUNK, fill
from faults.nursery import MakeNode
from faults.record import Trial

MOUNT = 'mkdir -p "$0" && mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'


def start_on_a_tiny_disk(broker: Mosquitto, node: MakeNode, state: Path) -> tuple[DaemonProcess, Path]:
    """A node whose state has 2 MiB, and the path of a file that may fill them."""
    isolated = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here: a tiny file system cannot be made")
    sections = {"paths": {"state": str(state)}}
    wrapper = [*isolated, "sh", "-c", MOUNT, str(state)]
    process = node(broker, "n1", sections, forked=False, wrapper=wrapper).start()
    return process, Path(f"/proc/{process.pid}/root{state}/filler")


def test_taken_back_while_the_disk_is_full(broker: Mosquitto, node: MakeNode, tmp_path: Path) -> None:
    """A question that is taken back before it could be stored ends as `cancelled`, and may be asked anew.

    One that was answered before the disk was full has its answer again meanwhile.
    """
    process, filler = start_on_a_tiny_disk(broker, node, tmp_path / "state")
    asking = Device(broker.host, broker.port, "d1").start()
    known = asking.ask("x tokens=2")
    assert asking.wait_reply(known, "done")["text"] == "w0 w1 "
    fill(filler, 0)
    job = asking.ask("x" * 20_000 + " tokens=3")
    process.wait_health(lambda h: "failing" in h["journal"])
    asking.ask("x tokens=2", id=known)
    assert asking.wait_reply(known, "done", count=2)["text"] == "w0 w1 "
    asking.control("cancel", job)
    assert asking.answer(job).last["type"] == "cancelled"
    filler.unlink()
    asking.ask("x" * 20_000 + " tokens=3", id=job)
    assert asking.wait_reply(job, "done")["text"] == "w0 w1 w2 "
    asking.stop()


def test_disk_full(broker: Mosquitto, node: MakeNode, tmp_path: Path, trial: Trial) -> None:
    """With 0, 4, 8, ... KiB of room what cannot be stored waits unacknowledged; with room again it is answered."""
    process, filler = start_on_a_tiny_disk(broker, node, tmp_path / "state")
    pid = process.pid
    asking = Device(broker.host, broker.port, "d1").start()
    turns, kept_waiting = 20 * trial.factor, 0
    asked: list[str] = []
    for turn in range(turns):
        fill(filler, turn % 20 * len(CHUNK))
        fresh = [asking.ask("x" * 20_000 + " tokens=3") for _ in range(4)]
        if turn == 0:
            process.wait_health(lambda h: "failing" in h["journal"])
        time.sleep(0.2)
        answered = asking.answers()
        kept_waiting += sum(job not in answered for job in fresh)
        filler.unlink()
        asked += fresh
        for job in fresh:
            assert asking.answer(job).check().last["type"] == "done"
    since = process.watcher.mark
    process.wait_health(
        lambda h: "failing" not in h["journal"] and not h["journal"]["unfinished"], since=since
    )
    assert process.running
    assert process.pid == pid
    assert kept_waiting >= turns, "the disk was not full"
    asking.stop()
    trial.note(
        "disk full",
        turns,
        "times full",
        also=f"{len(asked)} questions, {kept_waiting} kept waiting, none lost",
    )
