"""The client's connection to the broker, over paho-mqtt: the second of the two places that name it.

The first is the daemon's adapter, which keeps a session and acknowledges by hand; a client needs neither. It
starts clean with every connection and asks its open questions again under their ids: the node knows them and
goes on, or sends the stored answer.

paho's one network thread runs the callbacks below. They raise nothing, hold no lock of ours while they call
paho, and hand everything on through queues; if that thread ends all the same, waiting askers are told.
"""

from __future__ import annotations

import math
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.client.answer import Answer, ClientError, UnreachableError
from edged.core.control import Control, Status
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, ReasoningDelta
from edged.core.topics import Topics, is_job_id, is_name

CONNECT_S = 10.0
KEEPALIVE_S = 20
RETRY_MAX_S = 4
SETTLE_S = 0.3
"""Retained messages follow a subscription at once; so long a silence means that there are no more."""

_replies = msgspec.json.Decoder(Accepted | Delta | ReasoningDelta | Done | Cancelled | Failed | Status)


class Client:
    """Asks questions of one node or pool. Use it as a context manager; it may be shared between threads.

    Args:
        host, port: the broker's.
        node: board to ask; None if `pool` or every question names one.
        pool: boards to ask, whichever is free.
        name: the client's name in topics, 1 to 64 of `A-Z a-z 0-9 _ . -`; the user name without it, where an
            ACL ties the two; a random one otherwise.
        username, password: the broker's.
        tls: as made by `ssl.create_default_context`; plain TCP without it.
        prefix: first level of every topic.

    Raises:
        ValueError: a name does not fit into a topic.
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
                raise ValueError(f"{one!r}: names have 1 to 64 characters A-Z a-z 0-9 _ . -")
        self.host, self.port = host, port
        self._node, self._pool, self._prefix = node, pool, prefix
        answers = Topics(prefix, "", ()).answer(self.name, "+")
        self._own = answers.removesuffix("+")
        self._filters: tuple[str, ...] = (answers,)
        self._answers: dict[str, Answer] = {}
        self._latest: dict[str, bytes] = {}
        self._news: dict[str, int] = {}  # messages that were no retained ones
        self._changed = threading.Condition()  # guards what follows; never held while paho is called
        self._mids: dict[int, Answer | None] = {}
        self._early: dict[int, ReasonCode] = {}
        self._refused: str | None = None
        self._taken_in = threading.Event()
        self._network: threading.Thread | None = None
        self._closed = False
        self._paho = self._make_paho(username, password, tls)

    # life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect and wait until the broker has taken us in; lost connections come back by themselves.

        Raises:
            UnreachableError: nothing listens there, or it does not answer.
            ClientError: the broker refuses, or can never be reached so.
        """
        place = f"{self.host}:{self.port}"
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        try:
            self._paho.connect(self.host, self.port, KEEPALIVE_S, clean_start=True, properties=properties)
        except (ConnectionRefusedError, TimeoutError) as error:
            raise UnreachableError(f"no broker at {place}: {_words(error)}") from None
        except (OSError, ValueError) as error:
            raise ClientError(f"no broker at {place}: {_words(error)}") from None
        self._paho.loop_start()
        in_time = self._taken_in.wait(CONNECT_S)
        if not in_time or self._refused:
            self.close()
            raise ClientError(f"the broker at {place} {self._refused or 'does not answer; is it MQTT 5?'}")

    def close(self) -> None:
        """Disconnect; open answers end with a `ClientError`."""
        self._closed = True
        self._paho.disconnect()
        self._paho.loop_stop()
        for answer in list(self._answers.values()):
            answer.put(ClientError("the client was closed before the answer was complete"))

    def alive(self) -> bool:
        """Whether replies can still come: the network thread lives and the client is not closed."""
        return not self._closed and (self._network is None or self._network.is_alive())

    # questions ------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str | Sequence[Mapping[str, Any]],
        *,
        node: str | None = None,
        pool: str | None = None,
        job_id: str | None = None,
        timeout_s: float | None = 600.0,
        **fields: Any,  # noqa: ANN401 - the contract's fields, JSON values
    ) -> Answer:
        """Ask; returns at once.

        Args:
            question: the prompt, or messages in OpenAI's shape.
            node: board to ask this time; without it and `pool` the client's own.
            pool: boards to ask this time.
            job_id: the question's name; asked twice under the same one it is answered once.
            timeout_s: until the terminal message; also the question's deadline at the node, unless
                `deadline_ms` is given. None waits for ever.
            fields: further fields of the contract: `max_tokens`, `temperature`, `stop`, ...

        Raises:
            ValueError: nobody to ask, or a name does not fit into a topic.
            ClientError: the question is larger than the broker takes.
        """
        if node is None and pool is None:
            node, pool = self._node, self._pool
        if (node is None) == (pool is None):
            raise ValueError("name a node or a pool to ask, one of the two")
        job_id = job_id or secrets.token_hex(8)
        if not is_name(node or pool or "") or not is_job_id(job_id):
            raise ValueError(f"{node or pool!r}, {job_id!r}: not fit for a topic")
        kind = "node" if node is not None else "pool"
        topic = f"{self._prefix}/v1/{kind}/{node or pool}/ask/{self.name}"
        if timeout_s is not None:
            fields.setdefault("deadline_ms", max(1, math.ceil(1000 * timeout_s)))
        asked = {"prompt" if isinstance(question, str) else "messages": question}
        payload = msgspec.json.encode({"id": job_id, **asked, **fields})
        answer = Answer(self, job_id, node, lambda: self._publish(answer, topic, payload), timeout_s)
        self._answers[job_id] = answer
        answer.ask()
        return answer

    def cancel(self, answer: Answer) -> None:
        """Take a question back; of a pool's question as soon as it is known who has it."""
        answer.cancel_asked = True
        if answer.node is not None:
            self._control(answer.node, Control("cancel", answer.id))

    def forget(self, answer: Answer) -> None:
        """Expect no more replies to this question."""
        self._answers.pop(answer.id, None)

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
        self._subscribe(wanted)
        head, tail = wanted.split("+")
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while (left_s := end_s - time.monotonic()) > 0 and self._changed.wait(min(SETTLE_S, left_s)):
                pass
            return {
                topic.removeprefix(head).removesuffix(tail): word.decode("ascii", "replace")
                for topic, word in sorted(self._latest.items())
                if topic.startswith(head) and topic.endswith(tail)
            }

    def _read(self, node: str | None, what: str, timeout_s: float, *, fresh: bool = False) -> bytes | None:
        node = node or self._node
        if node is None:
            raise ValueError("name a node")
        topic = f"{self._prefix}/v1/node/{node}/{what}"
        before = self._news.get(topic, 0)
        self._subscribe(topic)
        with self._changed:
            self._changed.wait_for(
                lambda: self._news.get(topic, 0) > before if fresh else topic in self._latest, timeout_s
            )
            return self._latest.get(topic)

    def _subscribe(self, topic: str) -> None:
        if topic not in self._filters:
            self._filters = (*self._filters, topic)
            self._paho.subscribe(topic, qos=1)  # without a connection: on_connect will

    # sending --------------------------------------------------------------------------------------------

    def _publish(self, answer: Answer, topic: str, payload: bytes) -> None:
        """Ask, or ask again; without a connection paho keeps it for the next one."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        properties.PayloadFormatIndicator = 1
        try:
            sent = self._paho.publish(topic, payload, qos=1, properties=properties)
        except ValueError as error:
            answer.put(ClientError(f"the question cannot be sent: {error}"))
            return
        if sent.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}:
            answer.put(ClientError(f"the question cannot be sent: {paho.error_string(sent.rc)}"))
            return
        self._expect_puback(sent.mid, answer)

    def _control(self, node: str, order: Control) -> None:
        topic = Topics(self._prefix, node).control(self.name)
        self._expect_puback(self._paho.publish(topic, msgspec.json.encode(order), qos=1).mid, None)

    def _expect_puback(self, mid: int, answer: Answer | None) -> None:
        with self._changed:
            reason = self._early.pop(mid, None)  # it can be quicker than publish() returns
            if reason is None:
                self._mids[mid] = answer
        if reason is not None and answer is not None:
            answer.acknowledged(reason.value, str(reason))

    # paho's callbacks, in its network thread --------------------------------------------------------------

    def _make_paho(
        self, username: str | None, password: str | None, tls: ssl.SSLContext | None
    ) -> paho.Client:
        # The client id differs from the name: two programs of one user must not throw each other out.
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self.name[:50]}-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.connect_timeout = CONNECT_S
        client.suppress_exceptions = True
        client.reconnect_delay_set(min_delay=1, max_delay=RETRY_MAX_S)
        if username is not None:
            client.username_pw_set(username, password)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._network = threading.current_thread()
        if reason.is_failure:
            self._refused = f"refused us: {reason}"
        else:
            self._refused = None
            client.subscribe([(one, 1) for one in self._filters])
            for answer in list(self._answers.values()):
                answer.ask()
                if answer.node is not None and answer.order.next_seq:
                    self._control(answer.node, Control("resume", answer.id, answer.order.next_seq))
        self._taken_in.set()

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401
        topic = message.topic
        if not topic.startswith(self._own):
            with self._changed:
                self._latest[topic] = bytes(message.payload)
                self._news[topic] = self._news.get(topic, 0) + (not message.retain)
                self._changed.notify_all()
            return
        answer = self._answers.get(topic.removeprefix(self._own))
        if answer is None:
            return  # of another program under our name, or a terminal message that came twice
        try:
            reply = _replies.decode(message.payload)
        except msgspec.MsgspecError:
            return  # of a later contract: what we do not know we cannot show
        if isinstance(reply, Status):
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

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: Any,  # noqa: ANN401 - paho's signature
        mid: int,
        reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        with self._changed:
            if mid not in self._mids:
                self._early[mid] = reason
                return
            answer = self._mids.pop(mid)
        if answer is not None:
            answer.acknowledged(reason.value, str(reason))


def _object(payload: bytes | None) -> dict[str, Any] | None:
    try:
        return None if payload is None else msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None


def _words(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message}"
        case socket.gaierror():
            return "the host name cannot be resolved"
        case ConnectionRefusedError():
            return "nothing listens there"
        case TimeoutError():
            return "it does not answer"
        case _:
            return str(error)
