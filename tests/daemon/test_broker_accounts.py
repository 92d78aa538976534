"""Every account can do what it must and no more: on the shipped Mosquitto files, and on what role `broker` makes.

The same cases for both; a real Mosquitto runs on each.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from daemon_process import MakeDaemon
from secured import PASSWORDS, Account, MakeAccount, RoleBroker, ShippedBroker, ask_a_board, knock, start_node

from edged.core import homeassistant

NOT_A_DEVICES = (
    "edged/v1/node/n1/ask/d2",
    "edged/v1/pool/hall-2/ask/d2",
    "edged/v1/node/n1/control/d2",
    "edged/v1/node/n1/ask",
    "edged/v1/node/n1/ask/d1/more",
    "edged/v1/client/d2/answer/1",
    "edged/v1/client/d1/answer/1",
    "edged/v1/node/n1/status",
    "edged/v1/node/n1/info",
    "edged/v1/node/n1/health",
    "edged/v1/node/n1/event",
    "edged/v1/node/n1/admin/drain",
    "edged/v1/node/d1/status",
    "homeassistant/device/n1/config",
    "homeassistant/status",
    "elsewhere",
    "$SYS/broker/uptime",
)
NOT_A_BOARDS = (
    "edged/v1/node/n2/ask/n1",
    "edged/v1/node/n2/ask/d1",
    "edged/v1/pool/hall-2/ask/n1",
    "edged/v1/node/n2/control/n1",
    "edged/v1/node/n2/status",
    "edged/v1/node/n2/health",
    "edged/v1/node/n1/admin/drain",
    "homeassistant/device/n1/config",
)


@pytest.fixture(scope="module")
def from_role(tmp_path_factory: pytest.TempPathFactory) -> RoleBroker:
    """The role's files, written once."""
    return RoleBroker(tmp_path_factory.mktemp("role"))


