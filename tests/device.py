"""A device for tests: asks over a real broker and keeps every reply; `Listener` only keeps what it hears.

MQTT 5 or 3.1.1, questions as JSON or as plain text. Each has paho's own network thread; what it stores is read
from the test's thread under one condition, so that every wait ends with the message it is for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import paho.mqtt.client as paho
from broker import Mosquitto
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

WAIT_S = 30.0
"""Long enough for two cores that others use too; every wait ends as soon as it can."""
TERMINAL = frozenset({"done", "error", "cancelled"})
TIMED_OUT = "nothing of the kind within {:g} s; the last of {} messages: {}"

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Heard:
    """One message as it came; `at` is monotonic seconds."""

    topic: str
    payload: bytes
    retained: bool
    qos: int
    at: float
    properties: dict[str, Any]

    @property
    def json(self) -> Any:
        """The payload as JSON."""
        return json.loads(self.payload)


def hear(
    broker: Mosquitto,
    name: str,
    topic: str,
    on_message: Callable[[paho.Client, object, paho.MQTTMessage], None],
    *,
    inflight_max: int = 20,
) -> paho.Client:
    """A client in a thread of paho's own, once it is subscribed."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5)
    subscribed = threading.Event()
    client.max_inflight_messages_set(inflight_max)
    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect(broker.host, broker.port)
    client.loop_start()
    client.subscribe(topic, qos=1)
    assert subscribed.wait(WAIT_S)
    return client


def leave(client: paho.Client) -> None:
    """Disconnect and end the thread.

    The callbacks go, for they hold whoever holds the client: in such a ring the garbage collector may come to
    paho's pair of sockets before it comes to the client that closes it, and warns, in whichever test is running.
    """
    client.disconnect()
    with contextlib.suppress(AttributeError):  # see `edged.mqtt5.Client.loop_stop`
        client.loop_stop()
    client.on_connect = client.on_subscribe = client.on_message = None
    client.on_publish = client.on_disconnect = None


class Listener:
    """A subscriber that keeps all it hears.

    Args:
        host, port: the broker.
        topics: filters, subscribed with QoS 1 on every connection.
        name: MQTT client id.
        version: 5 or 4 (that is 3.1.1).
        persistent: the broker keeps what comes while it is away.
    """

    def __init__(
        self,
        host: str,
        port: int,
        topics: tuple[str, ...],
        *,
        name: str = "",
        version: int = 5,
        persistent: bool = False,
    ) -> None:
        self.version = version
        self.heard: list[Heard] = []
        self._host, self._port, self._topics = host, port, topics
        self._persistent = persistent
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self.listening = False
        extra: dict[str, Any] = {} if version == 5 else {"clean_session": not persistent}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion(version), **extra
        )
        self._client.reconnect_delay_set(1, 1)

    def start(self) -> Self:
        """Connect, and return when subscribed."""
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        options: dict[str, Any] = {}
        if self.version == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if self._persistent else 0
            options = {"clean_start": not self._persistent, "properties": properties}
        self._client.connect(self._host, self._port, **options)
        self._client.loop_start()
        assert self._subscribed.wait(WAIT_S), "the broker does not answer"
        self.listening = True
        return self

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self.listening = False
        leave(self._client)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        qos: int = 1,
        wait_s: float = WAIT_S,
        **properties: object,
    ) -> None:
        """Send, and return when the broker has it. Properties by paho's names, for MQTT 5."""
        packed = None
        if properties:
            packed = Properties(PacketTypes.PUBLISH)
            for key, value in properties.items():
                setattr(packed, key, value)
        sent = self._client.publish(topic, payload, qos=qos, retain=retain, properties=packed)
        sent.wait_for_publish(wait_s)
        assert sent.is_published(), f"the broker did not take {topic}"

    def clear(self, topic: str) -> None:
        """Take a retained message away from the broker."""
        self.publish(topic, b"", retain=True)

    def wait(self, look: Callable[[], Found | None], timeout_s: float = WAIT_S) -> Found:
        """Wait until `look` returns something; it is called again after every message."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while not (found := look()):
                left = end - time.monotonic()
                assert left > 0, TIMED_OUT.format(
                    timeout_s, len(self.heard), [(h.topic, h.payload[:200]) for h in self.heard[-5:]]
                )
                self._changed.wait(left)
            return found

    def wait_for(
        self,
        topic: str,
        test: Callable[[Heard], object] = lambda _: True,
        *,
        since: int = 0,
        timeout_s: float = WAIT_S,
    ) -> Heard:
        """The first message on a topic with this end, from index `since` of `heard` on, that passes `test`."""
        return self.wait(
            lambda: next((h for h in self.heard[since:] if h.topic.endswith(topic) and test(h)), None),
            timeout_s,
        )

    @property
    def mark(self) -> int:
        """Where `heard` ends now: for `since`."""
        with self._changed:
            return len(self.heard)

    # paho's thread --------------------------------------------------------------------------------------

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(
        self, _client: paho.Client, _userdata: object, _mid: int, reasons: list[ReasonCode], *_: object
    ) -> None:
        if not any(reason.is_failure for reason in reasons):
            self._subscribed.set()

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        packed = message.properties
        properties = {} if packed is None else cast("dict[str, Any]", packed.json())
        if packed is not None and hasattr(packed, "CorrelationData"):
            properties["CorrelationData"] = packed.CorrelationData
        heard = Heard(
            message.topic,
            bytes(message.payload),
            message.retain,
            message.qos,
            time.monotonic(),
            properties,
        )
        with self._changed:
            self.heard.append(heard)
            self._changed.notify_all()


@dataclass(slots=True)
class Answer:
    """All replies to one question, in the order in which they came."""

    id: str
    replies: list[dict[str, Any]] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        """The terminal message."""
        return next(reply for reply in self.replies if reply["type"] in TERMINAL)

    @property
    def text(self) -> str:
        """Text of the terminal message."""
        return str(self.last["text"])

    @property
    def terminals(self) -> list[dict[str, Any]]:
        """Terminal messages; there should be one."""
        return [reply for reply in self.replies if reply["type"] in TERMINAL]

    @property
    def attempts(self) -> list[list[dict[str, Any]]]:
        """The replies by attempt, each in the order of `seq`: a `seq` that was there begins a new one."""
        attempts: list[list[dict[str, Any]]] = [[]]
        for reply in self.replies:
            if any(reply["seq"] == other["seq"] for other in attempts[-1]):
                attempts.append([])
            attempts[-1].append(reply)
        return [sorted(attempt, key=lambda reply: int(reply["seq"])) for attempt in attempts]

    def deltas(self, kind: str = "delta") -> str:
        """Text of the last attempt's deltas, joined."""
        return "".join(reply["text"] for reply in self.attempts[-1] if reply["type"] == kind)

    def check(self, *, stream: bool = True) -> Self:
        """What the contract promises of every answered question."""
        assert len(self.terminals) == 1, f"{self.id}: {self.terminals}"
        final = self.attempts[-1]
        assert [reply["seq"] for reply in final] == list(range(len(final))), f"{self.id}: {final}"
        assert final[-1]["type"] in TERMINAL, f"{self.id}: something came after the end: {final}"
        assert all(reply["id"] == self.id for reply in self.replies)
        if final[-1]["type"] != "error":
            assert final[0]["type"] == "accepted", f"{self.id}: {final}"
            if stream:
                assert self.deltas() == self.text, self.id
            else:
                assert [reply["type"] for reply in final[1:-1]] == [], self.id
        return self


