"""What a fleet at rest has its broker write to disk: each health is retained, and so a change of the store.

    python tests/bench/broker_disk.py [--boards 1 20 100] [--seconds 30] [--json FILE]

A real Mosquitto that saves at every change, as `configs/mosquitto` asks, and one that saves at every 50th; one
client says what so many boards would: a health of 3 KB each every 15 s, beside a retained `info` of 2 KB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import rig  # noqa: E402 - found through the path above
from broker import CONFIG, Mosquitto  # noqa: E402
from device import Listener  # noqa: E402

HEALTH, INFO = b"h" * 3000, b"i" * 2000
INTERVAL_S = 15.0
CHANGES = (1, 50)
DAY_S = 86_400


class Saving(Mosquitto):
    """A broker that saves after so many changes."""

    changes = 1

    def _settings(self, port: int) -> str:
        every = CONFIG.replace("autosave_interval 1", f"autosave_interval {self.changes}")
        return every.format(port=port, folder=self._folder)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--boards", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    written = {
        (boards, changes): a_day(boards, changes, given.seconds)
        for boards in given.boards
        for changes in CHANGES
    }
    rig.show(
        "written by the broker of boards at rest, GB a day",
        [
            ("boards", *(f"autosave_interval {changes}" for changes in CHANGES)),
            *((str(one), *(f"{written[one, changes]:.2f}" for changes in CHANGES)) for one in given.boards),
        ],
    )
    rig.save(given.json, {f"{boards}/{changes}": value for (boards, changes), value in written.items()})


def a_day(boards: int, changes: int, seconds: float) -> float:
    """GB that the broker of so many boards hands to the kernel in a day, from a run of some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Saving(Path(folder))
        broker.changes = changes
        broker.start()
        fleet = Listener(broker.host, broker.port, ("nothing",)).start()
        try:
            for number in range(boards):
                fleet.publish(f"edged/v1/node/n{number}/info", INFO, retain=True)
                fleet.publish(f"edged/v1/node/n{number}/health", HEALTH, retain=True, qos=0)
            time.sleep(1.0)
            process = psutil.Process(broker.pid)
            begun, before = time.monotonic(), process.io_counters().write_chars
            said = 0
            while (passed_s := time.monotonic() - begun) < seconds:
                fleet.publish(f"edged/v1/node/n{said % boards}/health", HEALTH, retain=True, qos=0)
                said += 1
                time.sleep(max(0.0, said * INTERVAL_S / boards - (time.monotonic() - begun)))
            return (process.io_counters().write_chars - before) / passed_s * DAY_S / 1e9
        finally:
            fleet.stop()
            broker.stop()


if __name__ == "__main__":
    main()