@pytest.fixture(params=["files", "role"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ShippedBroker]:
    """A broker on either, running, with an empty store."""
    broker = ShippedBroker(tmp_path) if request.param == "files" else request.getfixturevalue("from_role")
    try:
        yield broker.start()
    finally:
        broker.kill()
        broker.wipe()


def test_a_device_can_ask_and_read(shipped: ShippedBroker, account: MakeAccount, daemon: MakeDaemon) -> None:
    """Under the shipped ACL a node answers a device's questions, its own and its pool's, and control messages."""
    start_node(daemon, shipped)
    asking = ask_a_board(account)
    assert asking.answer(asking.ask("x")).check().text == "w0 w1 w2 "
    asking.publish("edged/v1/pool/hall-2/ask/d1", b'{"id": "p1", "prompt": "x"}')
    assert asking.answer("p1").check().last["node"] == "n1"
    job = asking.ask("tokens=400 step_ms=20")
    asking.wait_reply(job, "accepted")
    asking.control("cancel", job)
    assert asking.answer(job).last["type"] == "cancelled"
    asking.ask_text("x")
    asking.wait(asking.texts)


def test_a_device_cannot_publish_elsewhere(account: MakeAccount) -> None:
    """Other clients' topics, a node's words, operators' orders: refused, and the device is told."""
    device = account("d1").start()
    told = {topic: device.send(topic, b"x") for topic in NOT_A_DEVICES}
    assert told == dict.fromkeys(NOT_A_DEVICES, "Not authorized")


def test_a_device_cannot_read_elsewhere(
    shipped: ShippedBroker, account: MakeAccount, daemon: MakeDaemon
) -> None:
    """Whatever a device subscribes to: beside its own answers it hears status, info and health of nodes."""
    everything = (
        "#",
        "edged/#",
        "edged/v1/client/d1/#",
        "edged/v1/client/+/answer/+",
        "edged/v1/node/n1/ask/+",
        "edged/v1/node/+/event",
        "edged/v1/node/n1/control/d1",
        "$share/mine/edged/v1/node/n1/ask/+",
        "$SYS/#",
    )
    spy = account("d3", extra_topics=everything).start()
    start_node(daemon, shipped)
    asking = ask_a_board(account)
    for _ in range(3):
        asking.answer(asking.ask("x")).check()
    asking.ask_text("x")
    asking.wait(asking.texts)
    spy.answer(spy.ask("x"))  # whatever was to come has come
    heard = {message.topic for message in spy.heard}
    own = {topic for topic in heard if topic.startswith("edged/v1/client/d3/")}
    assert own
    assert heard - own <= {f"edged/v1/node/n1/{what}" for what in ("status", "info", "health")}


def test_a_board_cannot_publish_elsewhere(account: MakeAccount) -> None:
    """A board that was broken into asks nobody and speaks for no other board."""
    broken_into = account("n1").start()
    told = {topic: broken_into.send(topic, b"x") for topic in NOT_A_BOARDS}
    assert told == dict.fromkeys(NOT_A_BOARDS, "Not authorized")


def test_a_board_cannot_read_elsewhere(account: MakeAccount) -> None:
    """A board hears its own questions; not other boards', nor what they answer."""
    spy = account("n1", extra_topics=("#", "edged/v1/node/+/ask/+", "edged/v1/client/#")).start()
    asking, other = account("d1").start(), account("n2").start()
    assert asking.send("edged/v1/node/n2/ask/d1", b"not for n1") != "Not authorized"
    assert other.send("edged/v1/client/d1/answer/1", b"not for n1") == "Success"
    assert asking.send("edged/v1/node/n1/ask/d1", b"for n1") == "Success"
    assert spy.wait_for("/ask/d1").payload == b"for n1"
    assert {heard.topic for heard in spy.heard} == {"edged/v1/node/n1/ask/d1"}


def test_a_last_will_is_no_way_round(account: MakeAccount) -> None:
    """A device cannot have a node declared offline by its own last will."""
    n1 = account("n1").start()
    n1.publish("edged/v1/node/n1/status", b"online", retain=True)
    account("d1", will="edged/v1/node/n1/status").start()
    watching = account("d2", extra_topics=("edged/v1/node/n1/status",)).start()
    # A second connection of an account ends the first, without a DISCONNECT of its own.
    account("d1").start()
    assert n1.send("edged/v1/node/n1/status", b"still online", retain=True) == "Success"
    watching.wait_for("/status", lambda heard: heard.payload == b"still online")
    assert b"offline" not in {heard.payload for heard in watching.heard}


def test_strangers(shipped: ShippedBroker) -> None:
    """No account, no connection; and none with another account's password."""
    assert knock(shipped, "x", "d1", PASSWORDS["d1"]) == "Success"
    assert knock(shipped, "x", None) == "Not authorized"
    assert knock(shipped, "x", "nobody", PASSWORDS["d1"]) == "Not authorized"
    assert knock(shipped, "x", "d1", PASSWORDS["d2"]) == "Not authorized"
    assert knock(shipped, "x", "d1") == "Not authorized"


def test_a_certificate_that_was_taken_back(tmp_path: Path) -> None:
    """The role's list of certificates is in force; who is not on it comes in without a password."""
    broker = RoleBroker(tmp_path, revoked=("d3",)).start()
    known = Account(broker, "d1", by_certificate=True)
    try:
        known.start()
        assert known.send("edged/v1/node/n1/ask/d2", b"x") == "Not authorized"
        with (
            socket.create_connection(("127.0.0.1", broker.cert_port), 20) as bare,
            broker.client_tls("d3").wrap_socket(bare, server_hostname="localhost") as revoked,
            pytest.raises(ssl.SSLError, match="certificate revoked"),
        ):
            revoked.recv(1)  # TLS 1.3: the client learns it with the first reading
    finally:
        known.stop()
        broker.kill()


def test_the_role_again(from_role: RoleBroker) -> None:
    """Nothing changes; a new device is let in by a reload, and nobody is disconnected for it."""
    assert "changed=0 " in from_role.render().text
    from_role.start()
    here = Account(from_role, "d1")
    try:
        here.start()
        assert knock(from_role, "x", "d9", "the-d9-password") == "Not authorized"
        more = {name: PASSWORDS[name] for name in ("d1", "d2", "d3")} | {"d9": "the-d9-password"}
        ended = from_role.render(broker_accounts=more)
        assert "changed=1 " in ended.text
        assert "the-d9-password" not in ended.text
        os.kill(from_role.pid, signal.SIGHUP)
        end = time.monotonic() + 20
        while (word := knock(from_role, "x", "d9", "the-d9-password")) != "Success":
            assert time.monotonic() < end, word
        assert here.disconnects == []
    finally:
        here.stop()
        from_role.kill()
        from_role.wipe()


def test_boards_of_the_inventory(from_role: RoleBroker) -> None:
    """What a board says of itself in the inventory is what the broker lets it do."""
    nodes = [
        {"name": "n1", "pools": [], "admin": True, "discovery_prefix": "ha", "birth_topic": "ha/status"},
        {
            "name": "press.7",
            "pools": ["hall-2", "all"],
            "reply_prefixes": ["plant/7"],
            "discovery_prefix": "ha",
            "birth_topic": "ha/status",
        },
    ]
    ended = from_role.render(
        broker_nodes=nodes, broker_operators=["shift-lead"], broker_prefix="edged/hall-2"
    )
    assert ended.code == 0, ended.text
    acl = (from_role.etc / "edged.acl").read_text()
    blocks = {block.split("\n")[0]: block for block in acl.split("\n\n") if block.startswith("user ")}
    assert list(blocks) == ["user n1", "user press.7", "user shift-lead"]
    first, second, operator = blocks.values()
    assert "/pool/hall-2/ask/+" not in first
    assert "topic write edged/hall-2/v1/node/n1/admin/+/result" in first
    assert "topic write ha/device/n1/config" in first
    assert "topic read ha/status" in first
    assert "topic read edged/hall-2/v1/pool/all/ask/+" in second
    assert "topic write plant/7/#" in second
    assert "topic deny edged/hall-2/v1/node/+/ask/press.7" in second
    assert f"topic write {homeassistant.topic('ha', 'press.7')}" in second
    assert "admin" not in second
    assert "homeassistant" not in second
    assert "topic write edged/hall-2/v1/node/+/admin/+" in operator
    assert "#topic" not in "".join(blocks.values())
    assert "edged/v1" not in acl


def test_home_assistant(from_role: RoleBroker) -> None:
    """It hears which boards show themselves, forgets one, and says that it has started; its buttons work."""
    node = {
        "pools": [],
        "admin": True,
        "discovery_prefix": "homeassistant",
        "birth_topic": "homeassistant/status",
    }
    nodes = [node | {"name": name, "password": PASSWORDS[name]} for name in ("n1", "n2")]
    ended = from_role.render(broker_nodes=nodes, broker_homeassistants=["d2"], broker_operators=["d2"])
    assert ended.code == 0, ended.text
    from_role.start()
    try:
        discovery = "homeassistant/device/+/config"
        home, other = (Account(from_role, name, extra_topics=(discovery,)) for name in ("d2", "d1"))
        board = Account(from_role, "n1", extra_topics=("homeassistant/status", "edged/v1/node/n1/admin/+"))
        for one in (home, other, board):
            one.start()
        assert board.send("homeassistant/device/n1/config", b"{}", retain=True) == "Success"
        assert board.send("homeassistant/device/n2/config", b"{}", retain=True) == "Not authorized"
        assert home.wait_for("/n1/config").payload == b"{}"
        assert home.send("homeassistant/status", b"online") == "Success"
        assert home.send("edged/v1/node/n1/admin/drain", b"PRESS") == "Success"
        board.wait_for("/status")
        board.wait_for("/admin/drain")
        assert home.send("homeassistant/device/n1/config", b"", retain=True) == "Success"
        home.wait_for("/n1/config", lambda heard: not heard.payload)
        assert other.send("homeassistant/device/n1/config", b"", retain=True) == "Not authorized"
        assert other.send("homeassistant/status", b"online") == "Not authorized"
        assert other.heard == []
    finally:
        for one in (home, other, board):
            one.stop()
        from_role.kill()
        from_role.wipe()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"broker_accounts": {"hall 2/line 3": "x"}}, "cannot be an account; give 1 to 64 of"),
        ({"broker_accounts": {"d1": ""}}, "the password of d1 is no text in one line"),
        ({"broker_accounts": {"d1": 12345}}, "the password of d1 is no text in one line; put it in quotes"),
        (
            {"broker_nodes": [{"name": "n1"}, {"name": "n1"}]},
            "two boards have the node.id n1; give each its own",
        ),
        ({"broker_operators": ["n1"]}, "give people and programs accounts of their own"),
        ({"broker_homeassistants": ["n1"]}, "give people and programs accounts of their own"),
        ({"broker_password_port": 8884, "broker_certificate_port": 8884}, "each another of 1 to 65535"),
        ({"broker_tls": {"ca": "no", "cert": "no", "key": "no"}}, "broker_tls.ca is no certificate in PEM"),
    ],
    ids=["name", "empty password", "number", "twice", "operator", "home", "ports", "authority"],
)
def test_wrong_values_of_the_inventory(from_role: RoleBroker, changed: dict[str, object], said: str) -> None:
    """One sentence each, before anything is written."""
    ended = from_role.render(**changed)
    assert ended.code != 0
    assert f"broker.lan: {said}" in ended.text or said in ended.text
    assert "changed=0 " in ended.text
    assert "Traceback" not in ended.text


