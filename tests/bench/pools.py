"""A pool of 1, 2, 4 and 8 boards: answers a second, who gets what, and what the pool adds to one question's time.

    python tests/bench/pools.py [--nodes 1 2 4 8] [--seconds 20]

Boards are daemons with the scripted engine, two slots each, on this machine; an answer takes them a second, most
of it asleep, so that eight of them fit on two cores. First three devices a board ask one question after the other:
each board alone could give two answers a second. Then, with the boards at rest, one device asks questions of one
token, by turns to the pool and to one board by name, each until its `done`. The broker writes its store at its
end only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from broker import Mosquitto  # noqa: E402 - found through the path above
from daemon_process import DaemonProcess  # noqa: E402 - likewise

from edged.client import Client, ClientError  # noqa: E402 - likewise
from edged.core.reply import Done  # noqa: E402 - likewise

POOL = "hall"
SLOTS = 2
DEVICES_A_BOARD = 3
QUESTION = "tokens=20 step_ms=50"
ANSWER_S = 20 * 0.05
SHORT = "tokens=1"
SINGLES = 100
READY_S = 120.0


class Lazy(Mosquitto):
    """A broker that sends small packets at once, and whose disk has no part in what is measured."""

    def _settings(self, port: int) -> str:
        settings = super()._settings(port).replace("autosave_on_changes true", "autosave_on_changes false")
        return f"{settings}set_tcp_nodelay true\n"


class Crowd:
    """Devices that ask the pool without a pause, counted by who answered."""

    def __init__(self, port: int, devices: int) -> None:
        self.by_node: collections.Counter[str] = collections.Counter()
        self.refused = 0
        self.first_s: list[float] = []
        self._port = port
        self._until = 0.0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(devices)]

    def run(self, seconds: float) -> float:
        """Ask for so long; returns the seconds until the last answer."""
        begun = time.monotonic()
        self._until = begun + seconds
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return time.monotonic() - begun

    def _ask(self, number: int) -> None:
        with Client("127.0.0.1", self._port, name=f"d{number}") as client:
            while time.monotonic() < self._until:
                answer = client.ask(QUESTION, pool=POOL)
                try:
                    answer.text()
                except ClientError:
                    with self._lock:
                        self.refused += 1
                    continue
                done = answer.terminal
                with self._lock:
                    self.by_node[done.node if isinstance(done, Done) else ""] += 1
                    self.first_s.append(answer.first_s or 0.0)


def singles(port: int, node: str) -> tuple[list[float], list[float]]:
    """Milliseconds to `done` of short questions to the pool, and to a board by name, by turns."""
    took: tuple[list[float], list[float]] = ([], [])
    with Client("127.0.0.1", port, name="single") as client:
        for number in range(2 * SINGLES):
            pooled = number % 2 == 0
            at = time.monotonic()
            client.ask(SHORT, pool=POOL if pooled else None, node=None if pooled else node).text()
            took[number % 2].append(1000 * (time.monotonic() - at))
    return took


def measure(folder: Path, count: int, seconds: float) -> dict[str, float]:
    """One pool."""
    (folder / "broker").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        broker = Lazy(folder / "broker").start()
        stack.callback(broker.kill)
        nodes = []
        for number in range(count):
            place = folder / f"n{number}"
            place.mkdir()
            sections: dict[str, dict[str, Any]] = {
                "node": {"id": f"n{number}", "pools": [POOL]},
                "engine": {"slots": SLOTS},
                "health": {"interval_s": 15.0},
            }
            node = DaemonProcess(place, broker.host, broker.port, sections, scripted=True)
            stack.callback(node.close)
            nodes.append(node.start(timeout_s=READY_S))
        for node in nodes:
            node.wait_health(lambda h: h["membership"]["in"] == [POOL], timeout_s=READY_S)
        crowd = Crowd(broker.port, DEVICES_A_BOARD * count)
        took_s = crowd.run(seconds)
        shares = [crowd.by_node[node.node] for node in nodes]
        pooled, named = singles(broker.port, nodes[-1].node)
    ideal = count * SLOTS / ANSWER_S
    return {
        "answers a second": sum(shares) / took_s,
        "of what the boards could give": sum(shares) / took_s / ideal,
        "least of a board, over the mean": min(shares) / statistics.mean(shares),
        "most of a board, over the mean": max(shares) / statistics.mean(shares),
        "first piece, median s": statistics.median(crowd.first_s),
        "first piece, 95th percentile s": statistics.quantiles(crowd.first_s, n=20)[-1],
        "refused": crowd.refused,
        "idle: by name, median ms": statistics.median(named),
        "idle: through the pool, median ms": statistics.median(pooled),
        "idle: by name, 90th percentile ms": statistics.quantiles(named, n=10)[-1],
        "idle: through the pool, 90th percentile ms": statistics.quantiles(pooled, n=10)[-1],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    columns = []
    for count in given.nodes:
        with tempfile.TemporaryDirectory() as folder:
            columns.append(measure(Path(folder), count, given.seconds))
    print(f"{'boards':44}" + "".join(f"{count:8}" for count in given.nodes))
    for name in columns[0]:
        print(f"{name:44}" + "".join(f"{column[name]:8.2f}" for column in columns))


if __name__ == "__main__":
    main()
