"""What the benches share: a broker and a node with real parts, a light device, a table, and a JSON file.

The device notes when a message came and looks at it after the run: on a machine of few cores its own work
would be measured otherwise. Imported by the benches, which run as scripts and put `tests` on the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import psutil
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

WAIT_S = 600.0
LAST = (b'{"type":"done"', b'{"type":"error"', b'{"type":"cancelled"')
PIECE = (b'{"type":"delta"', b'{"type":"reasoning"')


@dataclass(slots=True)
class Asked:
    """One question: when it was published, and what came when (monotonic seconds)."""

    id: str
    sent: float
    heard: list[tuple[float, bytes]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    told: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout_s: float = WAIT_S) -> Self:
        """Wait for the terminal message.

        Raises:
            RuntimeError: it did not come, or it is no `done`.
        """
        if not self.over.wait(timeout_s) or self.done["type"] != "done":
            raise RuntimeError(f"no answer to {self.id}: {self.heard[-1:]}")
        return self

    @property
    def done(self) -> Any:
        """The terminal message."""
        return json.loads(self.heard[-1][1])

    @property
    def done_at(self) -> float:
        """When it came."""
        return self.heard[-1][0]

    @property
    def pieces_at(self) -> list[float]:
        """When each delta came."""
        return [at for at, payload in self.heard if payload.startswith(PIECE)]

    @property
    def tokens(self) -> int:
        """Tokens written, thinking included."""
        return int(self.done["usage"]["completion_tokens"])

    @property
    def first_ms(self) -> float:
        """From publishing the question to the first piece of its answer."""
        return 1000 * (self.pieces_at[0] - self.sent)

    @property
    def tokens_per_s(self) -> float:
        """Decode rate at the device: all tokens but the first, between first and last piece."""
        return (self.tokens - 1) / (self.pieces_at[-1] - self.pieces_at[0])


class BenchDevice:
    """An MQTT 5 device.

    Args:
        broker: real.
        name: client of the contract.
        node: whom it asks.
    """

    def __init__(self, broker: Mosquitto, name: str, node: str = "n1") -> None:
        self._topic = f"edged/v1/node/{node}/ask/{name}"
        self._control = f"edged/v1/node/{node}/control/{name}"
        self._answers = f"edged/v1/client/{name}/answer/"
        self._name = name
        self._asked: dict[str, Asked] = {}
        self._count = 0
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"bench-{name}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.on_socket_open = lambda *given: given[-1].setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe(f"{self._answers}#", 1)
        if not self._subscribed.wait(10):
            raise RuntimeError("the broker does not answer")

    def ask(self, prompt: str | None, **fields: Any) -> Asked:
        """Publish a question; greedy and uncached unless told otherwise."""
        self._count += 1
        asked = Asked(f"{self._name}-{self._count}", 0.0)
        self._asked[asked.id] = asked
        question = {"id": asked.id, "temperature": 0, "cache": "bypass", **fields}
        if prompt is not None:
            question["prompt"] = prompt
        payload = json.dumps(question)
        asked.sent = time.monotonic()
        self._client.publish(self._topic, payload, qos=1)
        return asked

    def status_ms(self, asked: Asked) -> float:
        """Round trip of a `status` control."""
        asked.told.clear()
        begun = time.monotonic()
        self._client.publish(self._control, json.dumps({"op": "status", "id": asked.id}), qos=1)
        if not asked.told.wait(30):
            raise RuntimeError(f"no status of {asked.id}")
        return 1000 * (time.monotonic() - begun)

    def cancel(self, asked: Asked) -> None:
        """Take a question back, and wait for its end."""
        self._client.publish(self._control, json.dumps({"op": "cancel", "id": asked.id}), qos=1)
        asked.over.wait(30)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        now = time.monotonic()
        asked = self._asked[message.topic.rpartition("/")[2]]
        if message.payload.startswith(b'{"type":"status"'):
            asked.told.set()
            return
        asked.heard.append((now, bytes(message.payload)))
        if message.payload.startswith(LAST):
            asked.over.set()


class Node(DaemonProcess):
    """A daemon with the product's own defaults, where tests have some of theirs."""

    def _defaults(self, folder: Path, host: str, port: int) -> dict[str, dict[str, Any]]:
        return {**super()._defaults(folder, host, port), "engine": {}, "health": {}}