def test_a_key_of_another_certificate(from_role: RoleBroker) -> None:
    """Found before it is written: a broker that does not start would take all boards off."""
    other = from_role.authority.server()
    tls = {
        "ca": from_role.authority.pem.read_text(),
        "cert": (from_role.etc / "edged-tls/broker.pem").read_text(),
        "key": other.key.read_text(),
    }
    ended = from_role.render(broker_tls=tls)
    assert ended.code != 0
    assert "broker_tls.cert and broker_tls.key do not belong together" in ended.text
    assert "PRIVATE KEY" not in ended.text


def test_a_certificate_that_devices_would_refuse(from_role: RoleBroker, tmp_path: Path) -> None:
    """Expired, or signed by another authority: every device would be locked out, and the broker would run."""
    ours, others = from_role.authority, Authority(tmp_path)
    for pair, why in (
        (ours.server(expired=True), "certificate has expired"),
        (others.server(), "unable to get local issuer certificate"),
    ):
        tls = {"ca": ours.pem.read_text(), "cert": pair.cert.read_text(), "key": pair.key.read_text()}
        ended = from_role.render(broker_tls=tls)
        assert ended.code != 0
        said = f"a device that trusts broker_tls.ca would refuse broker_tls.cert ({why})"
        assert said in ended.text, ended.text
        assert "changed=0 " in ended.text


SYSTEMCTL = """#!/bin/sh
echo "$@" >>{asked}
case "$1" in
show) printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\n' ;;
is-enabled) echo enabled ;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemctl was asked for, a line each: a stand-in, for there may be no systemd here."""
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL.format(asked=asked))
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return asked


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder."""
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("renewed", [True, False])
def test_files_that_cannot_be_written(tmp_path: Path, asked: Path, *, renewed: bool) -> None:
    """A full disk, a folder in the way: what was written before is put back, no copy stays, it runs on."""
    broker = RoleBroker(tmp_path)
    (broker.etc / "edged.acl").unlink()
    (broker.etc / "edged.acl").mkdir()
    before = contents(broker.etc)
    if renewed:
        broker.new_server_certificate()
    ended = broker.render("main")
    assert ended.code != 0
    assert "edged.acl: can not use content with a dir as dest. It runs as before" in ended.text, ended.text
    assert contents(broker.etc) == before
    orders = [line for line in asked.read_text().splitlines() if not line.startswith(("show", "is-"))]
    assert orders == (["restart mosquitto"] if renewed else [])
