"""Ansible filters: the shipped Mosquitto files made fit for a site. Standard library only; run on the controller.

The files of configs/mosquitto stay the one source: here lines are switched on and off, blocks are repeated, names
and ports are replaced. A line that is looked for and not found is an error, so that the two cannot drift apart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

PREFIX = "edged"
"""Default of node.prefix."""
NAME = re.compile(r"[0-9A-Za-z_.-]{1,64}")
ROUNDS = 101
"""Of PBKDF2 with SHA-512, as mosquitto_passwd of 2.0 has it (PW_DEFAULT_ITERATIONS)."""
SALT_BYTES, KEY_BYTES = 12, 64
GONE = "configs/mosquitto/{} has no line {!r} any more: mend role broker"
HEAD = "# Written by Ansible (role broker) from configs/mosquitto: changes made here are lost with the next run.\n"


def edged_nodes(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the broker must know of the boards of an inventory, from their variables for role edged."""
    nodes = []
    for host in hosts:
        settings = host.get("edged_settings") or {}
        told = {
            section: settings.get(section) or {} for section in ("node", "mqtt", "admin", "homeassistant")
        }
        node: dict[str, Any] = {
            "name": str(told["node"].get("id", host["inventory_hostname"])),
            "prefix": str(told["node"].get("prefix", PREFIX)),
            "pools": list(told["node"].get("pools", [])),
            "reply_prefixes": list(told["mqtt"].get("reply_prefixes", [])),
            "admin": bool(told["admin"].get("enabled", False)),
        }
        if told["homeassistant"].get("enabled", False):
            node["discovery_prefix"] = told["homeassistant"].get("discovery_prefix", "homeassistant")
            node["birth_topic"] = told["homeassistant"].get("birth_topic", "homeassistant/status")
        password = (host.get("edged_secrets") or {}).get("mqtt_password")
        if password is not None:
            node["password"] = password
        nodes.append(node)
    return nodes


def edged_prefix(nodes: Iterable[Mapping[str, Any]]) -> str:
    """First level of the boards' topics; of the first one, where they differ: `edged_wrong` says so."""
    return next((str(node["prefix"]) for node in nodes if node.get("prefix")), PREFIX)


def edged_board_accounts(nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Accounts of the boards that have a password."""
    return {node["name"]: node["password"] for node in nodes if node.get("password")}


def edged_wrong(
    tls: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    accounts: Mapping[str, Any],
    people: Iterable[str],
    ports: Iterable[int],
    *,
    prefix: str,
) -> list[str]:
    """What is wrong with an inventory, a sentence each; `people` are operators and Home Assistants."""
    names, people = [str(node["name"]) for node in nodes], {*map(str, people)}
    said = [
        f"the name {name!r} cannot be an account; give 1 to 64 of A-Z a-z 0-9 _ . -"
        for name in sorted({*names, *map(str, accounts), *people})
        if not NAME.fullmatch(name)
    ]
    said += [
        f"two boards have the node.id {name}; give each its own, for it is its account"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    said += [
        f"{name} is a board, and in broker_operators, broker_homeassistants or broker_accounts too; give people and"
        " programs accounts of their own"
        for name in sorted(set(names) & {*people, *map(str, accounts)})
    ]
    said += [
        f"the password of {name} is no text in one line; put it in quotes, and leave nothing empty"
        for name, word in sorted({**edged_board_accounts(nodes), **accounts}.items())
        if not isinstance(word, str) or not word or "\n" in word
    ]
    said += [
        f"the pool {pool!r} of {node['name']} is no name; give 1 to 64 of A-Z a-z 0-9 _ . -"
        for node in nodes
        for pool in node.get("pools", [])
        if not NAME.fullmatch(str(pool))
    ]
    said += [
        f"{node['name']} has node.prefix {node['prefix']}, and the ACL is made for {prefix}: it would let that"
        " board do nothing; give all boards of one broker the same prefix, and broker_prefix that one or none"
        for node in nodes
        if node.get("prefix", prefix) != prefix
    ]
    used = [port for port in ports if port]
    if not used or len(set(used)) < len(used) or not all(0 < port < 2**16 for port in used):
        said.append(
            f"the ports {', '.join(map(str, used)) or 'are all 0'}: give at least one of broker_password_port,"
            " broker_certificate_port and broker_local_port, each another of 1 to 65535"
        )
    return said + _wrong_tls(tls)


def _wrong_tls(tls: Mapping[str, Any]) -> list[str]:
    """What OpenSSL has against the broker's certificate."""
    try:
        ssl.create_default_context(cadata=str(tls["ca"]))
    except (ssl.SSLError, ValueError):
        return ["broker_tls.ca is no certificate in PEM; give the authority's (ca.pem), not its key"]
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:  # readable by us alone
        pair.write(f"{str(tls['cert']).strip()}\n{str(tls['key']).strip()}\n")
        pair.flush()
        broker = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            broker.load_cert_chain(pair.name, password=_no_passphrase)
        except (ssl.SSLError, ValueError) as error:
            why = getattr(error, "reason", None) or str(error)
            said = f"broker_tls.cert and broker_tls.key do not belong together or are no PEM ({why})"
            return [f"{said}; give broker.pem and broker.key of one making"]
    if why := _refusal(str(tls["ca"]), broker):
        said = f"a device that trusts broker_tls.ca would refuse broker_tls.cert ({why})"
        return [f"{said}; have that authority sign a new one"]
    return []


def _refusal(ca: str, broker: ssl.SSLContext) -> str:
    """Why a device that trusts `ca` refuses the broker, found by a handshake in memory; empty if it does not."""
    trusting = ssl.create_default_context(cadata=ca)
    trusting.check_hostname = False  # under which names the broker is reached, the inventory does not say
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Mosquitto's clients are not so strict
    to_device, to_broker = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        trusting.wrap_bio(to_device, to_broker),
        broker.wrap_bio(to_broker, to_device, server_side=True),
    )
    for _ in range(4):  # hello, certificate, finished: two turns in TLS 1.3, three in 1.2
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError:  # the other side's word on it
                continue
    return ""


