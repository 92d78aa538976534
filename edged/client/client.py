"""The client itself: asks, and hands replies to their answers.

Open questions are asked again under their ids on every connection: the node knows them and goes on, or sends
the stored answer. What runs in the network thread (`_connected`, `_arrived` and what they call) only puts into
queues and publishes. No paho here.
"""

from __future__ import annotations

import math
import queue
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edged.client.answer import (
    FAILURE,
    NO_SUBSCRIBER,
    Answer,
    AnswerError,
    AnswerTimeoutError,
    ClientError,
    UnreachableError,
    Validates,
)
from edged.client.waiting import Waiting
from edged.client.watcher import NAMES, Watcher
from edged.core.control import Control, Status
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, ReasoningDelta
from edged.core.topics import Topics, is_job_id, is_name
from edged.errors import DECODE_ERRORS

QUESTION_BYTES_MAX = 1 << 20
"""No node takes more: the largest value of its `limits.payload_bytes`."""

OURS = frozenset({"id", "prompt", "messages"})
"""Fields of the contract that `Client.ask` fills in by itself."""
FORGETTING = frozenset({"forgotten", "unknown", "running"})
"""What becomes of a session that a node is told to forget."""

NAMELESS = "c-"
"""How random names begin. Each program with one subscribes below this name too, as a mark of it; see `Line`."""

_Reply = Accepted | Delta | ReasoningDelta | Done | Cancelled | Failed | Status
_replies: msgspec.json.Decoder[_Reply] = msgspec.json.Decoder(_Reply)


class _Later(msgspec.Struct):
    """As much of a reply as each version of the contract has."""

    type: str
    seq: int = -1


_later = msgspec.json.Decoder(_Later)


