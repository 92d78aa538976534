"""The shipped Mosquitto configuration at work: a broker that runs on it, and devices with accounts.

Only paths and ports of the shipped files are replaced, and the log says more; all else is what a site gets.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from ansible_rig import Ended, groups, run
from broker import SEARCH_PATH, Mosquitto, free_port
from certificates import Authority
from daemon_process import DaemonProcess, MakeDaemon
from device import WAIT_S, Device
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

SHIPPED = Path(__file__).parents[1] / "configs" / "mosquitto"
READY = '"engine":"ready"'
PASSWORDS = {name: f"the-{name}-password" for name in ("n1", "n2", "d1", "d2", "d3")}


class ShippedBroker(Mosquitto):
    """Mosquitto on configs/mosquitto: port `port` wants passwords, `cert_port` certificates.

    Args:
        folder: existing and empty.
        server_names, server_expired: of the broker's certificate.
        revoked: clients whose certificates were taken back.
        change: last word on mosquitto.conf, to show what a line is for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        server_names: str = "DNS:localhost,IP:127.0.0.1",
        server_expired: bool = False,
        revoked: tuple[str, ...] = (),
        change: Callable[[str], str] = lambda text: text,
    ) -> None:
        super().__init__(folder, "log_type all\n")
        self.cert_port = free_port()
        self.plain_port = free_port()
        (folder / "ca").mkdir()
        self.authority = Authority(folder / "ca")
        self.clients = {name: self.authority.client(name) for name in PASSWORDS}
        for name in revoked:
            self.authority.revoke(self.clients[name])
        self._crl = self.authority.crl() if revoked else None
        self._server = self.authority.server(server_names, expired=server_expired)
        self._change = change
        passwords = folder / "edged.passwd"
        passwords.write_text("".join(f"{name}:{word}\n" for name, word in PASSWORDS.items()))
        program = shutil.which("mosquitto_passwd", path=SEARCH_PATH)
        assert program is not None
        subprocess.run([program, "-U", str(passwords)], check=True, timeout=30)
        acl = (SHIPPED / "edged.acl").read_text()
        block = acl[acl.index("user n1\n") :].split("\n\n", 1)[0]
        second = re.sub(r"\bn1\b", "n2", block)  # as the file tells people to
        (folder / "edged.acl").write_text(f"{acl}\n{second}\n")
        for file in (passwords, folder / "edged.acl"):
            file.chmod(0o600)

    def new_server_certificate(self) -> None:
        """Renew the broker's certificate; it is used from the next start on."""
        self._server = self.authority.server()

    def client_tls(self, name: str | None = None) -> ssl.SSLContext:
        """TLS of a device that trusts the broker's authority; with a certificate of `name` where one is given."""
        context = ssl.create_default_context(cafile=str(self.authority.pem))
        if name is not None:
            context.load_cert_chain(self.clients[name].cert, self.clients[name].key)
        return context

    def mqtt_section(self, name: str, *, by_certificate: bool = False) -> dict[str, dict[str, Any]]:
        """Settings of the node `name`."""
        tls: dict[str, Any] = {"ca": str(self.authority.pem)}
        section: dict[str, Any] = {"host": "localhost"}
        if by_certificate:
            pair = self.clients[name]
            tls |= {"cert": str(pair.cert), "key": str(pair.key)}
            section |= {"port": self.cert_port}
        else:
            file = self._folder / f"{name}.password"
            file.write_text(f"{PASSWORDS[name]}\n")
            section |= {"port": self.port, "username": name, "password_file": str(file)}
        return {"node": {"id": name}, "mqtt": section, "mqtt.tls": tls}

    def _settings(self, port: int) -> str:
        """The shipped mosquitto.conf, with our paths and ports."""
        text = self._change((SHIPPED / "mosquitto.conf").read_text())
        if self._crl is not None:
            text = text.replace("#crlfile", "crlfile")
        text = text.replace("#listener 1883", "listener 1883")
        text = text.replace("#use_username_as_clientid", "use_username_as_clientid")
        replaced: Mapping[str, object] = {
            "listener 8883": f"listener {port} 127.0.0.1",
            "listener 8884": f"listener {self.cert_port} 127.0.0.1",
            "listener 1883": f"listener {self.plain_port}",
            "/etc/mosquitto/edged-tls/ca.pem": self.authority.pem,
            "/etc/mosquitto/edged-tls/broker.pem": self._server.cert,
            "/etc/mosquitto/edged-tls/broker.key": self._server.key,
            "/etc/mosquitto/edged-tls/crl.pem": self._crl,
            "/etc/mosquitto/edged.passwd": self._folder / "edged.passwd",
            "/etc/mosquitto/edged.acl": self._folder / "edged.acl",
            "/var/lib/mosquitto/": f"{self._folder}/",
        }
        for shipped, ours in replaced.items():
            assert shipped in text, f"{shipped} is not in the shipped file"
            text = text.replace(shipped, str(ours))
        return text


