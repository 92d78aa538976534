"""A device that publishes in a loop with QoS 0: it costs neither memory without end nor the others' answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import MakeDevice

from edged.adapters.mqtt.connection import FLOODED

FLOOD_S = 4.0
MORE_BYTES_MAX = 48 * 2**20
"""What the daemon may have more than at rest: without a bound it was 60 MiB after these seconds, and grew."""
KEEPALIVE_S = 5
WHAT = {"ask": b"Is it?", "control": b'{"op": "status", "id": "q"}'}


@contextmanager
def connection(broker: Mosquitto, name: str) -> Iterator[socket.socket]:
    """A device's, by MQTT 3.1.1."""
    with socket.create_connection((broker.host, broker.port)) as line:
        body = b"\x00\x04MQTT\x04\x02\x02\x58" + len(name).to_bytes(2) + name.encode()
        line.sendall(b"\x10" + bytes([len(body)]) + body)
        assert line.recv(4) == b"\x20\x02\x00\x00"
        yield line


@pytest.mark.parametrize("verb", ["ask", "control"])
def test_flood(verb: str, tmp_path: Path, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The broker drops acknowledgements then, and others' questions; a while later these are answered."""
    broker = Mosquitto(tmp_path, "max_queued_messages 1000")
    broker.start()
    try:
        node = daemon(broker, {"mqtt": {"keepalive_s": KEEPALIVE_S}}, scripted=True).start()
        process = psutil.Process(node.pid)
        before = process.memory_info().rss
        topic = f"edged/v1/node/n1/{verb}/flood".encode()
        body = len(topic).to_bytes(2) + topic + WHAT[verb]
        packets = (b"\x30" + bytes([len(body)]) + body) * 50
        with connection(broker, "flood") as line:
            end = time.monotonic() + FLOOD_S
            while time.monotonic() < end:
                line.sendall(packets)
        # Whether it drops any depends on which of its threads is faster (tests/unit/test_qos0_flood.py has both).
        node.wait_log("mqtt_disconnected", lambda line: line["reason"] == FLOODED)
        calm = device(broker, "calm")
        assert calm.answer(calm.ask("x tokens=3")).last["type"] == "done"
        assert process.memory_info().rss - before < MORE_BYTES_MAX
    finally:
        broker.stop()
