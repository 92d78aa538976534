"""Names and topics of the wire contract, version 1: building them, and reading who asked out of one.

Pure. The prefix `P` of the contract is a value here, so several fleets can share one broker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
"""`{node}`, `{pool}`, `{client}` of the contract."""
PREFIX = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", re.ASCII)
"""`P` of the contract: the settings accept the same as `node.prefix`."""
JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
"""`{id}` of the contract."""
INSIDE = "http:"
"""Clients that ask over HTTP have names that begin so: no name of MQTT holds a colon, so neither can be taken for
the other."""
PASSING, NAMED = "req:", "key:"
"""How the ids of their questions begin: one lives as long as its connection, the other was named by its client."""
TOPIC_BYTES_MAX = 512
"""A reply topic longer than this is refused; MQTT itself allows 65,535 (section 1.5.4)."""
TOPIC_LEVELS_MAX = 64
"""Mosquitto cuts the connection of a client that publishes to more than 200 levels (TOPIC_HIERARCHY_LIMIT)."""


def is_name(text: str) -> bool:
    """True when `text` may stand for a node, pool or client in a topic."""
    return NAME.fullmatch(text) is not None


def is_prefix(text: str) -> bool:
    """True when every topic may begin with `text`."""
    return PREFIX.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """True when `text` may name a question."""
    return JOB_ID.fullmatch(text) is not None


def is_passing(client: str, job_id: str) -> bool:
    """True for a question over HTTP whose answer nobody can get once its connection is gone."""
    return client.startswith(INSIDE) and job_id.startswith(PASSING)


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics of one node.

    Attributes:
        prefix: `P` of the contract, without a slash at its end.
        node: this node's name.
        reply_prefixes: further places under which a `reply_to` may lie.
    """

    prefix: str
    node: str
    reply_prefixes: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Retained `online` or `offline`."""
        return f"{self.prefix}/v1/node/{self.node}/status"

    @property
    def info(self) -> str:
        """Retained: who this node is."""
        return f"{self.prefix}/v1/node/{self.node}/info"

    @property
    def health(self) -> str:
        """Retained, expiring: how this node is."""
        return f"{self.prefix}/v1/node/{self.node}/health"

    @property
    def event(self) -> str:
        """What happened."""
        return f"{self.prefix}/v1/node/{self.node}/event"

    def admin(self, op: str) -> str:
        """Where an operator orders this; its result stands below it."""
        return f"{self.prefix}/v1/node/{self.node}/admin/{op}"

    def ask(self, client: str) -> str:
        """Where `client` asks this node."""
        return f"{self.prefix}/v1/node/{self.node}/ask/{client}"

    def control(self, client: str) -> str:
        """Where `client` steers its own questions."""
        return f"{self.prefix}/v1/node/{self.node}/control/{client}"

    def answer(self, client: str, job_id: str) -> str:
        """Default reply topic of a question."""
        return f"{self.prefix}/v1/client/{client}/answer/{job_id}"

    def text(self, client: str) -> str:
        """Where the answer to a plain-text question goes as plain text."""
        return f"{self.prefix}/v1/client/{client}/text"

    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters to subscribe to for as long as the node lives, each with QoS 1."""
        return (self.ask("+"), self.control("+"))

    def pool(self, pool: str) -> str:
        """Topic filter by which the boards of a pool share its questions (MQTT 5, 4.8.2)."""
        return f"$share/{pool}/{self.prefix}/v1/pool/{pool}/ask/+"

    def route(self, topic: str) -> tuple[str, str, str | None] | None:
        """What an incoming topic asks for: verb, client and pool, or None for a topic not ours.

        The verb is `ask`, `control`, or `admin` with the operation in the client's place. The pool is None for
        what was sent to this node. It may be one that we have left, or were in before the settings changed: what
        the broker has handed to us it hands to nobody else. The client's name is returned as it stands; whether
        it is a legal name is the caller's to check.
        """
        head = f"{self.prefix}/v1/"
        if not topic.startswith(head):
            return None
        match topic[len(head) :].split("/"):
            case ["node", node, "ask" | "control" | "admin" as verb, client] if node == self.node:
                return verb, client, None
            case ["pool", pool, "ask", client] if is_name(pool):
                return "ask", client, pool
            case _:
                return None

    def is_inside(self, topic: str) -> bool:
        """True for reply topics of clients that ask over HTTP: what is published there stays in this process."""
        return topic.startswith(f"{self.prefix}/v1/client/{INSIDE}")

    def may_reply_to(self, client: str, topic: str) -> bool:
        """True when a reply for `client` may be published to `topic`.

        A node writes below the client's own branch or a configured prefix and nowhere else: it is no relay
        into other devices' topics. Nor to a topic for which a broker may cut the node's connection: control
        characters and non-characters (MQTT 5, 1.5.4; Mosquitto does), or very many levels.
        """
        if not topic.isprintable() or any(c in topic for c in "#+"):
            return False
        if self.is_inside(topic):
            return False  # their replies never see the broker, and nobody else may write among them
        if len(topic.encode()) > TOPIC_BYTES_MAX or topic.count("/") >= TOPIC_LEVELS_MAX:
            return False
        own = f"{self.prefix}/v1/client/{client}/"
        extra = tuple(p if p.endswith("/") else f"{p}/" for p in self.reply_prefixes)
        return topic.startswith((own, *extra))