@contextlib.contextmanager
def node(
    sections: Sections, environment: Mapping[str, str] | None = None, *, calibrated: bool = False
) -> Iterator[tuple[Mosquitto, Node]]:
    """A Mosquitto and a daemon with these settings, after `edged calibrate` if wanted; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
        for name in ("broker", "node"):
            (Path(folder) / name).mkdir()
        # As in the shipped configuration: else Nagle's algorithm holds small packets back for 40 ms.
        broker = Mosquitto(Path(folder) / "broker", "set_tcp_nodelay true\n").start()
        daemon = Node(Path(folder) / "node", broker.host, broker.port, sections, environment=environment)
        if calibrated:
            command = [sys.executable, "-m", "edged", "calibrate", "--quick", "--config", str(daemon.config)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            yield broker, daemon.start(timeout_s=300)
            daemon.terminate()
        finally:
            daemon.close()
            broker.stop()


class Worker:
    """A process that answers one JSON line with one JSON line.

    Args:
        script: beside this file.
        setup: its first line.
        environment: in place of this process's own.
    """

    def __init__(
        self, script: str, setup: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**(os.environ if environment is None else environment), "OPENBLAS_NUM_THREADS": "1"},
        )
        self.hello = self.call(setup)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def call(self, order: Mapping[str, Any]) -> Any:
        """Send one line, wait for one."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker has ended")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


def memory_bytes(pid: int) -> dict[str, int]:
    """Resident and proportional memory of a process, by kind (proc_pid_status(5), smaps_rollup)."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("VmRSS", "RssAnon", "RssFile")):
            name, value = line.split(":")
            found[name] = int(value.split()[0]) * 1024
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            found["Pss"] = int(line.split()[1]) * 1024
    return found


def together_bytes(pids: Sequence[int]) -> int:
    """Resident memory of processes together, pages that several map from one file counted once (proc_pid_smaps(5)).

    Two Python processes share the interpreter's and the C library's code: the sum of their VmRSS counts it twice.
    """
    anonymous = 0
    of_files: dict[str, int] = {}
    for pid in pids:
        for mapped in psutil.Process(pid).memory_maps():
            anonymous += mapped.anonymous
            of_files[mapped.path] = max(of_files.get(mapped.path, 0), mapped.rss - mapped.anonymous)
    return anonymous + sum(of_files.values())


def cpu_percent(pids: Sequence[int], seconds: float) -> list[float]:
    """CPU use of each process over a time, in per cent of one core."""
    processes = [psutil.Process(pid) for pid in pids]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    begun = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begun
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return [round(100 * (late - early) / elapsed, 2) for early, late in zip(before, after, strict=True)]


class Neighbours:
    """How much of the machine others take meanwhile: two threads that wait for each other suffer badly."""

    def __init__(self) -> None:
        self._at = self._read()

    def share(self) -> float:
        """Share of all cores that processes outside this one's tree took since the last call, 0 to 1."""
        before, self._at = self._at, self._read()
        elapsed, busy, ours = (late - early for early, late in zip(before, self._at, strict=True))
        return max(0.0, (busy - ours) / (elapsed * (os.cpu_count() or 1)))

    def _read(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        us = psutil.Process()
        ours = 0.0
        for process in (us, *us.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                ours += sum(process.cpu_times()[:2])
        return time.monotonic(), sum(times) - times.idle - times.iowait - times.guest, ours


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without a pause."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of neighbouring runs: what else the machine does then touches both alike."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{title}")
    for number, row in enumerate(rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def save(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write the figures as JSON, where a file is asked for."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
