"""The tests' own broker does what other tests rely on: it starts, it dies, it loses nothing it stored."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from broker import Mosquitto, free_port

PORTS = """
import json, sys
from broker import free_port
print(json.dumps([free_port() for _ in range(300)]), flush=True)
sys.stdin.read()
"""
"""Takes ports as another test process does, and lives on."""


def publish(broker: Mosquitto, *arguments: str) -> None:
    """Publish with Mosquitto's own client; returns once the broker has acknowledged."""
    command = ["mosquitto_pub", "-V", "5", "-h", broker.host, "-p", str(broker.port), *arguments]
    subprocess.run(command, check=True, timeout=20, capture_output=True)


def receive_retained(broker: Mosquitto, topic: str) -> str:
    """The retained message of a topic; empty where there is none within 2 s."""
    command = ["mosquitto_sub", "-V", "5", "-h", broker.host, "-p", str(broker.port), "-t", topic]
    ended = subprocess.run(
        [*command, "-C", "1", "-W", "2"], check=False, timeout=20, capture_output=True, text=True
    )
    return ended.stdout.strip()


def test_it_keeps_port_and_store_over_a_restart(broker: Mosquitto) -> None:
    """A restart in good order loses nothing."""
    port = broker.port
    publish(broker, "-q", "1", "-r", "-t", "kept", "-m", "word")
    broker.restart()
    assert broker.port == port
    assert receive_retained(broker, "kept") == "word"


def test_what_was_stored_survives_kill_9(broker: Mosquitto) -> None:
    """Like a power cut a second after the acknowledgement."""
    publish(broker, "-q", "1", "-r", "-t", "kept", "-m", "word")
    time.sleep(1.5)  # autosave_interval 1 s
    broker.kill()
    assert not broker.is_running
    broker.start()
    assert receive_retained(broker, "kept") == "word"


def test_it_logs_and_its_end_is_final(broker: Mosquitto) -> None:
    """The log tells of clients; stopping twice is no error."""
    publish(broker, "-i", "probe-7", "-t", "any", "-m", "x")
    assert "probe-7" in broker.log()
    broker.stop()
    broker.kill()
    assert not broker.is_running


def test_a_port_that_is_taken_is_an_error(broker: Mosquitto, tmp_path: Path) -> None:
    """A second broker on the same port is told apart from the first that listens there."""
    second = Mosquitto(tmp_path)
    second.port = broker.port
    with pytest.raises(RuntimeError, match="did not start"):
        second.start()


def test_ports_of_two_processes_are_apart() -> None:
    """Nobody else's tests take a port while the broker that is to have it does not run."""
    with subprocess.Popen(
        [sys.executable, "-c", PORTS],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = json.loads(other.stdout.readline())
        ours = [free_port() for _ in range(300)]
        other.communicate(timeout=20)
    assert len({*theirs, *ours}) == 600


def test_extra_lines_reach_the_configuration(tmp_path: Path) -> None:
    """A test can add a listener, or an access list."""
    other = free_port()
    broker = Mosquitto(tmp_path, extra=f"listener {other} 127.0.0.1\n")
    try:
        broker.start()
        assert f"on port {other}" in broker.log()
    finally:
        broker.kill()


def test_the_shared_broker_runs(shared_broker: Mosquitto) -> None:
    """One for all tests that only publish and subscribe."""
    publish(shared_broker, "-q", "1", "-t", "any", "-m", "x")
    assert shared_broker.is_running
