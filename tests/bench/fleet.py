"""Many nodes of one pool on this machine, with the scripted engine and a real Mosquitto: who gets what, and a wave.

    python tests/bench/fleet.py [--nodes 1 10] [--questions 200]
    python tests/bench/fleet.py --hot 3 10

Printed for each number of nodes: seconds until all are ready; memory of a daemon and its engine; how evenly the
broker's shared subscription spreads the questions; then an update wave, node after node (ten at most) stopped and
started again while devices go on asking: seconds for each node; questions refused, which devices ask again; and
questions without an answer, of which there may be none.

With `--hot`, for each number of nodes (2 or more): ten questions a node are dealt out at once, each a second's
work, two at a time; then the board of one node turns hot. Printed: what waited there, and who answered it; what was
refused and asked again; what the hot node was dealt after it had left; how long its line and the others' took.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import boards  # noqa: E402 - found through the path above
from broker import Mosquitto  # noqa: E402 - found through the path above
from daemon_process import DaemonProcess  # noqa: E402 - likewise

from edged.client import AnswerTimeoutError, Client, ClientError  # noqa: E402 - likewise
from edged.core.reply import Accepted, Done  # noqa: E402 - likewise

DEVICES = 8
ANSWER_S = 120.0
RETRY_S = 0.2
LINE = 10
"""Questions a node that are dealt out at once before one of them turns hot."""
SECOND = "tokens=20 step_ms=50"
HOT_C = 84.2
"""Of a board whose trip is 85 C: hot, not critical."""
POOL = "hall"


class Devices:
    """Devices that ask the pool, each one question after the other, and count who answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.by_node: collections.Counter[str] = collections.Counter()
        self.refused = 0
        self.unanswered = 0
        self._left = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def begin(self, questions: int) -> None:
        """Start asking; `questions` in all, or without an end until `finish`."""
        self._left = questions
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(DEVICES)]
        for thread in self._threads:
            thread.start()

    def finish(self, *, now: bool = False) -> None:
        """Wait for the last answers; `now` asks no further ones."""
        if now:
            with self._lock:
                self._left = 0
        for thread in self._threads:
            thread.join()

    def _more(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _ask(self, number: int) -> None:
        with Client("127.0.0.1", self._port, name=f"d{number}") as client:
            while self._more():
                try:
                    answer = client.ask("x", pool=POOL, timeout_s=ANSWER_S)
                    answer.text()
                    node = answer.terminal.node if isinstance(answer.terminal, Done) else ""
                except AnswerTimeoutError:
                    node = ""
                except ClientError:  # told at once: by the node, or by the broker that nobody listens there
                    with self._lock:
                        self.refused += 1
                    time.sleep(RETRY_S)
                    continue
                with self._lock:
                    if node:
                        self.by_node[node] += 1
                    else:
                        self.unanswered += 1


def fleet(folder: Path, count: int, questions: int) -> dict[str, float]:
    """Measure a pool of `count` nodes."""
    (folder / "broker").mkdir(parents=True)
    broker = Mosquitto(folder / "broker").start()
    nodes: list[DaemonProcess] = []
    try:
        begun = time.monotonic()
        for number in range(count):
            place = folder / f"n{number}"
            place.mkdir()
            sections: dict[str, dict[str, Any]] = {
                "node": {"id": f"n{number}", "pools": [POOL]},
                "health": {"interval_s": 15.0},
            }
            nodes.append(DaemonProcess(place, broker.host, broker.port, sections, scripted=True).launch())
        for node in nodes:
            node.wait_log("engine_ready", timeout_s=ANSWER_S + count)
        online_s = time.monotonic() - begun
        daemon = psutil.Process(nodes[0].pid)
        sizes = [process.memory_info().rss / 2**20 for process in (daemon, *daemon.children())]
        devices = Devices(broker.port)
        devices.begin(questions)
        devices.finish()
        shares = [devices.by_node[node.node] for node in nodes]
        wave = Devices(broker.port)
        wave.begin(1_000_000)
        turns = []
        for node in nodes[: min(count, 10)]:
            at = time.monotonic()
            node.terminate()
            node.launch()
            ready_again(node)
            turns.append(time.monotonic() - at)
        wave.finish(now=True)
        return {
            "seconds until all were ready": online_s,
            "MiB of a daemon": sizes[0],
            "MiB of a scripted engine": sum(sizes[1:]),
            "questions of a node, least": min(shares),
            "questions of a node, mean": statistics.mean(shares),
            "questions of a node, most": max(shares),
            "seconds of a node's turn in the wave": statistics.mean(turns),
            "questions answered during the wave": sum(wave.by_node.values()),
            "refused during the wave, to ask again": wave.refused,
            "questions without an answer": devices.unanswered + wave.unanswered,
        }
    finally:
        for node in nodes:
            node.close()
        broker.kill()


@dataclass(slots=True)
class Asked:
    """What became of one question to the pool."""

    accepted_by: str = ""
    refusals: int = 0
    answered_by: str = ""
    ended_s: float = 0.0


def ask_until_answered(client: Client, asked: Asked) -> None:
    """Ask the pool; where a node refuses, ask again, and another may have it."""
    while True:
        answer = client.ask(SECOND, pool=POOL, timeout_s=ANSWER_S)
        try:
            for reply in answer:
                if isinstance(reply, Accepted):
                    asked.accepted_by = reply.node
                elif isinstance(reply, Done):
                    asked.answered_by, asked.ended_s = reply.node, time.monotonic()
                    return
        except AnswerTimeoutError:
            return
        asked.refusals += 1
        time.sleep(RETRY_S)


def leaving(folder: Path, count: int) -> dict[str, float]:
    """Measure what becomes of the questions of a node that turns hot, in a pool of `count`."""
    (folder / "broker").mkdir(parents=True)
    broker = Mosquitto(folder / "broker").start()
    root = folder / "board"
    boards.rk3588_mainline(root)
    nodes: list[DaemonProcess] = []
    try:
        for number in range(count):
            place = folder / f"n{number}"
            place.mkdir()
            sections: dict[str, dict[str, Any]] = {
                "node": {"id": f"n{number}", "pools": [POOL]},
                "limits": {"client_jobs": 64},
                "heat": {"interval_s": 0.5, "dwell_s": 1.0},
            }
            if number == 0:
                sections["paths"] = {
                    "sys": str(root / "sys"),
                    "proc": str(root / "proc"),
                    "state": str(place),
                }
            nodes.append(DaemonProcess(place, broker.host, broker.port, sections, scripted=True).start())
        for node in nodes:
            node.wait_info(lambda info: info["membership"]["in"] == [POOL])
        hot = nodes[0]
        with Client(broker.host, broker.port, name="d0") as client:
            first, later = [Asked() for _ in range(LINE * count)], [Asked() for _ in range(LINE * count)]
            asking = [threading.Thread(target=ask_until_answered, args=(client, one)) for one in first]
            for thread in asking:
                thread.start()
            while not all(one.accepted_by or one.refusals for one in first):
                time.sleep(0.05)
            at = time.monotonic()
            boards.set_temp_c(root, "bigcore0-thermal", HOT_C)
            hot.wait_event("pools_left", timeout_s=ANSWER_S)
            left_s = time.monotonic() - at
            there = [one for one in first if one.accepted_by == hot.node]
            waiting = [one for one in there if not one.answered_by]
            more = [threading.Thread(target=ask_until_answered, args=(client, one)) for one in later]
            for thread in more:
                thread.start()
            for thread in (*asking, *more):
                thread.join()
        others = [one for one in first if one.accepted_by != hot.node]
        return {
            "seconds from hot to out of the pool": left_s,
            "questions it had then, waiting or running": len(waiting),
            "of these answered by itself": sum(one.answered_by == hot.node for one in waiting),
            "of these refused, and answered by others": sum(one.refusals > 0 for one in waiting),
            "seconds until its last one was answered": max((one.ended_s for one in there), default=at) - at,
            "seconds until the others' last of the first": max(one.ended_s for one in others) - at,
            "questions to the pool afterwards": len(later),
            "of these answered by the hot node": sum(one.answered_by == hot.node for one in later),
            "of these refused once or more": sum(one.refusals > 0 for one in later),
            "questions without an answer": sum(not one.answered_by for one in (*first, *later)),
        }
    finally:
        for node in nodes:
            node.close()
        broker.kill()


def ready_again(node: DaemonProcess) -> None:
    """Wait until a node's second engine has answered."""
    end = time.monotonic() + ANSWER_S
    while len(node.log("engine_ready")) < 2 and time.monotonic() < end:
        time.sleep(0.05)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--hot", type=int, nargs="+")
    given = parser.parse_args()
    for count in given.hot or given.nodes:
        with tempfile.TemporaryDirectory() as folder:
            measured = Path(folder)
            figures = leaving(measured, count) if given.hot else fleet(measured, count, given.questions)
        print(f"\n{count} nodes", flush=True)
        for name, value in figures.items():
            print(f"  {name:44} {value:10,.1f}", flush=True)


if __name__ == "__main__":
    main()
