"""The broker is absent, dies, forgets, speaks nonsense: the daemon reconnects and loses nothing."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from broker import Mosquitto, free_port
from daemon_process import MakeDaemon
from device import MakeDevice

from edged.adapters.mqtt import Link, Mqtt
from edged.core.link import LinkEvent, ThreadDied

BACK_S = 5.0
"""How long after the broker's port opens the node must be connected."""


def test_daemon_is_there_before_the_broker(daemon: MakeDaemon, device: MakeDevice, tmp_path: Path) -> None:
    """A daemon without a broker says so once, keeps trying, and is online soon after the broker comes."""
    broker = Mosquitto(tmp_path)
    broker.port = free_port()
    node = daemon(broker, scripted=True).launch()
    said = node.wait_log("mqtt_failed")
    assert "start the broker or correct mqtt.host" in said["reason"]
    node.wait_log("engine_ready")
    try:
        broker.start()
        opened = time.monotonic()
        node.watcher.start()
        node.wait_online()
        assert time.monotonic() - opened < BACK_S
        assert len(node.log("mqtt_failed")) == 1, "the same trouble is told again and again"
        asking = device(broker, "c1")
        assert asking.answer(asking.ask("x")).check().text == "w0 w1 w2 "
    finally:
        broker.kill()


@pytest.mark.parametrize("down_s", [0.0, 3.0])
def test_broker_killed_in_mid_answer(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, down_s: float
) -> None:
    """The broker dies under three answers and comes back: reconnected in time, all terminal messages arrive."""
    node = daemon(broker, scripted=True).start()
    asking = [device(broker, f"c{n}", persistent=True, version=5 - n % 2) for n in range(3)]
    jobs = [each.ask("tokens=60 step_ms=20") for each in asking]
    for each, job in zip(asking[:2], jobs[:2], strict=True):  # two slots
        each.wait_reply(job, "delta")
    time.sleep(1.5)  # Mosquitto writes its state once a second: what it acknowledged before that, it keeps
    broker.kill()
    time.sleep(down_s)
    connected = len(node.log("mqtt_connected"))
    broker.start()
    opened = time.monotonic()
    node.wait_log("mqtt_connected", lambda _: len(node.log("mqtt_connected")) > connected, timeout_s=BACK_S)
    assert time.monotonic() - opened < BACK_S
    for each, job in zip(asking, jobs, strict=True):
        each.wait_reply(job, "done")
        ends = {(end["type"], end["text"]) for end in each.answers()[job].terminals}
        assert ends == {("done", "".join(f"w{n} " for n in range(60)))}
    node.wait_online(since=0)
    node.wait_log("job_finished", lambda _: len(node.log("job_finished")) >= len(jobs))
    assert len(node.log("job_finished")) == len(jobs)


def test_broker_that_has_forgotten_everything(daemon: MakeDaemon, device: MakeDevice, tmp_path: Path) -> None:
    """Session and retained messages are wiped: the node subscribes again and says again who it is."""
    broker = Mosquitto(tmp_path).start()
    try:
        node = daemon(broker, scripted=True).start()
        broker.kill()
        for file in tmp_path.glob("mosquitto.db*"):
            file.unlink()
        broker.start()
        node.wait_log("mqtt_connected", lambda line: len(node.log("mqtt_connected")) == 2 and line)
        assert [line["session_present"] for line in node.log("mqtt_connected")] == [False, False]
        asking = device(broker, "c1", extra_topics=("edged/v1/node/n1/+",))
        assert asking.wait_for("/n1/status").payload == b"online"
        assert asking.wait_for("/n1/info").json["engine"] == "ready"
        assert asking.answer(asking.ask("x")).check().text == "w0 w1 w2 "
    finally:
        broker.kill()


