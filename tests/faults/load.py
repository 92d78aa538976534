"""Devices that ask under load, and the ledger that proves at the end what became of every question.

Each device has its own client id, a persistent session and QoS 1 both ways, and a bounded number of open
questions. One thread asks; paho's threads fill the ledger. Nothing here knows how a fault is made.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import paho.mqtt.client as paho
from broker import Mosquitto
from device import leave
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

TERMINAL = frozenset({b"done", b"error", b"cancelled"})
SETTLE_S = 60.0
NO_SUBSCRIBERS = 0x10
"""Reason of a PUBACK for what nobody gets (MQTT 5, 3.4.2.1): a node that was never there is promised nothing."""


@dataclass(slots=True)
class Entry:
    """One question in the ledger; times are monotonic seconds.

    Attributes:
        words: how many words the whole answer has.
        terminals: each distinct payload of a terminal message, and how often it came.
        accepted: `eta_ms` and time of the first `accepted`.
    """

    device: str
    id: str
    words: int
    asked_s: float
    acked_s: float | None = None
    ended_s: float | None = None
    terminals: Counter[bytes] = field(default_factory=Counter)
    accepted: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the questions.

    Attributes:
        asked, acknowledged: questions that were published, and those of them that have a PUBACK.
        lost: ids of acknowledged questions without a terminal message.
        silent: ids without a PUBACK and without a terminal message.
        torn: ids with two different terminal messages, or with half an answer.
        kinds: `done`, or the code of an error, and how many questions ended so.
        attempts: questions by the attempt that answered them.
    """

    asked: int
    acknowledged: int
    lost: list[str]
    silent: list[str]
    torn: list[str]
    kinds: Counter[str]
    attempts: Counter[int]

    def check(self, *allowed: str) -> Self:
        """Fail unless every question ended, once, with `done` or one of the error codes `allowed`.

        One without a PUBACK may end as well: the broker passed it on and was killed before it acknowledged, and
        sent again it met a wiped broker to which the node had not come back (reason 16).
        """
        assert self.lost == [], f"{len(self.lost)} of {self.acknowledged} lost: {self.lost[:10]}"
        assert self.torn == [], f"{len(self.torn)} ended twice or in half: {self.torn[:10]}"
        assert self.silent == [], f"neither acknowledged nor answered: {self.silent[:10]}"
        assert set(self.kinds) <= {"done", *allowed}, self.kinds
        assert self.kinds["done"], "nothing was answered: nothing was tested"
        return self


