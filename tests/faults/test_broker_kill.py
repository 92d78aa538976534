"""kill -9 of the broker under load, with its store kept and with its store wiped.

Mosquitto acknowledges first and saves at the end of the same turn of its loop: killed in between, it forgets what
it acknowledged last, a question or an answer (seen with 2.0.11 and `autosave_interval 1`). So two things are
proved: the node itself loses nothing, from the broker's log and its own; a device that asks again gets its answer.
"""

from __future__ import annotations

import random
import re
import time

from broker import Mosquitto
from daemon_process import DaemonProcess
from faults.load import Load, MakeLoad
from faults.nursery import MakeNode
from faults.record import Trial

FAULT = "kill -9 of the broker"
BACK_S = 5.0
PUBLISHED = re.compile(
    r"Received PUBLISH from edged-n1 .*m(?P<mid>\d+), 'edged/v1/client/[^/]+/answer/(?P<id>[^']+)', "
    r".*\((?P<bytes>\d+) "
)
ACKNOWLEDGED = re.compile(r"Sending PUBACK to edged-n1 \(m(?P<mid>\d+),")
TERMINAL_BYTES_MIN = 200
"""An `accepted` is shorter, a `done` longer."""


def test_broker_kill(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """Nothing that the broker acknowledged is lost, and the node is back within 5 s of its port opening."""
    process = node(broker, "n1", {"log": {"level": "debug"}}).start()
    asking = load(broker).start()
    rng = random.Random(20)  # noqa: S311 - moments, not secrets
    back_s: list[float] = []
    for turn in range(20 * trial.factor):
        asking.wait_ended(asking.ended() + 5)
        time.sleep(rng.uniform(0.0, 0.3))
        broker.kill()
        time.sleep(rng.uniform(0.0, 1.0))
        broker.start()
        back_s.append(_wait_connected(process, turn + 2))
    assert max(back_s) < BACK_S
    forgotten = asking.settle(timeout_s=8.0).lost
    delivered = _answers_acknowledged(broker.log())
    arrived = {line["job_id"] for line in process.log("question_arrived")}
    assert [job for job in forgotten if job in arrived and job not in delivered] == [], "lost by the node"
    assert len(forgotten) <= len(back_s), "more than what a broker forgets in one turn of its loop"
    asking.ask_again()
    verdict = asking.settle().check()
    assert process.running
    trial.note(
        FAULT,
        len(back_s),
        "kills",
        also=f"{verdict.acknowledged} questions, {len(forgotten)} forgotten by the broker and answered when asked "
        f"again, {verdict.repeats} answers sent twice, back within {max(back_s):.1f} s",
    )


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