class Device(Listener):
    """A device: asks, steers, collects.

    Args:
        host, port: the broker.
        name: the client of the contract's topics, and the MQTT client id.
        node: whom it asks.
        prefix: `P` of the contract.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        *,
        node: str = "n1",
        prefix: str = "edged",
        version: int = 5,
        persistent: bool = False,
        extra_topics: tuple[str, ...] = (),
    ) -> None:
        own = f"{prefix}/v1/client/{name}/#"
        super().__init__(
            host, port, (own, *extra_topics), name=f"dev-{name}", version=version, persistent=persistent
        )
        self.name = name
        self.ask_topic = f"{prefix}/v1/node/{node}/ask/{name}"
        self.control_topic = f"{prefix}/v1/node/{node}/control/{name}"
        self._numbers = itertools.count(1)

    def ask(
        self, prompt: str | None = None, *, properties: dict[str, Any] | None = None, **fields: Any
    ) -> str:
        """Ask in JSON; returns the id. `fields` are the contract's."""
        asked = {"id": f"{self.name}-{next(self._numbers)}", **fields}
        if prompt is not None:
            asked["prompt"] = prompt
        self.publish(self.ask_topic, json.dumps(asked).encode(), **(properties or {}))
        return str(asked["id"])

    def ask_text(self, prompt: str, **properties: Any) -> None:
        """Ask in plain text."""
        self.publish(self.ask_topic, prompt.encode(), **properties)

    def control(self, op: str, job_id: str, **fields: Any) -> None:
        """Steer a question."""
        self.publish(self.control_topic, json.dumps({"op": op, "id": job_id, **fields}).encode())

    def answers(self) -> dict[str, Answer]:
        """Everything that was answered, by id, in whatever state."""
        with self._changed:
            heard = list(self.heard)
        answers: dict[str, Answer] = {}
        for message in heard:
            if message.payload.startswith(b"{"):
                reply = message.json
                if "id" not in reply:  # news of the node, for those who listen to that too
                    continue
                answer = answers.setdefault(reply["id"], Answer(reply["id"]))
                answer.heard.append(message)
                if reply["type"] != "status":
                    answer.replies.append(reply)
        return answers

    def answer(self, job_id: str, timeout_s: float = WAIT_S) -> Answer:
        """The answer to a question, once its terminal message is there."""
        self.wait_reply(job_id, *TERMINAL, timeout_s=timeout_s)
        return self.answers()[job_id]

    def wait_reply(
        self, job_id: str, *kinds: str, count: int = 1, timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """The `count`th reply of one of these types."""

        def look() -> dict[str, Any] | None:
            mine = [h for h in self.heard if h.payload.startswith(b"{")]
            found = [m for m in (h.json for h in mine) if m.get("id") == job_id and m["type"] in kinds]
            return found[count - 1] if len(found) >= count else None

        return self.wait(look, timeout_s)

    def texts(self) -> list[str]:
        """The answers that came as plain text."""
        with self._changed:
            return [h.payload.decode() for h in self.heard if h.topic.endswith(f"/client/{self.name}/text")]


class MakeDevice(Protocol):
    """Makes connected devices; the fixture `device`. The options are those of `Device`."""

    def __call__(self, broker: Mosquitto, name: str, **options: Any) -> Device:
        """A device that is connected and subscribed."""
