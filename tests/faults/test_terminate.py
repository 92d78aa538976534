"""SIGTERM in the middle of answers: a clean end within 10 s, and after the next start nothing is missing."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

from broker import Mosquitto
from daemon_process import DaemonProcess
from faults.load import MakeLoad
from faults.nursery import MakeNode
from faults.record import Trial

END_S = 10.0
READY_S = 60.0
"""No bound of the node's: ten of them start at once, on two cores that others may use too."""
NODES = 10


def test_terminate(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """It ends with code 0 within 10 s, whatever runs; what was not finished is answered after the next start."""
    nodes = [node(broker, f"n{i}").start() for i in range(NODES)]
    # Long ones outlast the grace of a stop, short ones end within it.
    loads = [
        load(
            broker,
            node=n.node,
            name=f"{n.node}-",
            devices=2,
            open_each=3,
            rate_per_s=5.0,
            words=(1, 9),
            prompt=lambda words: f"tokens={words} step_ms={600 if words > 8 else 20}",
        ).start()
        for n in nodes
    ]

    def stop(which: int) -> list[float]:
        rng = random.Random(which)  # noqa: S311 - moments, not secrets
        took_s: list[float] = []
        process = nodes[which]
        for turn in range(5 * trial.factor):
            _wait_ready(process, turn + 1)
            # Every third life is long enough for the longest answer: no question is interrupted for ever.
            time.sleep(rng.uniform(0.1, 0.8) if turn % 3 else 2.0)
            began_s = time.monotonic()
            assert process.terminate() == 0
            took_s.append(time.monotonic() - began_s)
            process.launch()
        return took_s

    with ThreadPoolExecutor(NODES) as pool:
        took_s = [each for part in pool.map(stop, range(NODES)) for each in part]
    assert max(took_s) < END_S
    verdicts = [each.settle().check() for each in loads]
    again = sum(sum(v.attempts.values()) - v.attempts[1] for v in verdicts)
    assert again, "no answer was interrupted"
    questions = sum(v.acknowledged for v in verdicts)
    trial.note(
        "SIGTERM in mid-answer",
        len(took_s),
        "ends",
        also=f"{questions} questions, {again} run again, ended within {max(took_s):.1f} s",
    )


def _wait_ready(process: DaemonProcess, count: int) -> None:
    """Wait until its engine has become ready so many times."""
    began_s = time.monotonic()
    while len(process.log("engine_ready")) < count:
        assert time.monotonic() - began_s < READY_S, process.lines[-8:]
        time.sleep(0.02)