def _no_passphrase() -> str:
    raise ValueError("the key asks for a passphrase")


def edged_acl(
    text: str,
    nodes: Sequence[Mapping[str, Any]],
    operators: Iterable[str],
    homeassistants: Iterable[str],
    prefix: str,
) -> str:
    """The shipped edged.acl with a block for each board, each operator and each Home Assistant.

    Args:
        text: with its example blocks for board n1 and (switched off) for `homeassistant` and `operator`.
        nodes: as `edged_nodes` makes them.
        operators: accounts.
        homeassistants: accounts.
        prefix: first level of all topics.
    """
    common, _, rest = text.partition("# -- A board:")
    board = _block(rest, "user n1\n")
    operator = _block(rest, "#user operator\n").replace("#", "")
    home = _home(_block(rest, "#user homeassistant\n"), nodes)
    parts = [HEAD, common.rstrip() + "\n"]
    parts += [_board(board, node) for node in nodes]
    parts += [home.replace("user homeassistant", f"user {name}") for name in homeassistants]
    parts += [operator.replace("user operator", f"user {name}") for name in operators]
    return "\n".join(parts).replace("edged/v1/", f"{prefix}/v1/")


def _block(text: str, begin: str) -> str:
    """Lines from `begin` to the next empty one."""
    if begin not in text:
        raise AnsibleFilterError(GONE.format("edged.acl", begin.strip()))
    return text[text.index(begin) :].split("\n\n", 1)[0].rstrip() + "\n"


def _board(block: str, node: Mapping[str, Any]) -> str:
    """The lines of board n1 for another one."""
    orders = ["topic read edged/v1/node/n1/admin/+", "topic write edged/v1/node/n1/admin/+/result"]
    shows = bool(node.get("discovery_prefix"))
    shown = re.sub("[^0-9A-Za-z_-]", "_", str(node["name"]))  # Home Assistant takes no dot
    instead = {
        "topic read edged/v1/pool/hall-2/ask/+": [
            f"topic read edged/v1/pool/{pool}/ask/+" for pool in node.get("pools", [])
        ],
        "#topic write PREFIX/#": [f"topic write {prefix}/#" for prefix in node.get("reply_prefixes", [])],
        **{f"#{line}": [line] if node.get("admin") else [] for line in orders},
        "#topic write homeassistant/device/n1/config": (
            [f"topic write {node['discovery_prefix']}/device/{shown}/config"] if shows else []
        ),
        "#topic read homeassistant/status": [f"topic read {node['birth_topic']}"] if shows else [],
    }
    for line, ours in instead.items():
        block = _lines(block, line, ours)
    return re.sub(r"(?<![\w.-])n1(?![\w.-])", lambda _: str(node["name"]), block)


