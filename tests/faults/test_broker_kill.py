"""kill -9 of the broker under load, with its store kept and with its store wiped.

Mosquitto acknowledges first and saves at the end of the same turn of its loop: killed in between, it forgets what
it acknowledged last, a question or an answer (seen with 2.0.11 and `autosave_interval 1`). So two things are
proved: the node itself loses nothing, from the broker's log and its own; a device that asks again gets its answer.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess
from faults.load import Load, MakeLoad
from faults.nursery import MakeNode
from faults.record import Trial

FAULT = "kill -9 of the broker"
BACK_S = 5.0
BROKERS = 4
PUBLISHED = re.compile(
    r"Received PUBLISH from edged-n1 .*m(?P<mid>\d+), 'edged/v1/client/[^/]+/answer/(?P<id>[^']+)', "
    r".*\((?P<bytes>\d+) "
)
ACKNOWLEDGED = re.compile(r"Sending PUBACK to edged-n1 \(m(?P<mid>\d+),")
TERMINAL_BYTES_MIN = 200
"""An `accepted` is shorter, a `done` longer."""


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[list[Mosquitto]]:
    """Some that are killed at the same time: after a few short connections a node waits seconds before the next."""
    made = []
    for number in range(BROKERS):
        (tmp_path / f"broker{number}").mkdir()
        made.append(Mosquitto(tmp_path / f"broker{number}").start())
    yield made
    for each in made:
        each.kill()


def test_broker_kill(brokers: list[Mosquitto], node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """The node loses nothing and is back 5 s after the port opens; what a broker forgot may be asked again."""
    nodes = [node(broker, "n1", {"log": {"level": "debug"}}).start() for broker in brokers]
    loads = [load(broker, rate_per_s=30.0).start() for broker in brokers]

    def kill(which: int) -> list[float]:
        rng = random.Random(which)  # noqa: S311 - moments, not secrets
        broker, asking = brokers[which], loads[which]
        back_s = []
        for turn in range(20 // BROKERS * trial.factor):
            asking.wait_ended(asking.ended() + 5)
            time.sleep(rng.uniform(0.0, 0.3))
            broker.kill()
            time.sleep(rng.uniform(0.0, 1.0))
            broker.start()
            back_s.append(_wait_connected(nodes[which], turn + 2))
        return back_s

    with ThreadPoolExecutor(BROKERS) as pool:
        back_s = [each for part in pool.map(kill, range(BROKERS)) for each in part]
    assert max(back_s) < BACK_S
    with ThreadPoolExecutor(BROKERS) as pool:
        forgotten = sum(pool.map(_forgotten, brokers, nodes, loads))
    assert forgotten <= 3 * len(back_s), (
        "more than what a broker forgets in a turn of its loop, on a busy machine"
    )
    verdicts = [asking.settle().check() for asking in loads]
    questions = sum(v.acknowledged for v in verdicts)
    trial.note(
        FAULT,
        len(back_s),
        "kills",
        also=f"{questions} questions; {forgotten} acknowledged by the broker and forgotten "
        f"when it was killed, answered when asked again; back within {max(back_s):.1f} s",
    )


def _forgotten(broker: Mosquitto, process: DaemonProcess, asking: Load) -> int:
    """How many acknowledged questions have no answer, once it is shown that the node had no part in it."""
    silent = asking.settle(timeout_s=8.0).lost
    delivered = _answers_acknowledged(broker.log())
    arrived = {line["job_id"] for line in process.log("question_arrived")}
    assert [job for job in silent if job in arrived and job not in delivered] == [], "lost by the node"
    assert process.running
    asking.ask_again()
    return len(silent)


def test_broker_wiped(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """A broker without memory gets subscriptions and retained topics anew; devices that ask again are answered."""
    process = node(broker, "n1").start()
    asking: Load = load(broker).start()
    back_s: list[float] = []
    for turn in range(5 * trial.factor):
        asking.wait_ended(asking.ended() + 5)
        broker.kill()
        broker.wipe()
        since = process.watcher.mark
        broker.start()
        back_s.append(_wait_connected(process, turn + 2))
        process.wait_online(since)
        process.wait_info(since=since)
        # What the broker had taken and not passed on went with its store: devices ask again, under the old id.
        time.sleep(1.0)
        asking.ask_again()
    assert max(back_s) < BACK_S
    asking.stop_asking()
    while not asking.wait(lambda: not asking.unended(), 3.0):
        asking.ask_again()
    verdict = asking.settle().check()
    trial.note(FAULT, len(back_s), "kills with the store wiped", also=f"{verdict.acknowledged} questions")


def _wait_connected(process: DaemonProcess, count: int) -> float:
    """Wait for the `count`th connection of the node's life; returns the seconds that took."""
    began_s = time.monotonic()
    while len(process.log("mqtt_connected")) < count:
        assert time.monotonic() - began_s < 2 * BACK_S, "it does not come back"
        time.sleep(0.01)
    return time.monotonic() - began_s


def _answers_acknowledged(log: str) -> set[str]:
    """Ids whose terminal message the broker acknowledged to a node, from its log."""
    sent: dict[str, str] = {}
    ids = set()
    for line in log.splitlines():
        if found := PUBLISHED.search(line):
            sent[found["mid"]] = found["id"] if int(found["bytes"]) >= TERMINAL_BYTES_MIN else ""
        elif found := ACKNOWLEDGED.search(line):
            ids.add(sent.pop(found["mid"], ""))
    return ids
