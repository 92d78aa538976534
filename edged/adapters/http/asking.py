"""One question over HTTP: sent into the node's inbox, its replies read from a mailbox, cancelled if nobody waits.

The mailbox is the bound between the dispatcher's thread and a reader of any speed: beyond its size deltas are
dropped, and the terminal message brings their text.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from edged.core.link import INSIDE, Arrived
from edged.core.question import Properties
from edged.core.topics import INSIDE as CLIENT_HEAD
from edged.core.topics import NAMED, PASSING, Topics, is_name
from edged.errors import Refusal

MAILBOX_BYTES_MAX = 256 * 1024
"""Deltas that wait for a slow reader."""
TERMINAL = frozenset({"done", "cancelled", "error"})


class Exchange(Protocol):
    """`edged.node.exchange.Exchange`, as far as it is needed here."""

    def open(self, topic: str, box: Mailbox) -> None:
        """Hear what is published to `topic` from now on."""

    def close(self, topic: str, box: Mailbox) -> None:
        """Hear it no more."""


@dataclass(frozen=True, slots=True)
class Node:
    """The node, as the HTTP face sees it. All of it may be called from any thread.

    Attributes:
        emit: the node's inbox.
        info, health: what was last published on these topics; empty before.
        metrics: text for Prometheus.
        payload_bytes_max: largest question; a reload may change it.
        larger: names of models that a larger server has.
        open: questions whose replies are being read, by reply topic, as their readers put them. The loop's alone.
    """

    topics: Topics
    exchange: Exchange
    emit: Callable[[Arrived], None]
    info: Callable[[], Mapping[str, Any]]
    health: Callable[[], Mapping[str, Any]]
    metrics: Callable[[], str]
    payload_bytes_max: Callable[[], int]
    version: str
    larger: tuple[str, ...] = ()
    open: dict[str, list[bytes]] = field(default_factory=dict)


class Mailbox:
    """Replies on their way from the dispatcher's thread to one reader in the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bytes_max: int = MAILBOX_BYTES_MAX) -> None:
        self._loop = loop
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._items: deque[tuple[bytes, bool]] = deque()
        self._waiting_bytes = 0
        self._filled = asyncio.Event()
        self.dropped = 0

    def put(self, payload: bytes, *, droppable: bool) -> None:
        """Take a reply; any thread, never waits."""
        with self._lock:
            if droppable and self._waiting_bytes + len(payload) > self._bytes_max:
                self.dropped += 1
                return
            wake = not self._items
            self._items.append((payload, droppable))
            self._waiting_bytes += len(payload) if droppable else 0
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._filled.set)
            except RuntimeError:
                pass  # the loop has ended, and its readers with it

    async def take(self, timeout_s: float) -> bytes | None:
        """The next reply; None after so much silence."""
        try:
            # Not wait_for: before Python 3.12 it loses a cancel that comes together with the reply.
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        except TimeoutError:
            return None
        with self._lock:
            payload, droppable = self._items.popleft()
            self._waiting_bytes -= len(payload) if droppable else 0
            if not self._items:
                self._filled.clear()
        return payload


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client of either shape wants.

    Attributes:
        fields: of the contract's question, without `id`.
        client: a client's own name for its user; it counts for quotas and fairness.
        key: the client's own name for this question (`Idempotency-Key`): asked again it is not computed twice,
            and it outlives its connection.
    """

    fields: dict[str, Any]
    client: str | None = None
    key: str | None = None


@asynccontextmanager
async def ask(
    node: Node, wish: Wish, silence_s: float
) -> AsyncIterator[AsyncIterator[dict[str, Any] | None]]:
    """Ask, and read the replies; None stands for `silence_s` without one. The last is a terminal message.

    A question that is left before its end is cancelled, unless its client has named it.

    Raises:
        Refusal: `bad_request`; its key names another question, whose readers would hear a refusal by the node too.
    """
    client = CLIENT_HEAD + _name(wish.client)
    job_id = f"{PASSING}{secrets.token_hex(12)}" if wish.key is None else f"{NAMED}{_digest(wish.key)}"
    topic = node.topics.answer(client, job_id)
    box = Mailbox(asyncio.get_running_loop())
    over = False
    # One that has a key is the same question whether its reader wants a stream or not, and how long it waits.
    asked = wish.fields if wish.key is None else {**wish.fields, "stream": True}
    put = msgspec.json.encode({name: value for name, value in asked.items() if name != "deadline_ms"})
    others = node.open.setdefault(topic, [])
    if others and others[0] != put:
        raise Refusal("bad_request", "this Idempotency-Key names another question, which runs; use a new key")
    others.append(put)

    async def replies() -> AsyncIterator[dict[str, Any] | None]:
        nonlocal over
        while not over:
            payload = await box.take(silence_s)
            reply = None if payload is None else msgspec.json.decode(payload, type=dict[str, Any])
            over = reply is not None and reply["type"] in TERMINAL
            yield reply

    node.exchange.open(topic, box)
    try:
        # Named by the Correlation Data, so that also the refusal of what cannot be read comes back here.
        _send(node, node.topics.ask(client), asked, Properties(correlation=job_id.encode()))
        yield replies()
    finally:
        node.exchange.close(topic, box)
        others.remove(put)
        if not others:
            del node.open[topic]
        if not over and wish.key is None:
            _send(node, node.topics.control(client), {"op": "cancel", "id": job_id}, Properties())


def _send(node: Node, topic: str, value: Mapping[str, Any], properties: Properties) -> None:
    node.emit(Arrived(topic, msgspec.json.encode(value), properties, retained=False, delivery=INSIDE))


def _name(user: str | None) -> str:
    if not user:
        return "-"
    return user if is_name(user) else _digest(user)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
