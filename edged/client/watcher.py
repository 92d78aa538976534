"""A connection to the broker and what the nodes there say of themselves; orders to them, for operators.

The half of a `Client` that asks no questions. `_arrived` runs in the network thread and only puts into queues.
No paho here.
"""

from __future__ import annotations

import queue
import secrets
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import msgspec

from edged.client.answer import FAILURE, AnswerTimeoutError, ClientError, UnreachableError
from edged.client.fleet import Happened, NodeView, happened, views
from edged.client.gaps import Gaps
from edged.client.line import Line
from edged.core.topics import is_name, is_prefix
from edged.errors import DECODE_ERRORS

SETTLE_S = 0.3
"""Retained messages follow a subscription at once; so long a silence means that there are no more."""
LISTEN_S = 0.2
"""How often a listener looks whether the connection still lives."""
NAMES = "names have 1 to 64 characters A-Z a-z 0-9 _ . -"


class Watcher:
    """Hears what nodes say. A context manager; it may be shared between threads.

    Args:
        host, port: the broker's.
        name: begins the MQTT client id.
        node: board that is meant where none is named.
        topics: to subscribe to from the start.
        marks: topics that only sessions of programs of this name have.
        username, password: the broker's.
        tls: as made by `ssl.create_default_context`; plain TCP without it.
        prefix: first level or levels of every topic.

    Raises:
        ValueError: a name or the prefix does not fit into a topic.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str,
        node: str | None,
        topics: tuple[str, ...],
        marks: tuple[str, ...],
        username: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
        prefix: str,
    ) -> None:
        for one in (name, node):
            if one is not None and not is_name(one):
                raise ValueError(f"{one!r}: {NAMES}")
        if not is_prefix(prefix):
            raise ValueError(
                f"{prefix!r}: prefixes have 1 to 64 characters A-Z a-z 0-9 _ . -, and / between levels"
            )
        self._node, self._prefix = node, prefix
        self._changed = threading.Condition()  # guards the next five
        self._answered: dict[str, str | None] = {}  # what was subscribed to, and why the broker refuses it
        self._latest: dict[str, bytes] = {}
        self._news: dict[str, int] = {}  # messages that were no retained ones
        self._heard_at: dict[str, float] = {}
        # A queue lives as long as somebody listens to it.
        self._listeners: weakref.WeakSet[queue.SimpleQueue[tuple[str, bytes]]] = weakref.WeakSet()
        self._line = Line(
            host,
            port,
            name=name,
            topics=topics,
            marks=marks,
            on_message=self._arrived,
            on_reached=self._reached,
            on_connected=self._connected,
            on_subscribed=self._subscribed,
            username=username,
            password=password,
            tls=tls,
        )

    # life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect and wait until the broker has taken us in; lost connections come back by themselves.

        After an error, or `close`, it may be called again; while we are connected it does nothing.

        Raises:
            UnreachableError: nothing listens there, it does not answer, or refuses for now.
            ClientError: the broker refuses, or can never be reached so.
        """
        self._line.connect()

    def close(self) -> None:
        """Disconnect."""
        self._line.close()

    def alive(self) -> bool:
        """Whether replies can still come."""
        return self._line.alive()

    def connected(self) -> bool:
        """Whether there is a connection just now; a lost one comes back by itself."""
        return self._line.connected()

    def crowded(self) -> bool:
        """Whether connections end again and again soon after they began: another program may use the account."""
        return self._line.crowded()

    # what nodes say of themselves -----------------------------------------------------------------------

    def status(self, node: str | None = None, timeout_s: float = 2.0) -> str | None:
        """`online`, `offline`, or None for a node that the broker has never heard of."""
        word = self._read(node, "status", timeout_s)
        return None if word is None else word.decode("ascii", "replace")

    def info(self, node: str | None = None, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """Who the node is, as it said last; None if it said nothing."""
        return _object(self._read(node, "info", timeout_s))

    def health(
        self, node: str | None = None, timeout_s: float = 2.0, *, fresh: bool = False
    ) -> dict[str, Any] | None:
        """How the node is, as it said last; with `fresh` what it says next. None if it said nothing."""
        return _object(self._read(node, "health", timeout_s, fresh=fresh))

    def nodes(self, timeout_s: float = 10.0) -> dict[str, str]:
        """Every node that the broker knows, with its status word; takes `SETTLE_S` at least.

        Raises:
            ClientError: the broker refuses, or does not answer in time.
        """
        wanted = f"{self._prefix}/v1/node/+/status"
        head, tail = wanted.split("+")
        self._settle((wanted,), timeout_s)
        with self._changed:
            return {
                topic.removeprefix(head).removesuffix(tail): word.decode("ascii", "replace")
                for topic, word in sorted(self._latest.items())
                if topic.startswith(head) and topic.endswith(tail)
            }

    def fleet(self, *, settle: bool = True) -> list[NodeView]:
        """Every node that the broker knows, with all it said of itself.

        Args:
            settle: wait for what the broker has kept; False returns what came by now, for a view that is
                drawn again and again.

        Raises:
            ClientError: the broker refuses to tell of nodes, or does not answer.
        """
        topics = tuple(f"{self._prefix}/v1/node/+/{what}" for what in ("status", "info", "health"))
        for topic in topics:
            self._line.subscribe(topic)
        if settle:
            self._settle(topics, 10.0)
        with self._changed:
            return views(self._prefix, self._latest, self._heard_at, time.monotonic())

    def events(
        self, node: str | None = None, *, missed: Callable[[str], None] = lambda _why: None
    ) -> Iterator[Happened]:
        """What happens to one node, or to all, from now on; ends when the client is closed.

        Args:
            node: one alone.
            missed: told in a sentence when and why something may have passed by; called by whoever iterates.

        Raises:
            ValueError: the name does not fit into a topic.
            ClientError: the connection is gone for good, or the broker refuses.
        """
        if node is not None and not is_name(node):
            raise ValueError(f"{node!r}: {NAMES}")
        wanted = f"{self._prefix}/v1/node/{node or '+'}/event"
        # Not in the generator, which begins with its first step: what an order brings about before would be missed.
        return self._happening(node, wanted, self._listen(wanted), missed)

    def _happening(
        self,
        node: str | None,
        wanted: str,
        listener: queue.SimpleQueue[tuple[str, bytes]],
        missed: Callable[[str], None],
    ) -> Iterator[Happened]:
        gaps = Gaps()
        while True:
            lives, near, crowded = self._line.lives, self._line.connected(), self._line.crowded()
            if why := gaps.look(time.monotonic(), lives=lives, connected=near, crowded=crowded):
                missed(why)
            try:
                event = happened(self._prefix, *listener.get(timeout=LISTEN_S))
            except queue.Empty:
                if not self.alive():
                    return
                self._check(wanted)
                continue
            if event is not None and node in {None, event.node}:
                yield event

    def admin(
        self,
        op: str,
        node: str | None = None,
        *,
        timeout_s: float = 10.0,
        **fields: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Have an operation carried out (`drain`, `undrain`, ...) and return its result.

        An order that cannot reach the node in time is not kept for it.

        Raises:
            ClientError: the node refuses, or the broker does, or there is no connection just now.
            AnswerTimeoutError: no word from the node; it takes no orders unless `admin.enabled` is set.
        """
        node = node or self._node
        if node is None:
            raise ValueError("name a node")
        topic = f"{self._prefix}/v1/node/{node}/admin/{op}"
        if not self._line.connected():
            raise UnreachableError(f"the broker is away: {op} was not sent; order it again when it is back")
        transaction = secrets.token_hex(8)
        listener = self._listen(f"{topic}/result")
        refused: list[str] = []
        end_s = time.monotonic() + timeout_s
        self._line.publish(
            topic,
            msgspec.json.encode({"transaction": transaction, **fields}),
            lambda reason, words: refused.append(words) if reason >= FAILURE else None,
            expiry_s=timeout_s,
        )
        while (left_s := end_s - time.monotonic()) > 0:
            if refused:
                raise ClientError(f"the broker refused {op}: {refused[0]}; see its ACL")
            try:
                heard, payload = listener.get(timeout=min(left_s, LISTEN_S))
            except queue.Empty:
                self._check(f"{topic}/result")
                continue
            result = _object(payload) or {}
            if heard != f"{topic}/result" or result.get("transaction") != transaction:
                continue
            if result.get("status") != "ok":
                raise ClientError(f"{node} refuses {op}: {result.get('error') or 'it says no more'}")
            return result
        raise AnswerTimeoutError(f"{node} did not answer {op}; it takes orders where admin.enabled is set")

    def _listen(self, topic: str) -> queue.SimpleQueue[tuple[str, bytes]]:
        """Subscribe; a queue of all that comes from now on, for as long as somebody holds it."""
        listener: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        with self._changed:
            self._listeners.add(listener)
        self._line.subscribe(topic)
        return listener

    def _settle(self, topics: tuple[str, ...], timeout_s: float) -> None:
        """Subscribe, and wait until nothing new has come for a while. The first topic must not be refused."""
        end_s = time.monotonic() + timeout_s
        for topic in topics:
            self._line.subscribe(topic)
        with self._changed:
            # The broker's word first: on a slow line what it has kept is on its way for longer than any silence.
            if not self._changed.wait_for(lambda: all(one in self._answered for one in topics), timeout_s):
                raise UnreachableError(
                    f"the broker did not answer a subscription within {timeout_s:g} s; try again later"
                )
            self._check(topics[0])
            while (left_s := end_s - time.monotonic()) > 0 and self._changed.wait(min(SETTLE_S, left_s)):
                pass

    def _read(self, node: str | None, what: str, timeout_s: float, *, fresh: bool = False) -> bytes | None:
        node = node or self._node
        if node is None:
            raise ValueError("name a node")
        topic = f"{self._prefix}/v1/node/{node}/{what}"
        before = self._news.get(topic, 0)
        self._line.subscribe(topic)
        with self._changed:
            self._changed.wait_for(
                lambda: self._news.get(topic, 0) > before if fresh else topic in self._latest, timeout_s
            )
            return self._latest.get(topic)

    def _check(self, topic: str) -> None:
        if refused := self._answered.get(topic):
            raise ClientError(f"the broker refuses to hand on {topic}: {refused}; see its ACL")

    # network thread -------------------------------------------------------------------------------------

    def _reached(self) -> None:
        """A connection was made, and what waits for one is sent next: nothing is to be done here."""

    def _connected(self) -> None:
        """A connection was made, the first or a later one: nothing is to be done here."""

    def _subscribed(self, topic: str, refused: str | None) -> None:
        """The broker hands on what comes to a topic, or says why it does not. Any thread."""
        with self._changed:
            self._answered[topic] = refused
            self._changed.notify_all()

    def _arrived(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - called by Line alone
        with self._changed:
            for listener in self._listeners:
                if not retained:
                    listener.put((topic, payload))
            if payload:
                self._latest[topic] = payload
            else:  # somebody took it away (MQTT 5, 3.3.1.3)
                self._latest.pop(topic, None)
            self._heard_at[topic] = time.monotonic()
            self._news[topic] = self._news.get(topic, 0) + (not retained)
            self._changed.notify_all()


def _object(payload: bytes | None) -> dict[str, Any] | None:
    try:
        return None if payload is None else msgspec.json.decode(payload, type=dict[str, Any])
    except DECODE_ERRORS:
        return None
