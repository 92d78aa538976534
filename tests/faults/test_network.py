"""The network between node and broker cut, and half open, for seconds, while devices go on asking."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess
from faults.load import MakeLoad
from faults.nursery import MakeNode
from faults.proxy import Proxy
from faults.record import Trial

FAULT = "network cut and half open"
KEEPALIVE_S = 5
NOTICE_S = 1.5 * KEEPALIVE_S
GROWTH_BYTES = 8 * 1024 * 1024
NODES = 4


@pytest.fixture
def proxies(broker: Mosquitto) -> Iterator[list[Proxy]]:
    """One for each node."""
    made = [Proxy(broker.port) for _ in range(NODES)]
    yield made
    for proxy in made:
        proxy.close()


def test_network(
    broker: Mosquitto, proxies: list[Proxy], node: MakeNode, load: MakeLoad, trial: Trial
) -> None:
    """Nothing is lost, a half-open connection is noticed within 1.5 keepalive intervals, memory does not grow."""
    sections = {"mqtt": {"keepalive_s": KEEPALIVE_S}}
    nodes = [node(broker, f"n{i}", sections, port=proxies[i].port).start() for i in range(NODES)]
    loads = [load(broker, node=n.node, name=f"{n.node}-", devices=2, rate_per_s=15.0).start() for n in nodes]
    longest_s = 8.0 if trial.factor == 1 else 60.0
    noticed_s: list[float] = []

    def cut(which: int) -> int:
        rng = random.Random(which)  # noqa: S311 - moments, not secrets
        process, proxy, asking = nodes[which], proxies[which], loads[which]
        asking.wait_ended(20)
        before_bytes = _rss_bytes(process)
        for turn in range(5 * trial.factor):
            asking.wait_ended(asking.ended() + 3)
            if turn % 5 == which:
                noticed_s.append(_half_open(process, proxy))
            else:
                proxy.set("refuse" if turn % 2 else "swallow")
                time.sleep(rng.uniform(1.0, longest_s))
            proxy.set("pass")
        asking.wait_ended(asking.ended() + 3)
        assert _rss_bytes(process) - before_bytes < GROWTH_BYTES
        return 5 * trial.factor

    with ThreadPoolExecutor(NODES) as pool:
        cuts = sum(pool.map(cut, range(NODES)))
    verdicts = [each.settle().check() for each in loads]
    assert max(noticed_s) <= NOTICE_S
    questions = sum(v.acknowledged for v in verdicts)
    trial.note(FAULT, cuts, "cuts", also=f"{questions} questions, noticed within {max(noticed_s):.1f} s")


def _half_open(process: DaemonProcess, proxy: Proxy) -> float:
    """Swallow everything until the node says that the connection is gone; returns the seconds that took."""
    told = len(process.log("mqtt_disconnected"))
    began_s = time.monotonic()
    proxy.set("swallow")
    while len(process.log("mqtt_disconnected")) == told:
        assert time.monotonic() - began_s < 3 * KEEPALIVE_S, "it is not noticed"
        time.sleep(0.02)
    return time.monotonic() - began_s


def _rss_bytes(process: DaemonProcess) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)
