"""Bursts of odd questions and control messages from a few devices at once, and what became of each.

Each burst has devices of its own, so that a reply that finds its device is known as one of this burst, whatever the
node made of ids and Correlation Data.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import paho.mqtt.client as paho
from broker import Mosquitto
from device import TERMINAL, hear, leave
from hypothesis import strategies as st
from odd_questions import TEXT, Sent, packed, properties, questions

from edged.core import control
from edged.errors import Refusal

DEVICES = 3
PATIENCE_S = 30.0
POOL = "odd"
SHARED = "again"
"""The id that several questions of a device have."""
Kind = Literal["own", "shared", "unnamed", "order"]
OPS = ("cancel", "resume", "end_reasoning", "status", "forget", "reboot")


@dataclass(frozen=True)
class Step:
    """One message of a burst.

    Attributes:
        client: which of the devices sends it.
        message: what it asks, or a control message.
        kind: an `order`, or a question with an id of its `own`, with one that others have (`shared`), or `unnamed`.
        marked: a question has Correlation Data.
        how: `node`, `pool`, `qos0`, `qos2`, `retained`, `nobody` (from no legal client).
    """

    client: int
    message: Sent
    kind: Kind
    marked: bool = False
    how: str = "node"


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A question, or in one case of five a control message about one."""
    client = draw(st.integers(0, DEVICES - 1))
    if draw(st.integers(0, 4)) == 2:
        order = {
            "op": draw(st.sampled_from(OPS)),
            "id": draw(st.sampled_from((SHARED, "0", "1", "2", "3", "4", "x" * 128, "", "a/b"))),
            "session": draw(st.sampled_from(("s", "s:2", "\ufeff"))),
            "from_seq": draw(st.sampled_from((0, 1, -1, 10**30))),
            "odd": draw(TEXT),
        }
        given = draw(st.one_of(st.just({}), properties()))
        return Step(client, Sent(None, json.dumps(order).encode(), properties=given), "order")
    asked = draw(questions())
    kind: Kind = draw(st.sampled_from(("own", "own", "shared", "unnamed")))
    if kind == "shared":  # as an object, so that the id is read
        asked = replace(asked, fields=asked.fields or {"prompt": "hot?"}, properties={})
    how = draw(st.sampled_from(("node",) * 9 + ("pool", "qos0", "qos2", "retained", "nobody")))
    return Step(client, asked, kind, draw(st.booleans()), how)


class Crowd:
    """Devices with one connection; keeps the terminal messages of each by the id that they name."""

    def __init__(self, broker: Mosquitto) -> None:
        self.asked: dict[str, Counter[str]] = {}
        self.ends: dict[str, Counter[str]] = {}
        self.codes: Counter[str] = Counter()
        self.marks_asked: set[str] = set()
        self._marks: set[str] = set()
        self._accepted: set[str] = set()
        self._changed = threading.Condition()
        self._client = hear(broker, "crowd", "edged/v1/client/#", self._on_message)

    def play(self, burst: list[Step], number: int) -> Counter[str]:
        """Send all of a burst; returns what will be counted and not answered."""
        counted: Counter[str] = Counter()
        for index, step in enumerate(burst):
            name = f"c{number}-{step.client}"
            if step.kind == "order":
                counted["dropped"] += not _is_order(step.message.payload)
                self._publish(f"edged/v1/node/n1/control/{name}", step.message.of(name, b""))
                continue
            fields = {"own": {"id": str(index)}, "shared": {"id": SHARED}}.get(step.kind, {})
            mark = f"{number}.{index}"
            asked = step.message.of(name, f"{mark}:".encode() if step.marked else None, **fields)
            topic = f"edged/v1/{f'pool/{POOL}' if step.how == 'pool' else 'node/n1'}/ask/{name}"
            if step.how == "nobody":
                counted["dropped"] += 1
                topic += "$"
            elif step.how == "retained":
                counted["retained_ignored"] += 1
            else:
                self.asked.setdefault(name, Counter())["shared" if step.kind == "shared" else "own"] += 1
                self.marks_asked |= {mark} if step.marked else set()
            qos = {"qos0": 0, "qos2": 2}.get(step.how, 1)
            self._publish(topic, asked, qos=qos, retain=step.how == "retained")
        return counted

    def wait(self, number: int) -> None:
        """Wait until all of a burst is answered."""
        names = [f"c{number}-{client}" for client in range(DEVICES)]
        with self._changed:
            ended = self._changed.wait_for(lambda: all(map(self._ended, names)), PATIENCE_S)
            assert ended, [(self.asked.get(name), self.ends.get(name)) for name in names]

    def wait_accepted(self, number: int) -> None:
        """Wait until a question of a burst is known to stand in the journal."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._of(number, self._accepted), PATIENCE_S)

    def wait_marks(self, number: int) -> None:
        """Wait until all of a burst that have Correlation Data have ended, at least once."""
        wanted = self._of(number, self.marks_asked)
        with self._changed:
            assert self._changed.wait_for(lambda: wanted <= self._marks, PATIENCE_S), wanted - self._marks

    def _of(self, number: int, marks: set[str]) -> set[str]:
        return {mark for mark in marks if mark.startswith(f"{number}.")}

    def _ended(self, name: str) -> bool:
        asked, ends = self.asked.get(name, Counter()), self.ends.get(name, Counter())
        return ends.total() - ends[SHARED] >= asked["own"] and bool(ends[SHARED]) == bool(asked["shared"])

    def check_once(self) -> None:
        """No question has ended twice; those that share an id have ended together or one by one."""
        for name, asked in self.asked.items():
            ends = self.ends[name]
            assert ends.total() - ends[SHARED] == asked["own"], (name, asked, ends)
            assert ends[SHARED] <= asked["shared"], (name, asked, ends)

    def close(self) -> None:
        """Disconnect."""
        leave(self._client)

    def _publish(self, topic: str, sent: Sent, *, qos: int = 1, retain: bool = False) -> None:
        self._client.publish(topic, sent.payload, qos, retain, packed(sent.properties))

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if not message.payload.startswith(b'{"type":'):
            return
        reply = json.loads(message.payload)
        data: bytes = vars(message.properties).get("CorrelationData", b"")
        client, mark = message.topic.split("/")[3], data.partition(b":")[0].decode(errors="replace")
        with self._changed:
            if reply["type"] == "accepted":
                self._accepted.add(mark)
            elif reply["type"] in TERMINAL:
                self._marks.add(mark)
                self.ends.setdefault(client, Counter())[reply["id"]] += 1
                self.codes[reply.get("code", reply["type"])] += 1
            self._changed.notify_all()


def _is_order(payload: bytes) -> bool:
    try:
        control.parse(payload)
    except Refusal:
        return False
    return True
