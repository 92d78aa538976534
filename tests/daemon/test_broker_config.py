"""The shipped Mosquitto configuration keeps what it promises; a real Mosquitto runs on the shipped files.

Nothing acknowledged is lost, nothing is too large without a word. Who may do what: test_broker_accounts.py.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_process import MakeDaemon
from secured import PASSWORDS, SHIPPED, Account, MakeAccount, ShippedBroker, ask_a_board, knock, start_node

from edged.client import Client, ClientError
from edged.parts import PACKET_SLACK_BYTES
from edged.settings.tree import Limits

SAVED_S = 0.1
"""The store is written in the turn of the broker's loop that acknowledged: a moment after."""
CONF = (SHIPPED / "mosquitto.conf").read_text()
MAX_PACKET = int(re.findall(r"^max_packet_size (\d+)$", CONF, re.MULTILINE)[0])


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[ShippedBroker]:
    """A broker on the shipped configuration, running."""
    broker = ShippedBroker(tmp_path)
    try:
        yield broker.start()
    finally:
        broker.kill()


def board(account: MakeAccount, *topics: str) -> Account:
    """A client in a board's place, with a session that is kept."""
    return account("n1", persistent=True, extra_topics=topics)


# what is acknowledged is kept ------------------------------------------------------------------------------


def test_kill_9_with_questions_waiting(
    shipped: ShippedBroker, account: MakeAccount, daemon: MakeDaemon
) -> None:
    """100 questions that the broker acknowledged for an absent node are answered although the broker is killed."""
    node = start_node(daemon, shipped, queue_jobs=200, client_jobs=200)
    ask_a_board(account, persistent=True).stop()
    assert node.terminate() == 0
    asking = account("d1", persistent=True).start()
    jobs = [asking.ask("x") for _ in range(100)]
    time.sleep(SAVED_S)
    shipped.kill()
    asking.stop()
    shipped.start()
    # The node's session came back with its rights, before the node did.
    later = account("d2").start()
    job = later.ask("x")
    back = account("d1", persistent=True).start()
    node.launch()
    assert {back.answer(one).last["type"] for one in jobs} == {"done"}
    assert later.answer(job).last["type"] == "done"


def test_room_for_what_waits(account: MakeAccount) -> None:
    """More questions than Mosquitto's own 1,000 wait for a board that is away."""
    ask_topic = "edged/v1/node/n1/ask/d1"
    board(account, "edged/v1/node/n1/ask/+").start().stop()
    asking = account("d1").start()
    for number in range(1050):
        asking.publish(ask_topic, b"%d" % number)
    back = board(account, "edged/v1/node/n1/ask/+").start()
    back.wait(lambda: len(back.heard) >= 1050)
    assert {heard.payload for heard in back.heard} == {b"%d" % number for number in range(1050)}


def test_a_session_is_its_accounts_own(shipped: ShippedBroker, account: MakeAccount) -> None:
    """Whoever connects under a board's client id gets a session of their own; the board's questions stay."""
    board(account, "edged/v1/node/n1/ask/+").start().stop()
    asking = account("d1").start()
    asking.publish("edged/v1/node/n1/ask/d1", b"kept")
    for client_id in ("n1", "edged-n1", "dev-n1"):
        assert knock(shipped, client_id, "d3", PASSWORDS["d3"]) == "Success"
    back = board(account, "edged/v1/node/n1/ask/+").start()
    assert back.wait_for("/ask/d1").payload == b"kept"


def test_a_certificate_is_an_account(shipped: ShippedBroker, account: MakeAccount) -> None:
    """A board's own opens no client's connection, and its questions stay; of a device's the newest is taken in."""
    board(account, "edged/v1/node/n1/ask/+").start().stop()
    account("d1").start().publish("edged/v1/node/n1/ask/d1", b"kept")
    with pytest.raises(ClientError, match="keeps a session for this certificate, a board's or another"):
        Client(port=shipped.cert_port, tls=shipped.client_tls("n1")).connect()
    back = board(account, "edged/v1/node/n1/ask/+").start()
    assert back.wait_for("/ask/d1").payload == b"kept"
    with Client(port=shipped.cert_port, tls=shipped.client_tls("d2")):
        with Client(port=shipped.cert_port, tls=shipped.client_tls("d2")) as second:
            assert second.nodes() == {}
        with Client(port=shipped.cert_port, tls=shipped.client_tls("d2"), name="d2") as third:
            assert third.nodes() == {}