class Client(Watcher):
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
        if not name and username and not is_name(username):
            raise ValueError(f"the user name {username!r} does not fit into a topic: give a name; {NAMES}")
        self.name = name or username or f"{NAMELESS}{secrets.token_hex(4)}"
        topics = Topics(prefix, "")
        answers, nameless = topics.answer(self.name, "+"), topics.answer(NAMELESS, "+")
        super().__init__(
            host,
            port,
            name=self.name,
            node=node,
            topics=(answers,) if name or username else (answers, nameless),
            marks=(answers, topics.text(self.name), f"{prefix}/v1/client/{self.name}/#", nameless),
            username=username,
            password=password,
            tls=tls,
            prefix=prefix,
        )
        if pool is not None and not is_name(pool):
            raise ValueError(f"{pool!r}: {NAMES}")
        self._pool = pool
        self._own = answers.removesuffix("+")
        self._waiting = Waiting()
        self._told: dict[str, queue.SimpleQueue[Status | Failed | ClientError]] = {}

    # life -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Disconnect; open answers end with a `ClientError`.

        Their questions are taken back, for nobody could hear the rest, but for those with a `job_id` or a
        `reply_to` of the caller's: these can be asked for again, or are heard elsewhere; and but for a pool's that
        no board has accepted yet.
        """
        ended = self._waiting.all()
        for answer in ended:
            if answer.kept:
                self.forget(answer)
            else:
                self.give_up(answer)
        super().close()
        for answer in ended:  # whoever is told may connect again
            answer.put(ClientError("the client was closed before the answer was complete"))

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
            job_id: the question's name; asked twice under the same one it is answered once, also by another
                client of this name later: it runs on when this one is closed.
            timeout_s: until the terminal message, a wait for a broker that is away included; also the question's
                deadline at the node, as MQTT's Message Expiry and so in whole seconds, unless `deadline_ms` is
                given. None waits for ever.
            schema: what the answer must follow: a pydantic model's class (then `Answer.value` returns one), or
                a JSON schema.
            fields: further fields of the contract: `max_tokens`, `temperature`, `stop`, ...

        Raises:
            ValueError: nobody to ask, a name does not fit into a topic, the question is not UTF-8, or a field
                says what is said otherwise here.
            ClientError: the question is larger than any node takes.

        What keeps the question from being sent, as one larger than the broker takes, the answer raises.
        """
        if node is None and pool is None:
            node, pool = self._node, self._pool
        if (node is None) == (pool is None):
            raise ValueError("name a node or a pool to ask, one of the two")
        kept = bool(job_id) or fields.get("reply_to") is not None
        job_id = job_id or secrets.token_hex(8)
        if not is_name(node or pool or ""):
            raise ValueError(f"{node or pool!r}: {NAMES}")
        if not is_job_id(job_id):
            raise ValueError(f"{job_id!r}: ids have 1 to 128 characters A-Z a-z 0-9 _ . : -")
        topic = self._ask_topic("node" if node is not None else "pool", node or pool)
        if timeout_s == math.inf:
            timeout_s = None
        if timeout_s is not None and math.isnan(timeout_s):
            raise ValueError("timeout_s is not a number")
        # Not as deadline_ms: a node refuses one that is longer than it lets any question wait.
        expiry_s = None if "deadline_ms" in fields else timeout_s
        if schema is not None:
            wanted = schema if isinstance(schema, Mapping) else schema.model_json_schema()
            fields["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted}}
        payload = _payload(job_id, question, fields)

        def publish() -> int | None:
            # Asked again, a pool would deal the question to a second board, and the answer come from both.
            at = topic if answer.node is None else self._ask_topic("node", answer.node)
            return self._publish(answer, at, payload, expiry_s)

        answer = Answer(self, job_id, node, publish, timeout_s, kept=kept)
        for late in self._waiting.add(answer):
            self._unsent(late)
        answer.ask()
        return answer

    def cancel(self, answer: Answer) -> None:
        """Take a question back; of a pool's question as soon as it is known who has it."""
        answer.cancel_asked = True
        if answer.node is not None:
            self._control(answer.node, Control("cancel", answer.id))

    def forget(self, answer: Answer) -> None:
        """Expect no more replies to this question here."""
        self._waiting.remove(answer)

    def give_up(self, answer: Answer) -> bool:
        """Expect no more replies; the question is taken back unless it was asked here twice and one still waits.

        Returns:
            False if none was expected.
        """
        waited, alone = self._waiting.give_up(answer)
        if waited and alone and not self._unsent(answer):
            self.cancel(answer)
        return waited

    def forget_session(self, session: str, node: str | None = None, *, timeout_s: float = 10.0) -> str:
        """Have a node forget a conversation of this client.

        Returns:
            `forgotten`; `unknown` if there was none; `running` while a question of it is not over, and then
            nothing was forgotten.

        Raises:
            ValueError: no node, or a name does not fit.
            AnswerError: the node could not.
            AnswerTimeoutError: no word from the node.
            ClientError: nobody listens there or says anything of it, the broker refuses, or the connection is gone
                for good.
        """
        node = node or self._node
        if node is None or not is_name(node) or not is_job_id(session):
            raise ValueError(f"{node!r}, {session!r}: name a node and a session")
        order = Control("forget", secrets.token_hex(8), session=session)
        told = self._told[order.id] = queue.SimpleQueue()

        def acknowledged(reason: int, words: str) -> None:
            if reason >= FAILURE:
                told.put(ClientError(f"the broker refused to pass it on: {words}; see its ACL"))
            elif reason == NO_SUBSCRIBER:
                told.put(UnreachableError(f"nobody listens there: the broker knows no node {node} just now"))

        try:
            self._line.publish(self._control_topic(node), msgspec.json.encode(order), acknowledged)
            reply = told.get(timeout=timeout_s)
        except queue.Empty:
            if not self.connected():
                word = (
                    f"the broker is away: {node} is told to forget {session} when it is back; ask again then"
                )
            else:
                word = f"{node} does not say whether it has forgotten {session}; see with `edged nodes` how it is"
            raise AnswerTimeoutError(word) from None
        finally:
            del self._told[order.id]
        if isinstance(reply, ClientError):
            raise reply
        if isinstance(reply, Failed):
            raise AnswerError(reply)
        if reply.state not in FORGETTING:
            raise ClientError(f"{node} answers {reply.state!r}, which says nothing of {session}")
        return reply.state

    # both threads ---------------------------------------------------------------------------------------

    def _publish(self, answer: Answer, topic: str, payload: bytes, expiry_s: float | None) -> int | None:
        try:
            self._check(f"{self._own}+")
            # The id stands beside the payload too: a node names it so in its refusal of what it does not read.
            return self._line.publish(topic, payload, answer.acknowledged, answer.id.encode(), expiry_s)
        except ClientError as error:
            answer.put(error)
            return None

    def _unsent(self, answer: Answer) -> bool:
        """Do not send a question that nobody waits for any more; False where the broker may have it."""
        mid = answer.unacknowledged
        return mid is not None and self._line.take_back(mid)

    def _control(self, node: str, order: Control) -> None:
        try:
            self._line.publish(
                self._control_topic(node), msgspec.json.encode(order), lambda _reason, _words: None
            )
        except ClientError:
            pass  # the answer's own time limit stands

    def _ask_topic(self, kind: str, whom: str | None) -> str:
        return f"{self._prefix}/v1/{kind}/{whom}/ask/{self.name}"

    def _control_topic(self, node: str) -> str:
        return Topics(self._prefix, node).control(self.name)

    # network thread -------------------------------------------------------------------------------------

    def _reached(self) -> None:
        for answer in self._waiting.all():
            if answer.over():
                self._unsent(answer)

    def _connected(self) -> None:
        for answer in self._waiting.all():
            if answer.over():
                continue  # nobody reads it, or it has come to where its `reply_to` leads: not once more
            answer.ask()
            if answer.node is not None and answer.order.next_seq:
                self._control(answer.node, Control("resume", answer.id, answer.order.next_seq))

    def _subscribed(self, topic: str, refused: str | None) -> None:
        super()._subscribed(topic, refused)
        try:
            self._check(f"{self._own}+")
        except ClientError as error:
            for answer in self._waiting.all():
                answer.put(error)

    def _arrived(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - called by Line alone
        if topic.startswith(self._own):
            name = topic.removeprefix(self._own)
            answers, told = self._waiting.of(name), self._told.get(name)
            for answer in answers:
                self._replied(answer, payload)
            if answers:
                return
            reply = _read(payload)
            if isinstance(reply, Accepted) and self._waiting.left(name):
                self._control(reply.node, Control("cancel", name))
            elif told is not None and isinstance(reply, Status | Failed):
                told.put(reply)
            return  # else of another program under our name, or a second terminal message
        super()._arrived(topic, payload, retained)

    def _replied(self, answer: Answer, payload: bytes) -> None:
        reply = _read(payload)
        had_gap = answer.order.gap
        match reply:
            case Status() | _Later("status") | None:
                return
            case _Later("done" | "cancelled" | "error"):  # nothing else will come
                answer.put(ClientError("the answer came in words of a later version; update edged here"))
                return
            case _Later(seq=seq):
                ready = answer.order.pass_over(seq, time.monotonic())
            case _:
                ready = answer.order.take(reply, time.monotonic())
        for due in ready:
            answer.put(due)
            if isinstance(due, Accepted) and answer.cancel_asked:
                self._control(due.node, Control("cancel", answer.id))
            if isinstance(due, Done | Cancelled | Failed):
                self.forget(answer)
        if answer.order.gap and not had_gap and answer.node is not None:
            self._control(answer.node, Control("resume", answer.id, answer.order.next_seq))


def _payload(job_id: str, question: str | Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> bytes:
    if ours := OURS & fields.keys():
        raise ValueError(f"{', '.join(sorted(ours))}: the question is given first, and its name as job_id")
    asked = {"prompt" if isinstance(question, str) else "messages": question}
    try:
        payload = msgspec.json.encode({"id": job_id, **asked, **fields})
    except UnicodeEncodeError as error:  # half a surrogate pair, or bytes of another encoding
        raise ValueError(f"the question is not UTF-8: see its character {error.start + 1}") from None
    if len(payload) > QUESTION_BYTES_MAX:  # brokers drop what a node has no room for, without a word
        raise ClientError(f"the question has {len(payload)} bytes; send at most {QUESTION_BYTES_MAX}")
    return payload


def _read(payload: bytes) -> _Reply | _Later | None:
    for decoder in (_replies, _later):
        try:
            return decoder.decode(payload)
        except DECODE_ERRORS:
            continue  # of a later contract, or of a stranger: what we do not know we cannot show
    return None