class Asker:
    """One device: an MQTT 5 client whose session survives its connections."""

    def __init__(
        self, address: tuple[str, int], name: str, node: str, load: Load, tls: ssl.SSLContext | None
    ) -> None:
        self.name = name
        self.open = 0
        self.sent: dict[int, Entry] = {}
        self.early: set[int] = set()
        self.topic = f"edged/v1/node/{node}/ask/{name}"
        self._load = load
        self._address = address
        self._ready = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5
        )
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.max_inflight_messages_set(200)
        # seconds: paho's types say whole ones, its code takes any
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_publish = self._on_publish
        self._client.on_message = lambda _client, _data, message: load.heard(self, bytes(message.payload))

    def start(self) -> None:
        """Connect, and return when subscribed."""
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self._client.connect(*self._address, keepalive=20, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._ready.wait(20), "the broker does not answer"

    def publish(self, payload: bytes) -> int:
        """Send; without a connection paho keeps it and sends it with the next one. Returns the packet's id."""
        return self._client.publish(self.topic, payload, qos=1).mid

    def stop(self) -> None:
        """Disconnect and end the thread."""
        leave(self._client)

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe(f"edged/v1/client/{self.name}/#", qos=1)

    def _on_publish(
        self, _client: paho.Client, _userdata: object, mid: int, reason: ReasonCode, *_: object
    ) -> None:
        if reason.value != NO_SUBSCRIBERS:
            self._load.acknowledged(self, mid)


class Load:
    """A crowd of devices with the same manners.

    Args:
        host, port: the broker.
        node: whom they ask.
        name: start of their client names.
        devices: how many.
        open_each: questions that one may have open; the sum should fit the node's bounds.
        rate_per_s: questions a second of all together; None for as many as fit.
        words: how many words an answer has, drawn anew for each question.
        prompt: from number of words to the prompt, for the scripted engine by default.
        fields: further fields of every question.
        tls: what is demanded of the broker; None for plain text.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        node: str = "n1",
        name: str = "dev",
        devices: int = 4,
        open_each: int = 4,
        rate_per_s: float | None = 60.0,
        words: tuple[int, int] = (1, 6),
        prompt: Callable[[int], str] = lambda words: f"tokens={words} step_ms=2",
        fields: dict[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.ledger: dict[str, Entry] = {}
        self._askers = [Asker((host, port), f"{name}{i}", node, self, tls) for i in range(devices)]
        self._open_each = open_each
        self._pause_s = 0.0 if rate_per_s is None else 1.0 / rate_per_s
        self._words, self._prompt, self._fields = words, prompt, fields or {}
        self._rng = random.Random(5)  # noqa: S311 - sizes, not secrets
        self._changed = threading.Condition()
        self._asking = False
        self._limit: int | None = None
        self._thread = threading.Thread(target=self._ask_on, name="asking", daemon=True)

    def start(self, limit: int | None = None) -> Self:
        """Connect and begin to ask; after `limit` questions it is enough."""
        for asker in self._askers:
            asker.start()
        self._limit, self._asking = limit, True
        self._thread.start()
        return self

    def stop_asking(self) -> None:
        """No new questions from here on."""
        with self._changed:
            self._asking = False
            self._changed.notify_all()
        self._thread.join(10)

    def settle(self, timeout_s: float = SETTLE_S) -> Verdict:
        """Stop asking, wait until all is acknowledged and answered, or until nothing more comes; then judge."""
        self.stop_asking()
        self.wait(lambda: not self.unended(), timeout_s)
        time.sleep(0.1)  # a second, different ending would come about now
        return self.verdict()

    def close(self) -> None:
        """End all threads."""
        self.stop_asking()
        for asker in self._askers:
            asker.stop()

    def wait(self, test: Callable[[], object], timeout_s: float = SETTLE_S) -> bool:
        """Wait until `test` holds; it is looked at after every message. True if it came to hold."""
        with self._changed:
            return bool(self._changed.wait_for(test, timeout_s))

    def wait_ended(self, count: int, timeout_s: float = SETTLE_S) -> None:
        """Wait until so many questions have a terminal message."""
        assert self.wait(lambda: self.ended() >= count, timeout_s), f"{self.ended()} of {count} ended"

    def ended(self) -> int:
        """Questions with a terminal message."""
        return sum(bool(entry.terminals) for entry in list(self.ledger.values()))

    def exposed(self) -> int:
        """Questions that are under way at this moment: what a fault can hurt."""
        return len(self.unended())

    def unended(self) -> list[Entry]:
        """Questions without one."""
        return [entry for entry in list(self.ledger.values()) if not entry.terminals]

    def ask_again(self) -> int:
        """Publish all questions without a terminal message once more, as devices do; returns how many."""
        entries = self.unended()
        askers = {asker.name: asker for asker in self._askers}
        for entry in entries:
            asker = askers[entry.device]
            self._published(asker, asker.publish(self._payload(entry.id, entry.words)), entry)
        return len(entries)

    def verdict(self) -> Verdict:
        """Judge the ledger as it stands."""
        with self._changed:
            kinds: Counter[str] = Counter()
            attempts: Counter[int] = Counter()
            lost: list[str] = []
            silent: list[str] = []
            torn: list[str] = []
            for entry in self.ledger.values():
                ends = [json.loads(payload) for payload in entry.terminals]
                if not ends:
                    (silent if entry.acked_s is None else lost).append(entry.id)
                if len(ends) > 1 or any(not _is_whole(end, entry.words) for end in ends):
                    torn.append(entry.id)
                kinds.update(end.get("code", end["type"]) for end in ends[:1])
                attempts.update(end["attempt"] for end in ends[:1] if "attempt" in end)
            return Verdict(
                asked=len(self.ledger),
                acknowledged=sum(entry.acked_s is not None for entry in self.ledger.values()),
                lost=lost,
                silent=silent,
                torn=torn,
                kinds=kinds,
                attempts=attempts,
            )

    # the asking thread ----------------------------------------------------------------------------------

    def _ask_on(self) -> None:
        number = 0
        due_s = time.monotonic()
        while True:
            with self._changed:
                while self._asking and (asker := self._idle()) is None:
                    self._changed.wait(0.5)
                if not self._asking or asker is None or number == self._limit:
                    return
                number += 1
                entry = Entry(
                    asker.name, f"{asker.name}:{number}", self._rng.randint(*self._words), time.monotonic()
                )
                self.ledger[entry.id] = entry
                asker.open += 1
            # Not under the lock: paho holds one of its own here, and in its callbacks.
            self._published(asker, asker.publish(self._payload(entry.id, entry.words)), entry)
            due_s = max(due_s + self._pause_s, time.monotonic() - 1.0)
            if due_s > time.monotonic():
                time.sleep(due_s - time.monotonic())

    def _published(self, asker: Asker, mid: int, entry: Entry) -> None:
        with self._changed:
            if mid in asker.early:
                asker.early.discard(mid)
                entry.acked_s = entry.acked_s or time.monotonic()
            else:
                asker.sent[mid] = entry

    def _payload(self, job_id: str, words: int) -> bytes:
        return json.dumps({"id": job_id, "prompt": self._prompt(words), **self._fields}).encode()

    def _idle(self) -> Asker | None:
        least = min(self._askers, key=lambda asker: asker.open)
        return least if least.open < self._open_each else None

    # paho's threads -------------------------------------------------------------------------------------

    def acknowledged(self, asker: Asker, mid: int) -> None:
        """The broker has taken a question."""
        with self._changed:
            entry = asker.sent.pop(mid, None)
            if entry is None:
                asker.early.add(mid)  # faster than `publish` could tell its packet's id
            else:
                entry.acked_s = entry.acked_s or time.monotonic()

    def heard(self, asker: Asker, payload: bytes) -> None:
        """A reply has come."""
        kind = payload[9 : payload.index(b'"', 9)]  # every reply begins with {"type":"
        if kind not in TERMINAL and kind != b"accepted":
            return
        reply = json.loads(payload)
        with self._changed:
            entry = self.ledger[reply["id"]]
            if kind == b"accepted":
                entry.accepted = entry.accepted or (reply["eta_ms"], time.monotonic())
                return
            if not entry.terminals:
                entry.ended_s = time.monotonic()
                asker.open -= 1
            entry.terminals[payload] += 1
            self._changed.notify_all()


class MakeLoad(Protocol):
    """Makes crowds; the fixture `load`. The options are those of `Load`."""

    def __call__(self, broker: Mosquitto, **options: Any) -> Load:
        """A crowd that has not started."""


def _is_whole(end: dict[str, Any], words: int) -> bool:
    """An answer of the scripted engine has all its words; of another ending nothing is asked."""
    if end["type"] != "done" or end["model"] != "scripted":
        return True
    return bool(end["text"] == "".join(f"w{i} " for i in range(words)))
