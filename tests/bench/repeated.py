"""How soon a question is answered that was answered before: from publish to `done` at the device, over MQTT.

    python tests/bench/repeated.py [--count 200] [--lazy]

Prints the median, the 90th and the 99th percentile, and beside them the same for a computed answer of one token,
scripted engine: what remains is broker, journal (two commits on this disk) and device.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))

from broker import Mosquitto
from daemon_process import DaemonProcess
from device import Device


class Prompt(Mosquitto):
    """A broker that does not gather small packets, as configs/mosquitto has it."""

    def _settings(self, port: int) -> str:
        return f"{super()._settings(port)}set_tcp_nodelay true\n"


class Lazy(Prompt):
    """One that besides writes its store at its end only: its share would hide what is measured here."""

    def _settings(self, port: int) -> str:
        return super()._settings(port).replace("autosave_on_changes true", "autosave_on_changes false")


class PromptDevice(Device):
    """A device that does not gather small packets either."""

    def start(self) -> Self:
        """Connect."""
        self._client.on_socket_open = _no_delay
        return super().start()


def _no_delay(_client: Any, _userdata: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def timed(device: Device, count: int, **fields: Any) -> list[float]:
    """Milliseconds from publish to `done`, one question after the other."""
    found = []
    for _ in range(count):
        begun = time.monotonic()
        job = device.ask("tokens=1 the same question", **fields)
        done = device.wait_for(f"/{job}", lambda heard: b'"done"' in heard.payload)
        found.append(1000 * (done.at - begun))
        device.heard.clear()
    return found


def figures(milliseconds: list[float]) -> dict[str, float]:
    """Percentiles."""
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"p50_ms": round(cuts[49], 2), "p90_ms": round(cuts[89], 2), "p99_ms": round(cuts[98], 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument(
        "--lazy", action="store_true", help="a broker that does not write its store at each change"
    )
    arguments = parser.parse_args()
    count: int = arguments.count
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("broker", "node"):
            (root / name).mkdir()
        broker = (Lazy if arguments.lazy else Prompt)(root / "broker").start()
        node = DaemonProcess(root / "node", broker.host, broker.port, scripted=True)
        device = PromptDevice(broker.host, broker.port, "bench")
        try:
            node.start()
            device.start()
            timed(device, 20, temperature=0)
            result = {
                "kept": figures(timed(device, count, temperature=0)),
                "computed": figures(timed(device, count, temperature=0, cache="bypass")),
            }
        finally:
            device.stop()
            node.close()
            broker.kill()
    for name, found in result.items():
        print(f"{name:>9}: " + ", ".join(f"{key} {value}" for key, value in found.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
