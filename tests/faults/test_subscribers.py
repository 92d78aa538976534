"""Subscribers that are slow or dead, a broker that takes nothing: memory stays bounded, others are served."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from device import Device
from faults.load import MakeLoad
from faults.nursery import MakeNode
from faults.proxy import Proxy
from faults.record import Trial

FAULT = "slow or dead subscriber"
GROWTH_BYTES = 8 * 1024 * 1024
BIG = "tokens=1500"


@pytest.fixture
def proxy(broker: Mosquitto) -> Iterator[Proxy]:
    """Between node and broker."""
    made = Proxy(broker.port)
    yield made
    made.close()


def test_device_that_does_not_read(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """A device whose socket is never read costs the node nothing; the others get their answers."""
    process = node(broker, "n1").start()
    deaf = _connected_deaf(broker, "deaf")
    voice = Device(broker.host, broker.port, "voice").start()
    asking = load(broker).start()
    asking.wait_ended(20)
    before_bytes = rss_bytes(process)
    for number in range(40):
        voice.publish("edged/v1/node/n1/ask/deaf", f'{{"id": "b{number}", "prompt": "{BIG}"}}'.encode())
        wait_finished(process, f"b{number}")
    verdict = asking.settle().check()
    assert rss_bytes(process) - before_bytes < GROWTH_BYTES
    deaf.close()
    voice.stop()
    trial.note(FAULT, 1, "device that does not read", also=f"{verdict.acknowledged} others' questions")


def test_device_that_is_gone(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """A device that asks and leaves without a session: its answers go nowhere and hold nothing up."""
    process = node(broker, "n1").start()
    asking = load(broker).start()
    asking.wait_ended(20)
    before_bytes = rss_bytes(process)
    for number in range(20):
        gone = Device(broker.host, broker.port, "gone").start()
        job = gone.ask("tokens=20 step_ms=5", id=f"g{number}")
        gone.stop()
        wait_finished(process, job)
    verdict = asking.settle().check()
    process.wait_health(lambda h: h["journal"]["outbox"] == 0)
    assert rss_bytes(process) - before_bytes < GROWTH_BYTES
    trial.note(FAULT, 1, "device that is gone", also=f"{verdict.acknowledged} others' questions")


def test_broker_that_takes_nothing(
    broker: Mosquitto, proxy: Proxy, node: MakeNode, load: MakeLoad, trial: Trial
) -> None:
    """While nothing of the node's gets out, it takes in what it may hold and no more, and says so afterwards."""
    bound = 16
    limits: Sections = {"limits": {"queue_jobs": bound, "client_jobs": bound}, "log": {"level": "debug"}}
    process = node(broker, "n1", limits, port=proxy.port).start()
    asking = load(broker, devices=8, open_each=50, rate_per_s=200.0).start(limit=50)
    asking.stop_asking()
    asking.wait(lambda: not asking.unended())
    before_bytes = rss_bytes(process)
    known = len(process.log("question_arrived")) + len(process.log("question_refused"))
    proxy.set("hold_up")
    more = load(broker, name="more", devices=8, open_each=50, rate_per_s=300.0).start(limit=400)
    more.wait(lambda: more.verdict().asked == 400, 20.0)
    time.sleep(2.0)
    taken = len(process.log("question_arrived")) + len(process.log("question_refused")) - known
    assert 0 < taken <= bound + 32 + 8, "intake does not stop at the Receive Maximum"
    assert rss_bytes(process) - before_bytes < GROWTH_BYTES
    proxy.set("pass")
    verdict = more.settle().check("busy")
    refused = verdict.kinds["busy"] + asking.verdict().kinds["busy"]
    process.wait_health(lambda h: h["journal"]["outbox"] == 0 and h["counts"]["refused"] >= refused)
    trial.note(FAULT, 1, "broker that takes nothing", also=f"{taken} of 400 questions taken in meanwhile")


def test_slow_line(broker: Mosquitto, proxy: Proxy, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """A line of 8 KiB a second: deltas and answers crawl, memory does not grow, nothing is lost."""
    process = node(broker, "n1", port=proxy.port).start()
    asking = load(broker, words=(20, 60), prompt=lambda words: f"tokens={words} step_ms=1").start()
    asking.wait_ended(20)
    before_bytes = rss_bytes(process)
    proxy.bytes_per_s = 8_192.0
    time.sleep(6.0)
    assert rss_bytes(process) - before_bytes < GROWTH_BYTES
    proxy.bytes_per_s = None
    verdict = asking.settle().check()
    trial.note(FAULT, 1, "line of 8 KiB/s", also=f"{verdict.acknowledged} questions")


def test_frozen_broker(broker: Mosquitto, node: MakeNode, load: MakeLoad, trial: Trial) -> None:
    """A broker that stands still for seconds: memory does not grow, nothing is lost."""
    process = node(broker, "n1").start()
    asking = load(broker).start()
    asking.wait_ended(20)
    before_bytes = rss_bytes(process)
    os.kill(broker.pid, signal.SIGSTOP)
    time.sleep(4.0)
    grown_bytes = rss_bytes(process) - before_bytes
    os.kill(broker.pid, signal.SIGCONT)
    assert grown_bytes < GROWTH_BYTES
    verdict = asking.settle().check()
    trial.note(FAULT, 1, "frozen broker", also=f"{verdict.acknowledged} questions")


def wait_finished(process: DaemonProcess, job_id: str) -> None:
    """Wait until the node is done with a question."""
    process.wait_log("job_finished", lambda line: line["job_id"] == job_id)


def rss_bytes(process: DaemonProcess) -> int:
    """Resident memory of the daemon."""
    return int(psutil.Process(process.pid).memory_info().rss)


def _connected_deaf(broker: Mosquitto, name: str) -> socket.socket:
    """A client that has subscribed to its answers and reads no byte of them: MQTT 3.1.1 by hand."""
    topic = f"edged/v1/client/{name}/#".encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((broker.host, broker.port))
    variable = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name.encode()
    sock.sendall(b"\x10" + bytes([len(variable)]) + variable)
    wanted = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x01"
    sock.sendall(b"\x82" + bytes([len(wanted)]) + wanted)
    return sock
