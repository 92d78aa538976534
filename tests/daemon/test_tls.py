"""TLS between a node and its broker: what is accepted, and that nothing else is, ever, in plain text either.

Each refusal is tried again with longer waits and told in at most two lines that say what to change.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from broker import free_port
from certificates import Authority
from daemon_process import MakeDaemon
from secured import PASSWORDS, SHIPPED, Account, ShippedBroker

from edged.adapters.certificate_files import certificates

Sections = dict[str, dict[str, Any]]
KEY = "a-key-for-tests-0123456789"
RETRY_MAX_S = 4.0
TRIES_S = 120.0


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., ShippedBroker]]:
    """Makes brokers on the shipped configuration, running."""
    made: list[ShippedBroker] = []

    def make(**options: Any) -> ShippedBroker:
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        made.append(ShippedBroker(folder, **options))
        return made[-1].start()

    yield make
    for each in made:
        each.kill()


# good ------------------------------------------------------------------------------------------------------


def test_mutual_tls(make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon, tmp_path: Path) -> None:
    """Node and device have certificates and no passwords: a question is answered under their names.

    And it is known for how long: of the node's own, of the broker's authority, and of the HTTP face's.
    """
    broker = make_broker(revoked=("d3",))
    pair, own, port = broker.authority.server(), broker.mqtt_section("n1", by_certificate=True), free_port()
    (tmp_path / "key").write_text(f"{KEY}\n")
    face = {"enabled": True, "port": port, "key_file": str(tmp_path / "key")}
    secured = {"cert": str(pair.cert), "key": str(pair.key)}
    node = daemon(broker, {**own, "http": face, "http.tls": secured}, scripted=True).launch()
    node.wait_log("mqtt_connected")
    asking = Account(broker, "d1", by_certificate=True, extra_topics=("edged/v1/node/n1/info",))
    try:
        asking.start()
        asking.wait_for("/info", lambda heard: heard.json["engine"] == "ready")
        answer = asking.answer(asking.ask("x")).check()
        assert answer.last["type"] == "done"
        assert answer.last["node"] == "n1"
        assert asking.send("edged/v1/node/n1/ask/d2", b"x") == "Not authorized"
    finally:
        asking.stop()
    assert "u'n1'" in broker.log()
    told = httpx.get(
        f"https://localhost:{port}/metrics",
        headers={"authorization": f"Bearer {KEY}"},
        verify=ssl.create_default_context(cafile=str(broker.authority.pem)),
    ).text
    files = {"mqtt.tls.ca": broker.authority.pem, "mqtt.tls.cert": broker.clients["n1"].cert}
    for setting, file in {**files, "http.tls.cert": pair.cert}.items():
        [certificate] = certificates(file)
        line = re.search(
            rf'^edged_certificate_expiry_timestamp_seconds{{setting="{setting}"}} (.+)$', told, re.MULTILINE
        )
        assert line is not None, told
        assert float(line[1]) == certificate.ends_s


def test_certificates_are_renewed_in_their_place(
    make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon, tmp_path: Path
) -> None:
    """Those of node, broker and HTTP face, all by another authority: no restart, whichever comes first."""
    broker, port = make_broker(), free_port()
    own, pair = broker.mqtt_section("n1", by_certificate=True), broker.authority.server()
    files = {name: tmp_path / name for name in ("ca", "cert", "key", "face.cert", "face.key")}
    now = (
        broker.authority.pem,
        Path(own["mqtt.tls"]["cert"]),
        Path(own["mqtt.tls"]["key"]),
        pair.cert,
        pair.key,
    )
    for file, content in zip(files.values(), now, strict=True):
        shutil.copy(content, file)
    own["mqtt.tls"] = {name: str(files[name]) for name in ("ca", "cert", "key")}
    secured = {"cert": str(files["face.cert"]), "key": str(files["face.key"])}
    sections = {**own, "http": {"enabled": True, "port": port}, "http.tls": secured}
    node = daemon(broker, sections, scripted=True).launch()
    node.wait_log("mqtt_connected")

    def answers(host: str, authority: Authority) -> bool:
        context = ssl.create_default_context(cafile=str(authority.pem))
        try:
            return httpx.get(f"https://{host}:{port}/health", verify=context).status_code in {200, 503}
        except httpx.ConnectError:
            return False

    assert answers("localhost", broker.authority)
    (tmp_path / "other").mkdir()
    before, other = broker.authority, Authority(tmp_path / "other")
    broker.kill()
    client, pair = other.client("n1"), other.server()
    for name, content in {"key": client.key, "face.key": pair.key}.items():
        shutil.copy(content, files[name])
    node.wait_log("certificate_kept", lambda line: str(files["key"]) in line["files"])
    assert answers("localhost", before)
    for name, content in {"ca": other.pem, "cert": client.cert, "face.cert": pair.cert}.items():
        shutil.copy(content, files[name])
    broker.authority = other
    broker.new_server_certificate()
    broker.start()
    node.wait_log("mqtt_connected", lambda _: len(node.log("mqtt_connected")) > 1)
    assert answers("localhost", other)
    assert answers("127.0.0.1", other)
    assert not answers("localhost", before)


def test_a_question_from_the_command_line(
    make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon
) -> None:
    """`edged ask` with a certificate, as the rollout's gate does; refused without one, and in plain text."""
    broker = make_broker()
    node = daemon(broker, broker.mqtt_section("n1", by_certificate=True), scripted=True).launch()
    node.wait_log("engine_ready")
    pair = broker.clients["d1"]
    to = ["--node", "n1", "--host", "localhost", "--port", str(broker.cert_port), "--timeout", "30"]
    tls = ["--cafile", str(broker.authority.pem)]
    own = ["--cert", str(pair.cert), "--key", str(pair.key), "--name", "d1"]
    codes = []
    for options in ([*tls, *own], tls, []):
        command = [sys.executable, "-m", "edged", "ask", *to, *options, "x"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
        assert "Traceback" not in ended.stderr
        codes.append(ended.returncode)
    assert codes[0] == 0
    assert 0 not in codes[1:]


def test_the_password_stays_in_its_file(
    make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon
) -> None:
    """It stands in no process's arguments or environment, and in no line of the log, at level debug either."""
    broker = make_broker()
    sections = {**broker.mqtt_section("n1"), "log": {"level": "debug", "format": "json"}}
    node = daemon(broker, sections, scripted=True).launch()
    node.wait_log("mqtt_connected")
    node.engine_pid()
    ours = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    assert len(ours) > 1
    seen = b"".join(
        Path(f"/proc/{one.pid}/{name}").read_bytes() for one in ours for name in ("cmdline", "environ")
    )
    assert b"edged.toml" in seen
    secret = PASSWORDS["n1"].encode()
    assert secret not in seen
    assert node.terminate() == 0
    assert secret not in b"".join(node.raw)
    assert secret not in node.config.read_bytes()


# refused ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is wrong, and words of the line about it."""

    name: str
    says: str
    change: Callable[[ShippedBroker, Path], Sections]
    options: dict[str, Any] = field(default_factory=dict)
    expired: bool = False
    names: str = "DNS:localhost,IP:127.0.0.1"


def by_password(broker: ShippedBroker, _folder: Path) -> Sections:
    """Right settings; the broker is wrong."""
    return broker.mqtt_section("n1")


def by_certificate(broker: ShippedBroker, _folder: Path) -> Sections:
    """Right settings but for the certificate, which the broker does not want any more."""
    return broker.mqtt_section("n1", by_certificate=True)


def without_certificate(broker: ShippedBroker, _folder: Path) -> Sections:
    """No certificate where one is wanted."""
    sections = broker.mqtt_section("n1", by_certificate=True)
    return {**sections, "mqtt.tls": {"ca": str(broker.authority.pem)}}


def with_expired_certificate(broker: ShippedBroker, _folder: Path) -> Sections:
    """A certificate of yesterday."""
    sections = broker.mqtt_section("n1", by_certificate=True)
    pair = broker.authority.client("n1", expired=True)
    sections["mqtt.tls"] |= {"cert": str(pair.cert), "key": str(pair.key)}
    return sections


def with_strange_certificate(broker: ShippedBroker, folder: Path) -> Sections:
    """A certificate that another authority signed."""
    sections = broker.mqtt_section("n1", by_certificate=True)
    pair = Authority(folder).client("n1")
    sections["mqtt.tls"] |= {"cert": str(pair.cert), "key": str(pair.key)}
    return sections


def with_wrong_ca(broker: ShippedBroker, folder: Path) -> Sections:
    """Trust in another authority."""
    sections = broker.mqtt_section("n1")
    sections["mqtt.tls"] = {"ca": str(Authority(folder).pem)}
    return sections


def at_the_plain_port(broker: ShippedBroker, _folder: Path) -> Sections:
    """TLS where there is none."""
    sections = broker.mqtt_section("n1")
    sections["mqtt"]["port"] = broker.plain_port
    return sections


def without_tls(broker: ShippedBroker, _folder: Path) -> Sections:
    """Plain text where TLS is wanted."""
    sections = broker.mqtt_section("n1")
    del sections["mqtt.tls"]
    return sections


CASES = (
    Case("expired", r"certificate has expired; renew it at the broker", by_password, expired=True),
    Case("wrong_ca", r"put the certificate of the authority .* into mqtt\.tls\.ca", with_wrong_ca),
    Case(
        "wrong_name", r"set mqtt\.host to a name in the certificate", by_password, names="DNS:broker.example"
    ),
    Case(
        "revoked_node",
        r"revoked.*mqtt\.tls\.cert|mqtt\.tls\.cert \(revoked",
        by_certificate,
        {"revoked": ("n1",)},
    ),
    Case("no_node_certificate", r"set mqtt\.tls\.cert and mqtt\.tls\.key", without_certificate),
    Case("expired_node_certificate", r"mqtt\.tls\.cert", with_expired_certificate),
    Case("strange_node_certificate", r"mqtt\.tls\.cert", with_strange_certificate),
    Case("plain_port", r"no TLS at this port; set mqtt\.port", at_the_plain_port),
    Case("tls_port", r"if this is its port for TLS, set mqtt\.tls\.ca", without_tls),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(
    case: Case, make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon, tmp_path: Path
) -> None:
    """Not connected, tried again and again, and the log says what to change."""
    folder = tmp_path / "other"
    folder.mkdir()
    broker = make_broker(**case.options, server_names=case.names, server_expired=case.expired)
    before = tries(broker)
    node = daemon(broker, case.change(broker, folder), scripted=True).launch()
    assert re.search(case.says, node.wait_log("mqtt_failed")["reason"])
    end = time.monotonic() + TRIES_S
    while tries(broker) < before + 4 and time.monotonic() < end:
        time.sleep(0.05)
    assert tries(broker) >= before + 4
    told = node.log("mqtt_failed")
    assert len(told) <= 2, told  # an alert of TLS 1.3 may or may not outrun the end of its connection
    assert node.log("mqtt_connected") == []
    assert "New client connected" not in broker.log()
    assert node.running


def tries(broker: ShippedBroker) -> int:
    """Connections that the broker has seen: it logs the good beginning of one, or the failed handshake."""
    return max(broker.log().count("New connection from"), broker.log().count("Client connection from"))


def test_a_mended_broker_is_taken_without_a_restart(
    make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon
) -> None:
    """When the broker has a new certificate the node connects by itself, within the longest wait."""
    broker = make_broker(server_expired=True)
    node = daemon(broker, broker.mqtt_section("n1"), scripted=True).launch()
    node.wait_log("mqtt_failed")
    broker.new_server_certificate()
    broker.restart()
    node.wait_log("mqtt_connected", timeout_s=RETRY_MAX_S + 30.0)


class Recorder:
    """A port that is no broker: it keeps the first bytes of every connection and closes it."""

    def __init__(self) -> None:
        self.connections: list[tuple[float, bytes]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.port = int(self._server.getsockname()[1])

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                peer, _ = self._server.accept()
            except TimeoutError:
                continue
            with peer:
                peer.settimeout(1.0)
                self.connections.append((time.monotonic(), peer.recv(65_536)))

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()
        self._server.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """One, listening."""
    made = Recorder()
    yield made
    made.stop()


def test_never_downgraded(
    make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon, recorder: Recorder
) -> None:
    """With TLS set, nothing but TLS is ever sent, however often it fails; the waits grow up to 4 s."""
    broker = make_broker()
    sections = broker.mqtt_section("n1")
    sections["mqtt"]["port"] = recorder.port
    node = daemon(broker, sections, scripted=True).launch()
    end = time.monotonic() + TRIES_S
    while len(recorder.connections) < 6 and time.monotonic() < end:
        time.sleep(0.05)
    times = [at for at, _ in recorder.connections]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(waits) >= 5
    assert waits[0] < waits[4]
    assert waits[4] > 1.5
    assert max(waits) < 10 * RETRY_MAX_S
    for _, sent in recorder.connections:
        assert sent[:2] == b"\x16\x03"  # a TLS record with a handshake (RFC 8446, 5.1)
        assert b"MQTT" not in sent
        assert PASSWORDS["n1"].encode() not in sent
    assert len(node.log("mqtt_failed")) == 1


def test_old_tls_is_refused(make_broker: Callable[..., ShippedBroker]) -> None:
    """The shipped broker takes TLS 1.2 and 1.3, nothing older."""
    broker = make_broker()
    place = f"localhost:{broker.port}"
    taken = {}
    for version in ("tls1_1", "tls1_2", "tls1_3"):
        command = ["openssl", "s_client", "-connect", place, f"-{version}", "-cipher", "DEFAULT:@SECLEVEL=0"]
        ended = subprocess.run(command, check=False, input=b"", capture_output=True, timeout=20)
        taken[version] = ended.returncode == 0
    assert taken == {"tls1_1": False, "tls1_2": True, "tls1_3": True}


# settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["no ca", "ca is none", "no key", "key of another", "key with a passphrase"]
)
def test_wrong_files(
    wrong: str, make_broker: Callable[..., ShippedBroker], daemon: MakeDaemon, tmp_path: Path
) -> None:
    """A file for TLS that is missing or wrong ends the start with code 78 and one line that names it."""
    broker = make_broker()
    sections = broker.mqtt_section("n1", by_certificate=True)
    tls = sections["mqtt.tls"]
    locked = tmp_path / "locked.key"
    if wrong == "no ca":
        tls["ca"] = str(tmp_path / "missing.pem")
    elif wrong == "ca is none":
        (tmp_path / "none.pem").write_text("nothing\n")
        tls["ca"] = str(tmp_path / "none.pem")
    elif wrong == "no key":
        tls["key"] = str(tmp_path / "missing.key")
    elif wrong == "key of another":
        tls["key"] = str(broker.clients["d1"].key)
    else:
        seal = ["openssl", "pkey", "-in", tls["key"], "-aes256", "-passout", "pass:x", "-out", str(locked)]
        subprocess.run(seal, check=True, timeout=20)
        tls["key"] = str(locked)
    config = daemon(broker, sections).config
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDGED_")}
    ended = subprocess.run(
        [sys.executable, "-m", "edged", "run", "--config", str(config)],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env=environment,
    )
    assert ended.returncode == 78, ended.stderr
    assert "Traceback" not in ended.stderr
    key = "ca" if "ca" in wrong.split() else "key"
    assert tls[key] in ended.stderr
    assert f"mqtt.tls.{key}" in ended.stderr


def test_the_documented_commands(tmp_path: Path) -> None:
    """The commands in mosquitto.conf's comments make certificates that strict verification accepts, and a CRL."""
    comments = "\n".join(
        line.removeprefix("#").removeprefix("   ")
        for line in (SHIPPED / "mosquitto.conf").read_text().splitlines()
        if line.startswith("#   ")
    )
    making = comments[comments.index("new() {") : comments.index("install -d")]
    (tmp_path / "index.txt").touch()
    listing = comments[comments.index("[ca]") :]
    (tmp_path / "ca.cnf").write_text(listing[: listing.index("openssl")].rpartition("\n")[0] + "\n")
    shell(tmp_path, making)
    for name, purpose in (("broker", "sslserver"), ("n1", "sslclient")):
        strict = f"openssl verify -x509_strict -purpose {purpose} -CAfile ca.pem {name}.pem"
        assert "OK" in shell(tmp_path, strict)
    assert "DNS:broker.lan" in shell(tmp_path, "openssl x509 -in broker.pem -noout -ext subjectAltName")
    orders = re.findall(r"openssl ca -config .*", (SHIPPED / "mosquitto.conf").read_text())
    assert len(orders) == 2
    for order in orders:
        shell(tmp_path, order)
    refused = "! openssl verify -crl_check -CRLfile crl.pem -CAfile ca.pem n1.pem 2>&1"
    assert "certificate revoked" in shell(tmp_path, refused)
    keys = [path.stat().st_mode & 0o077 for path in tmp_path.glob("*.key")]
    assert keys == [0, 0, 0]


def shell(folder: Path, commands: str) -> str:
    """Run bash commands in a folder; returns what they print."""
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=folder,
    )
    assert ended.returncode == 0, f"{commands}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout
