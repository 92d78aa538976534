"""The client itself: asks, hands replies to their answers, and knows what nodes said of themselves.

Open questions are asked again under their ids on every connection: the node knows them and goes on, or sends
the stored answer. What runs in the network thread (`_connected`, `_arrived` and what they call) only puts into
queues and publishes. No paho here.
"""

from __future__ import annotations

import math
import queue
import secrets
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec

from edged.client.answer import (
    FAILURE,
    Answer,
    AnswerError,
    AnswerTimeoutError,
    ClientError,
    UnreachableError,
    Validates,
)
from edged.client.fleet import Happened, NodeView, happened, views
from edged.client.line import Line
from edged.core.control import Control, Status
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, ReasoningDelta
from edged.core.topics import Topics, is_job_id, is_name, is_prefix

SETTLE_S = 0.3
"""Retained messages follow a subscription at once; so long a silence means that there are no more."""
LISTEN_S = 0.2
"""How often a listener looks whether the connection still lives."""

QUESTION_BYTES_MAX = 1 << 20
"""What no node takes: the most that its `limits.payload_bytes` may be."""

_NAMES = "names have 1 to 64 characters A-Z a-z 0-9 _ . -"
_Reply = Accepted | Delta | ReasoningDelta | Done | Cancelled | Failed | Status
_replies: msgspec.json.Decoder[_Reply] = msgspec.json.Decoder(_Reply)