CONNACK = bytes.fromhex("20 03 00 00 00")
NONSENSE = {
    "nothing": b"",
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a connack cut short": CONNACK[:3],
    "a connack with a property of no kind": bytes.fromhex("20 05 00 00 02 ff ff"),
    "a length without end": b"\x20\xff\xff\xff\xff\xff",
    "a publish without a topic": CONNACK + bytes.fromhex("30 01 00"),
    "a topic longer than its packet": CONNACK + bytes.fromhex("32 05 ff ff 61 00 01"),
    "a topic that is no text": CONNACK + bytes.fromhex("32 08 00 02 ff fe 00 01 00 78"),
    "a publish of property nonsense": CONNACK + bytes.fromhex("32 08 00 01 61 00 01 05 7f 7f"),
    "a suback nobody asked for": CONNACK + bytes.fromhex("90 04 77 77 00 00"),
    "a suback of nothing": CONNACK + bytes.fromhex("90 00"),
    "a puback of nothing": CONNACK + bytes.fromhex("40 00"),
    "a puback of another's message": CONNACK + bytes.fromhex("40 02 77 77"),
    "a disconnect of no known reason": CONNACK + bytes.fromhex("e0 02 7f 00"),
    "a packet of no kind": CONNACK + bytes.fromhex("00 00 f0 00"),
    "noise": bytes(range(256)) * 4,
}


@contextmanager
def mad_broker(port: int, words: bytes) -> Iterator[threading.Event]:
    """A server that says `words` to whoever connects; the event is set when it has said them twice."""
    said = threading.Event()
    server = socket.create_server(("127.0.0.1", port))
    count = 0

    def serve() -> None:
        nonlocal count
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.3)
                try:
                    connection.recv(4096)
                    connection.sendall(words)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass  # it hung up, or said nothing more for a while: then so do we
            count += 1
            if count == 2:
                said.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield said
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_broker_that_speaks_nonsense() -> None:
    """Whatever a server says on the broker's port, the connection's thread lives and tries again."""
    links = {}
    with ExitStack() as stack:
        for name, words in NONSENSE.items():
            port = free_port()
            said = stack.enter_context(mad_broker(port, words))
            events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
            link = Mqtt(link_to(port), events.put)
            link.start()
            stack.callback(link.stop, 0.1)
            links[name] = (said, events)
        failed = {}
        for name, (said, events) in links.items():
            came_back = said.wait(10)
            heard = [events.get() for _ in range(events.qsize())]
            died = [event.reason for event in heard if isinstance(event, ThreadDied)]
            if died or not came_back:
                failed[name] = died or heard
    assert failed == {}


def link_to(port: int) -> Link:
    """A connection as the daemon makes it."""
    return Link(
        host="127.0.0.1",
        port=port,
        client_id="edged-n1",
        keepalive_s=30,
        session_expiry_s=3600,
        receive_max=100,
        packet_bytes_max=1_000_000,
        will_topic="edged/v1/node/n1/status",
        will=b"offline",
        subscriptions=("edged/v1/node/n1/ask/+",),
    )


def test_daemon_outlives_a_mad_broker(daemon: MakeDaemon, device: MakeDevice, tmp_path: Path) -> None:
    """A daemon that met a web server on the broker's port works with the broker that takes the port over."""
    broker = Mosquitto(tmp_path)
    broker.port = free_port()
    with mad_broker(broker.port, NONSENSE["a web server"]) as said:
        node = daemon(broker, scripted=True).launch()
        assert said.wait(20)
    pid = node.pid
    try:
        broker.start()
        node.watcher.start()
        node.wait_online()
        asking = device(broker, "c1")
        assert asking.answer(asking.ask("x")).check().text == "w0 w1 w2 "
        assert node.running
        assert node.pid == pid
    finally:
        broker.kill()


def test_two_daemons_of_one_name(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """Two nodes with the same id push each other off the broker: the log says what is wrong."""
    daemon(broker, scripted=True).start()
    second = daemon(broker, scripted=True).launch()
    second.wait_log("mqtt_disconnected", lambda line: "another daemon use this node.id" in line["reason"])


def test_two_daemons_of_one_state_folder(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """A second daemon on the same journal ends with one line that says so, and harms nothing."""
    first = daemon(broker, scripted=True).start()
    second = daemon(broker, {"paths": {"state": str(first.config.parent / "state")}})
    second.launch()
    assert second.wait_end() == 75  # systemd tries again: its predecessor may be on its way out
    assert b"another edged" in b"".join(second.raw)
    assert first.running