class RoleBroker(ShippedBroker):
    """Mosquitto on what the Ansible role `broker` makes of the same files: nothing of it is replaced here.

    Args:
        folder: existing and empty.
        revoked: clients whose certificates were taken back.
    """

    def __init__(self, folder: Path, *, revoked: tuple[str, ...] = ()) -> None:
        super().__init__(folder, revoked=revoked)
        self.port = free_port()
        self.etc = folder / "etc"
        self.role_folder = folder / "ansible"
        self.role_folder.mkdir()
        ended = self.render()
        assert ended.code == 0, ended.text

    def render(self, *tasks: str, **changed: object) -> Ended:
        """Have the role write its files, or do `tasks`; `changed` are variables of the broker's host."""
        boards = {name: {"edged_secrets": {"mqtt_password": PASSWORDS[name]}} for name in ("n1", "n2")}
        values = {
            "broker_tls": {
                "ca": self.authority.pem.read_text(),
                "cert": self._server.cert.read_text(),
                "key": self._server.key.read_text(),
                "crl": None if self._crl is None else self._crl.read_text(),
            },
            "broker_accounts": {name: PASSWORDS[name] for name in ("d1", "d2", "d3")},
            "broker_password_port": self.port,
            "broker_certificate_port": self.cert_port,
            "broker_local_port": self.plain_port,
            "broker_etc": str(self.etc),
            "broker_store": str(self._folder),
            "broker_owner": str(os.geteuid()),
            "broker_group": str(os.getegid()),
        }
        hosts = groups(
            self.role_folder,
            edged={"hosts": boards, "vars": {"edged_settings": {"node": {"pools": ["hall-2"]}}}},
            broker={"hosts": {"broker.lan": values | changed}},
        )
        role = {"ansible.builtin.include_role": {"name": "broker", "tasks_from": "{{ item }}"}}
        playbook = self.role_folder / "play.json"
        steps = [{**role, "loop": list(tasks or ("preflight", "files"))}]
        playbook.write_text(json.dumps([{"hosts": "broker", "gather_facts": False, "tasks": steps}]))
        return run(self.role_folder, "ansible-playbook", "-i", str(hosts), str(playbook))

    def _settings(self, port: int) -> str:
        assert port == self.port
        return (self.etc / "mosquitto.conf").read_text()


class Account(Device):
    """A device with an account: over TLS with its password, or with its certificate on the other port.

    Args:
        broker: where.
        name: account, client of the topics.
        by_certificate: without a password.
        will: topic of a last will.
    """

    def __init__(
        self,
        broker: ShippedBroker,
        name: str,
        *,
        by_certificate: bool = False,
        will: str | None = None,
        **options: Any,
    ) -> None:
        port = broker.cert_port if by_certificate else broker.port
        super().__init__("localhost", port, name, **options)
        self._client.tls_set_context(broker.client_tls(name if by_certificate else None))
        if not by_certificate:
            self._client.username_pw_set(name, PASSWORDS[name])
        if will is not None:
            self._client.will_set(will, b"offline", qos=1, retain=True)
        self._reasons: dict[int, ReasonCode] = {}
        self._told = threading.Condition()
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        self.disconnects: list[str] = []
        self.connacks: list[str] = []
        self.packet_bytes_max: int | None = None

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> str:
        """Publish with QoS 1; returns the reason of the broker's answer, or of its disconnection."""
        had = len(self.disconnects)
        mid = self._client.publish(topic, payload, qos=1, retain=retain).mid
        with self._told:
            came = self._told.wait_for(lambda: mid in self._reasons or len(self.disconnects) > had, WAIT_S)
            assert came, "the broker says nothing"
            return str(self._reasons[mid]) if mid in self._reasons else self.disconnects[-1]

    def _on_connect(self, client: paho.Client, *told: object) -> None:
        _userdata, _flags, reason, properties = told
        assert isinstance(reason, ReasonCode)
        with self._told:
            self.connacks.append(str(reason))
            self.packet_bytes_max = getattr(properties, "MaximumPacketSize", None)
            self._told.notify_all()
        if not reason.is_failure:
            super()._on_connect(client)

    def _on_publish(
        self, _client: paho.Client, _userdata: object, mid: int, reason: ReasonCode, *_: object
    ) -> None:
        with self._told:
            self._reasons[mid] = reason
            self._told.notify_all()

    def _on_disconnect(
        self, _client: paho.Client, _userdata: object, _flags: object, reason: ReasonCode, *_: object
    ) -> None:
        with self._told:
            self.disconnects.append(str(reason))
            self._told.notify_all()


def knock(broker: ShippedBroker, client_id: str, username: str | None, password: str | None = None) -> str:
    """Connect to the port for passwords with a new session, and leave; returns the broker's word on it."""
    words: queue.SimpleQueue[str] = queue.SimpleQueue()
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
    )
    client.tls_set_context(broker.client_tls())
    client.username_pw_set(username, password)
    client.on_connect = lambda _client, _userdata, _flags, reason, _properties: words.put(str(reason))
    client.connect("localhost", broker.port, clean_start=True)
    client.loop_start()
    word = words.get(timeout=WAIT_S)
    client.disconnect()
    client.loop_stop()
    return word


MakeAccount = Callable[..., Account]


def start_node(daemon: MakeDaemon, broker: ShippedBroker, **limits: int) -> DaemonProcess:
    """A node n1 of the pool hall-2 under its account."""
    sections: dict[str, dict[str, Any]] = dict(broker.mqtt_section("n1"))
    sections["node"] = {"id": "n1", "pools": ["hall-2"]}
    sections["limits"] = limits
    node = daemon(broker, sections, scripted=True).launch()
    node.wait_log("mqtt_connected")
    return node


def ask_a_board(account: MakeAccount, name: str = "d1", **options: Any) -> Account:
    """A device that is connected, and knows that the node answers."""
    asking = account(name, extra_topics=("edged/v1/node/n1/info",), **options)
    asking.start()
    asking.wait_for("/info", lambda heard: READY in heard.payload.decode())
    return asking