def _home(block: str, nodes: Iterable[Mapping[str, Any]]) -> str:
    """The lines of Home Assistant, for the topics under which boards show themselves."""
    prefixes = sorted({str(node["discovery_prefix"]) for node in nodes if node.get("discovery_prefix")})
    births = sorted({str(node["birth_topic"]) for node in nodes if node.get("birth_topic")})
    shown, born = "#topic readwrite homeassistant/device/+/config", "#topic write homeassistant/status"
    block = _lines(
        block, shown, [f"topic readwrite {one}/device/+/config" for one in prefixes or ["homeassistant"]]
    )
    block = _lines(block, born, [f"topic write {one}" for one in births or ["homeassistant/status"]])
    return block.replace("#user", "user")


def _lines(text: str, line: str, instead: list[str]) -> str:
    """Other lines in the place of one."""
    lines = text.split("\n")
    if line not in lines:
        raise AnsibleFilterError(GONE.format("edged.acl", line))
    at = lines.index(line)
    return "\n".join([*lines[:at], *instead, *lines[at + 1 :]])


def edged_mosquitto_conf(text: str, etc: str, store: str, ports: Mapping[str, int], *, crl: bool) -> str:
    """The shipped mosquitto.conf for these folders.

    Args:
        text: with listeners for passwords, certificates and (switched off) programs on the same machine, in this
            order and parted by empty lines.
        etc: folder of the configuration.
        store: folder of what is kept.
        ports: `password`, `certificate` and `local`; 0 for no such listener.
        crl: whether a list of certificates that were taken back is there.
    """
    general, _, rest = text.partition("listener 8883\n")
    by_password, _, rest = f"listener 8883\n{rest}".partition("\n\n")
    by_certificate, _, local = rest.partition("\n\n")
    if crl:
        by_certificate = _switched_on(by_certificate, "crlfile ")
    local = _switched_on(_switched_on(local, "listener 1883 127.0.0.1"), "use_username_as_clientid ")
    parts = [HEAD + general.rstrip()]
    for kind, section in (("password", by_password), ("certificate", by_certificate), ("local", local)):
        if ports[kind]:
            parts.append(re.sub(r"(?m)^listener \d+", f"listener {ports[kind]}", section).rstrip())
    made = "\n\n".join(parts) + "\n"
    return made.replace("/etc/mosquitto", etc.rstrip("/")).replace(
        "/var/lib/mosquitto/", f"{store.rstrip('/')}/"
    )


def _switched_on(section: str, line: str) -> str:
    if f"\n#{line}" not in section:
        raise AnsibleFilterError(GONE.format("mosquitto.conf", f"#{line}"))
    return section.replace(f"\n#{line}", f"\n{line}")


def edged_passwd(accounts: Mapping[str, str], existing: str) -> str:
    """A password file in the form of mosquitto_passwd; lines that fit their password stay as they are."""
    kept = dict(line.split(":", 1) for line in existing.splitlines() if ":" in line)
    lines = []
    for name, word in sorted(accounts.items()):
        there = kept.get(name, "")
        lines.append(f"{name}:{there if _fits(word, there) else _hashed(word, os.urandom(SALT_BYTES))}\n")
    return "".join(lines)


def _hashed(word: str, salt: bytes) -> str:
    key = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, ROUNDS, KEY_BYTES)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def _fits(word: str, there: str) -> bool:
    found = re.fullmatch(r"\$7\$\d+\$([0-9A-Za-z+/=]+)\$[0-9A-Za-z+/=]+", there)
    try:
        return found is not None and hmac.compare_digest(_hashed(word, base64.b64decode(found[1])), there)
    except ValueError:
        return False


class FilterModule:
    """The name under which Ansible looks for filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """All of them."""
        made = (
            edged_nodes,
            edged_prefix,
            edged_board_accounts,
            edged_wrong,
            edged_acl,
            edged_mosquitto_conf,
            edged_passwd,
        )
        return {function.__name__: function for function in made}