class Client:
    """Asks questions of one node or pool. Use it as a context manager; it may be shared between threads.

    Args:
        host, port: the broker's.
        node: board to ask; None if `pool` or every question names one.
        pool: boards to ask, whichever is free.
        name: the client's name in topics, 1 to 64 of `A-Z a-z 0-9 _ . -`; the user name without it, where an
            ACL ties the two; a random one otherwise, which no session outlives.
        username, password: the broker's.
        tls: as made by `ssl.create_default_context`; plain TCP without it.
        prefix: first level or levels of every topic.

    Raises:
        ValueError: a name or the prefix does not fit into a topic.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1883,
        *,
        node: str | None = None,
        pool: str | None = None,
        name: str | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        prefix: str = "edged",
    ) -> None:
        self.name = name or username or f"c-{secrets.token_hex(4)}"
        for one in (self.name, node, pool):
            if one is not None and not is_name(one):
                raise ValueError(f"{one!r}: {_NAMES}")
        if not is_prefix(prefix):
            raise ValueError(
                f"{prefix!r}: prefixes have 1 to 64 characters A-Z a-z 0-9 _ . -, and / between levels"
            )
        self._node, self._pool, self._prefix = node, pool, prefix
        answers = Topics(prefix, "").answer(self.name, "+")
        self._own = answers.removesuffix("+")
        self._answers: dict[str, tuple[Answer, ...]] = {}  # of one id several, where it was asked twice
        self._opening = threading.Lock()  # guards changes of _answers
        self._told: dict[str, queue.SimpleQueue[Status | Failed]] = {}
        self._changed = threading.Condition()  # guards the next two
        self._latest: dict[str, bytes] = {}
        self._news: dict[str, int] = {}  # messages that were no retained ones
        self._heard_at: dict[str, float] = {}
        self._listeners: list[queue.SimpleQueue[tuple[str, bytes]]] = []
        self._line = Line(
            host,
            port,
            name=self.name,
            topics=(answers,),
            on_message=self._arrived,
            on_connected=self._connected,
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

        After an error, or `close`, it may be called again.

        Raises:
            UnreachableError: nothing listens there, it does not answer, or refuses for now.
            ClientError: the broker refuses, or can never be reached so.
        """
        self._line.connect()

    def close(self) -> None:
        """Disconnect; open answers end with a `ClientError`."""
        answers, self._answers = self._open(), {}
        for answer in answers:
            answer.put(ClientError("the client was closed before the answer was complete"))
        self._line.close()

    def alive(self) -> bool:
        """Whether replies can still come."""
        return self._line.alive()

    def connected(self) -> bool:
        """Whether there is a connection just now; a lost one comes back by itself."""
        return self._line.connected()

    # questions ------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str | Sequence[Mapping[str, Any]],
        *,
        node: str | None = None,
        pool: str | None = None,
        job_id: str | None = None,
        timeout_s: float | None = 600.0,
        schema: type[Validates[Any]] | Mapping[str, Any] | None = None,
        **fields: Any,  # noqa: ANN401 - the contract's fields, JSON values
    ) -> Answer:
        """Ask; returns at once.

        Args:
            question: the prompt, or messages in OpenAI's shape.
            node: board to ask this time; without it and `pool` the client's own.
            pool: boards to ask this time.
            job_id: the question's name; asked twice under the same one it is answered once.
            timeout_s: until the terminal message; also the question's deadline at the node, as MQTT's Message
                Expiry and so in whole seconds, unless `deadline_ms` is given. None waits for ever.
            schema: what the answer must follow: a pydantic model's class (then `Answer.value` returns one), or
                a JSON schema.
            fields: further fields of the contract: `max_tokens`, `temperature`, `stop`, ...

        Raises:
            ValueError: nobody to ask, a name does not fit into a topic, or the question is not UTF-8.
            ClientError: the question is larger than any node takes.

        What keeps the question from being sent, as one larger than the broker takes, the answer raises.
        """
        if node is None and pool is None:
            node, pool = self._node, self._pool
        if (node is None) == (pool is None):
            raise ValueError("name a node or a pool to ask, one of the two")
        job_id = job_id or secrets.token_hex(8)
        if not is_name(node or pool or ""):
            raise ValueError(f"{node or pool!r}: {_NAMES}")
        if not is_job_id(job_id):
            raise ValueError(f"{job_id!r}: ids have 1 to 128 characters A-Z a-z 0-9 _ . : -")
        kind = "node" if node is not None else "pool"
        topic = f"{self._prefix}/v1/{kind}/{node or pool}/ask/{self.name}"
        if timeout_s == math.inf:
            timeout_s = None
        # Not as deadline_ms: a node refuses one that is longer than it lets any question wait.
        expiry_s = None if "deadline_ms" in fields else timeout_s
        if schema is not None:
            wanted = schema if isinstance(schema, Mapping) else schema.model_json_schema()
            fields["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted}}
        asked = {"prompt" if isinstance(question, str) else "messages": question}
        try:
            payload = msgspec.json.encode({"id": job_id, **asked, **fields})
        except UnicodeEncodeError as error:  # half a surrogate pair, or bytes of another encoding
            raise ValueError(f"the question is not UTF-8: see its character {error.start + 1}") from None
        if len(payload) > QUESTION_BYTES_MAX:  # brokers drop what a node has no room for, without a word
            raise ClientError(f"the question has {len(payload)} bytes; send at most {QUESTION_BYTES_MAX}")
        answer = Answer(
            self, job_id, node, lambda: self._publish(answer, topic, payload, expiry_s), timeout_s
        )
        with self._opening:
            self._answers[job_id] = (*self._answers.get(job_id, ()), answer)
        answer.ask()
        return answer

    def cancel(self, answer: Answer) -> None:
        """Take a question back; of a pool's question as soon as it is known who has it."""
        answer.cancel_asked = True
        if answer.node is not None:
            self._control(answer.node, Control("cancel", answer.id))

    def forget(self, answer: Answer) -> None:
        """Expect no more replies to this question here."""
        with self._opening:
            others = tuple(one for one in self._answers.pop(answer.id, ()) if one is not answer)
            if others:
                self._answers[answer.id] = others

    def give_up(self, answer: Answer) -> None:
        """Expect no more replies; the question is taken back unless it was asked here twice and one still waits."""
        self.forget(answer)
        if answer.id not in self._answers:
            self.cancel(answer)

    def forget_session(self, session: str, node: str | None = None, *, timeout_s: float = 10.0) -> str:
        """Have a node forget a conversation of this client.

        Returns:
            `forgotten`; `unknown` if there was none; `running` while a question of it is not over, and then
            nothing was forgotten.

        Raises:
            ValueError: no node, or a name does not fit.
            AnswerError: the node could not.
            AnswerTimeoutError: no word from the node.
        """
        node = node or self._node
        if node is None or not is_name(node) or not is_job_id(session):
            raise ValueError(f"{node!r}, {session!r}: name a node and a session")
        order = Control("forget", secrets.token_hex(8), session=session)
        told = self._told[order.id] = queue.SimpleQueue()
        try:
            self._control(node, order)
            reply = told.get(timeout=timeout_s)
        except queue.Empty:
            raise AnswerTimeoutError(f"{node} does not say whether it has forgotten {session}") from None
        finally:
            del self._told[order.id]
        if isinstance(reply, Failed):
            raise AnswerError(reply)
        return reply.state

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

    def nodes(self, timeout_s: float = 3.0) -> dict[str, str]:
        """Every node that the broker knows, with its status word; takes `SETTLE_S` at least."""
        wanted = f"{self._prefix}/v1/node/+/status"
        self._line.subscribe(wanted)
        head, tail = wanted.split("+")
        self._settle(timeout_s)
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
        """
        for what in ("status", "info", "health"):
            self._line.subscribe(f"{self._prefix}/v1/node/+/{what}")
        if settle:
            self._settle(3.0)
        with self._changed:
            return views(self._prefix, self._latest, self._heard_at, time.monotonic())

    def events(self, node: str | None = None) -> Iterator[Happened]:
        """What happens to one node, or to all, from now on; ends when the client is closed.

        Raises:
            ClientError: the connection is gone for good.
        """
        listener: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._listeners.append(listener)
        self._line.subscribe(f"{self._prefix}/v1/node/{node or '+'}/event")
        try:
            while True:
                try:
                    event = happened(self._prefix, *listener.get(timeout=LISTEN_S))
                except queue.Empty:
                    if not self.alive():
                        return
                    continue
                if event is not None and node in {None, event.node}:
                    yield event
        finally:
            self._listeners.remove(listener)

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
        listener: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._listeners.append(listener)
        self._line.subscribe(f"{topic}/result")
        refused: list[str] = []
        end_s = time.monotonic() + timeout_s
        try:
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
                    continue
                result = _object(payload) or {}
                if heard != f"{topic}/result" or result.get("transaction") != transaction:
                    continue
                if result.get("status") != "ok":
                    raise ClientError(f"{node} refuses {op}: {result.get('error') or 'it says no more'}")
                return result
        finally:
            self._listeners.remove(listener)
        raise AnswerTimeoutError(f"{node} did not answer {op}; it takes orders where admin.enabled is set")

    def _settle(self, timeout_s: float) -> None:
        """Wait until nothing new has come for a while."""
        end_s = time.monotonic() + timeout_s
        with self._changed:
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

    # both threads ---------------------------------------------------------------------------------------

    def _publish(self, answer: Answer, topic: str, payload: bytes, expiry_s: float | None) -> None:
        try:
            # The id stands beside the payload too: a node names it so in its refusal of what it does not read.
            self._line.publish(topic, payload, answer.acknowledged, answer.id.encode(), expiry_s)
        except ClientError as error:
            answer.put(error)

    def _control(self, node: str, order: Control) -> None:
        topic = Topics(self._prefix, node).control(self.name)
        try:
            self._line.publish(topic, msgspec.json.encode(order), lambda _reason, _words: None)
        except ClientError:
            pass  # the answer's own time limit stands

    # network thread -------------------------------------------------------------------------------------

    def _open(self) -> list[Answer]:
        with self._opening:
            return [answer for answers in self._answers.values() for answer in answers]

    def _connected(self) -> None:
        for answer in self._open():
            answer.ask()
            if answer.node is not None and answer.order.next_seq:
                self._control(answer.node, Control("resume", answer.id, answer.order.next_seq))

    def _arrived(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - called by Line alone
        if topic.startswith(self._own):
            name = topic.removeprefix(self._own)
            answers, told = self._answers.get(name, ()), self._told.get(name)
            for answer in answers:
                self._replied(answer, payload)
            if answers:
                pass  # else of another program under our name, or a second terminal message
            elif told is not None and isinstance(reply := _read(payload), Status | Failed):
                told.put(reply)
            return
        for listener in list(self._listeners):
            if not retained:
                listener.put((topic, payload))
        with self._changed:
            self._latest[topic] = payload
            self._heard_at[topic] = time.monotonic()
            self._news[topic] = self._news.get(topic, 0) + (not retained)
            self._changed.notify_all()

    def _replied(self, answer: Answer, payload: bytes) -> None:
        reply = _read(payload)
        if reply is None or isinstance(reply, Status):
            return
        had_gap = answer.order.gap
        for due in answer.order.take(reply, time.monotonic()):
            answer.put(due)
            if isinstance(due, Accepted) and answer.cancel_asked:
                self._control(due.node, Control("cancel", answer.id))
            if isinstance(due, Done | Cancelled | Failed):
                self.forget(answer)
        if answer.order.gap and not had_gap and answer.node is not None:
            self._control(answer.node, Control("resume", answer.id, answer.order.next_seq))


def _read(payload: bytes) -> _Reply | None:
    try:
        return _replies.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # of a later contract, or of a stranger: what we do not know we cannot show


def _object(payload: bytes | None) -> dict[str, Any] | None:
    try:
        return None if payload is None else msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
