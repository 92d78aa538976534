"""Messages that must arrive: terminal messages until the broker has them, refusals until their question is acked.

Belongs to the dispatcher thread. A terminal message stands in the journal before it comes here and is cleared
there when the broker has acknowledged it; a refusal stands nowhere, so its question is acknowledged only after
it: if the connection breaks in between, the broker sends the question again and it is refused again. Where the
broker cannot, as it has lost our session or the question was of QoS 0, the refusal is sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import structlog

from edged.core import link_advice, reply
from edged.core.link import JSON, Delivered, Delivery, Outgoing, Undelivered
from edged.core.records import Publish

UNHEARD_MAX = 256
"""Refusals of questions with QoS 0 that may be under way: nothing else bounds how many of these come, and a refusal
each would keep everything else from the broker."""
WINDOW = 64
"""Terminal messages under way at once; the rest wait here, in order, as the journal has them anyway."""

log = structlog.get_logger()


class Line(Protocol):
    """The broker connection, as far as the node needs it."""

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us in."""

    def publish(self, message: Outgoing) -> None:
        """Send a message."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that we have a message."""


class Clears(Protocol):
    """The journal, as far as the outbox needs it."""

    def clear(self, outbox_id: int) -> None:
        """Forget a message that the broker has acknowledged."""


@dataclass(frozen=True, slots=True)
class Owed:
    """Token of a terminal message."""

    outbox_id: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Token of a refusal, with itself and the question's delivery."""

    refusal: Outgoing
    delivery: Delivery


class Outbox:
    """What is owed to the broker, and to clients over HTTP while they listen.

    Args:
        line: where messages go.
        journal: forgets what was delivered.
        is_inside: tells a topic of this process, for which no broker is needed.
    """

    def __init__(
        self, line: Line, journal: Clears, is_inside: Callable[[str], bool] = lambda _topic: False
    ) -> None:
        self._line = line
        self._journal = journal
        self._is_inside = is_inside
        self._waiting: deque[tuple[int, Publish]] = deque()
        self._came_back = 0  # the first of those that wait, since any was handed over last
        self._under_way: dict[int, Publish] = {}
        self._known: dict[int, Publish] = {}
        self._elsewhere: dict[int, Publish] = {}
        self._turned_back: list[Answered] = []
        self._unheard = 0

    def __len__(self) -> int:
        return len(self._known)

    def owe(self, entries: tuple[tuple[int, Publish], ...]) -> None:
        """Take on messages that the journal keeps; one that is under way already is not taken twice.

        One that is under way to where its device, which asked again, does not listen any more goes out once more.
        """
        for outbox_id, publish in entries:
            known = self._known.get(outbox_id)
            self._known[outbox_id] = publish
            if known is not None:
                if (known.topic, known.properties) != (publish.topic, publish.properties):
                    self._elsewhere[outbox_id] = publish
            elif self._is_inside(publish.topic):  # it waits for no broker
                self._hand_over(outbox_id, publish)
            else:
                self._waiting.append((outbox_id, publish))
        self.send()

    def refuse(self, message: Outgoing, delivery: Delivery) -> bool:
        """Send a refusal; its question is acknowledged when the broker has it.

        False where it is not sent, which is for questions with QoS 0 that come too fast.
        """
        if is_unbounded(delivery):
            if self._unheard >= UNHEARD_MAX:
                return False
            self._unheard += 1
        self._line.publish(replace(message, token=Answered(message, delivery)))
        return True

    def give(self, answer: Sequence[Publish], delivery: Delivery) -> bool:
        """Send an answer that the journal has and cannot owe just now, as `refuse` sends a refusal."""
        if not self.refuse(_outgoing(answer[0]), delivery):
            return False
        for publish in answer[1:]:
            self._line.publish(_outgoing(publish))
        return True

    def connected(self, *, session_present: bool) -> None:
        """A new connection: hand over what waits; `session_present`: the broker has kept our session."""
        turned_back, self._turned_back = self._turned_back, []
        for answered in turned_back:
            self._unheard -= is_unbounded(answered.delivery)
            if not session_present or not answered.delivery.qos:
                self.refuse(answered.refusal, answered.delivery)
        self.send()

    def send(self) -> None:
        """Hand over what the window has room for."""
        while self._waiting and self._line.connected and len(self._under_way) < WINDOW:
            self._hand_over(*self._waiting.popleft())
            self._came_back = 0

    def _hand_over(self, outbox_id: int, publish: Publish) -> None:
        self._under_way[outbox_id] = publish
        self._line.publish(replace(_outgoing(publish), token=Owed(outbox_id)))

    def delivered_one(self, event: Delivered) -> None:
        """The broker has answered."""
        match event.token:
            case Answered(_, delivery):
                self._unheard -= is_unbounded(delivery)
                self._line.acknowledge(delivery)
            case Owed(outbox_id):
                publish = self._under_way.pop(outbox_id, None)
                if event.refused is not None and publish is not None:
                    reason = link_advice.on_reply(event.refused)
                    log.warning("reply_refused_by_broker", topic=publish.topic, reason=reason)
                    error = _error_for(publish, event.refused)
                    if error is not None:  # its device shall not wait for ever
                        self._hand_over(outbox_id, error)
                        return
                elsewhere = self._elsewhere.pop(outbox_id, None)
                if elsewhere is not None:
                    self._hand_over(outbox_id, elsewhere)
                    return
                self._known.pop(outbox_id, None)
                self._journal.clear(outbox_id)
                log.debug("answer_delivered", outbox_id=outbox_id)
                self.send()

    def undelivered_one(self, event: Undelivered) -> None:
        """It was not handed over: try again with the next connection."""
        match event.token:
            case Answered():
                self._turned_back.append(event.token)
            case Owed(outbox_id):
                publish = self._under_way.pop(outbox_id, None)
                if publish is not None:
                    self._waiting.insert(self._came_back, (outbox_id, publish))
                    self._came_back += 1


def is_unbounded(delivery: Delivery) -> bool:
    """Whether the broker sends such questions without an end: those over HTTP have bounds of their own."""
    return delivery.connection > 0 and not delivery.qos


def _outgoing(publish: Publish) -> Outgoing:
    return Outgoing(
        topic=publish.topic,
        payload=publish.payload,
        qos=1,
        correlation=publish.properties.get("correlation"),
        content_type=publish.properties.get("content_type"),
    )


def _error_for(publish: Publish, why: str) -> Publish | None:
    """What its device is told where the broker does not take an answer; None for plain text, and for an error."""
    if publish.properties.get("content_type") != JSON:
        return None
    payload = reply.in_place_of(publish.payload, why)
    return None if payload is None else msgspec.structs.replace(publish, payload=payload)