# sizes -----------------------------------------------------------------------------------------------------


def test_the_limits_fit() -> None:
    """The broker's limit lies between a board's largest question and its largest packet, with room to both."""
    payload_bytes = Limits().payload_bytes
    assert 2 * payload_bytes < MAX_PACKET
    assert 16 * payload_bytes + PACKET_SLACK_BYTES > MAX_PACKET + 32 * 1024


def test_too_large(shipped: ShippedBroker, account: MakeAccount, daemon: MakeDaemon) -> None:
    """Everything from one byte too many up to the broker's limit gets `too_large`."""
    start_node(daemon, shipped)
    asking = ask_a_board(account)
    most = Limits().payload_bytes
    for size in (most + 1, 2 * most, MAX_PACKET - 100):
        head = f'{{"id": "b{size}", "prompt": "'.encode()
        payload = head + b"x" * (size - len(head) - 2) + b'"}'
        since = asking.mark
        assert asking.send("edged/v1/node/n1/ask/d1", payload) == "Success"
        # Beyond its limit a node does not read the id: the answer comes under one of its own.
        refused = asking.wait_for("", lambda heard: heard.json.get("type") == "error", since=since)
        assert refused.json["code"] == "too_large"


@pytest.mark.parametrize("version", [5, 4])
def test_larger_than_the_broker_takes(account: MakeAccount, version: int) -> None:
    """A packet above the broker's limit is not acknowledged: its sender is cut off, and told before if MQTT 5."""
    asking = account("d1", version=version).start()
    assert asking.packet_bytes_max == (MAX_PACKET if version == 5 else None)
    assert asking.send("edged/v1/node/n1/ask/d1", b"x" * MAX_PACKET) not in {
        "Success",
        "No matching subscribers",
    }
    assert asking.disconnects


def test_an_answer_larger_than_the_broker_takes(tmp_path: Path, daemon: MakeDaemon) -> None:
    """A node keeps its connection when an answer is too large for the broker; device and log are told."""
    folder = tmp_path / "small"
    folder.mkdir()
    small = ShippedBroker(
        folder, change=lambda text: text.replace(f"max_packet_size {MAX_PACKET}", "max_packet_size 3000")
    )
    small.start()
    asking = Account(small, "d1", extra_topics=("edged/v1/node/n1/info",))
    try:
        node = start_node(daemon, small)
        asking.start()
        last = asking.answer(job := asking.ask("tokens=1000")).last
        assert (last["type"], last["code"]) == ("error", "too_large")
        assert "3000 bytes" in last["message"]
        line = node.wait_log("reply_refused_by_broker")
        assert line["topic"] == f"edged/v1/client/d1/answer/{job}"
        assert "3000 bytes" in line["reason"]
        assert asking.answer(asking.ask("x")).last["type"] == "done"
        assert node.log("mqtt_disconnected") == []
    finally:
        asking.stop()
        small.kill()


# accounts --------------------------------------------------------------------------------------------------


def test_wrong_password(shipped: ShippedBroker, daemon: MakeDaemon, tmp_path: Path) -> None:
    """A node with a wrong password says once what to do, tries on, and is in as soon as the broker knows it."""
    sections = shipped.mqtt_section("n1")
    (tmp_path / "n1.password").write_text("not the one\n")
    node = daemon(shipped, sections, scripted=True).launch()
    line = node.wait_log("mqtt_failed")
    assert "'n1'" in line["reason"]
    assert "mqtt.password_file" in line["reason"]
    end = time.monotonic() + 20
    while shipped.log().count("not authorised") < 3 and time.monotonic() < end:
        time.sleep(0.1)
    assert shipped.log().count("not authorised") >= 3
    assert len(node.log("mqtt_failed")) == 1
    subprocess.run(
        ["mosquitto_passwd", "-b", str(tmp_path / "edged.passwd"), "n1", "not the one"],
        check=True,
        timeout=20,
    )
    shipped.restart()
    node.wait_log("mqtt_connected")
    assert not any(b"not the one" in line for line in node.raw)
