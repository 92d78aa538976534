"""The exchange: replies for devices go to the broker, those for clients over HTTP to the mailbox that waits.

It stands where the desk and the outbox expect the broker's line, so neither knows of HTTP. `publish` and
`acknowledge` belong to the dispatcher thread; mailboxes are opened and closed by the HTTP thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edged.core import reply
from edged.core.link import Delivered, Delivery, Outgoing
from edged.errors import Refusal
from edged.node.outbox import Line

GOING = Refusal(
    "interrupted", "this node went down before the answer was complete; ask again", retry_after_ms=5000
)


class Mailbox(Protocol):
    """Who waits for the replies to one question."""

    def put(self, payload: bytes, *, droppable: bool) -> None:
        """Take a reply; must not block. What is droppable may be lost: the terminal message repeats it."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A line with an inside.

    Attributes:
        line: the broker's.
        is_inside: tells the topics that stay in this process.
        emit: the node's inbox: an inside message with a token counts as delivered at once, also if nobody waits
            for it any more, for then it is owed to nobody.
    """

    line: Line
    is_inside: Callable[[str], bool]
    emit: Callable[[Delivered], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _boxes: dict[str, list[Mailbox]] = field(default_factory=dict)
    _ended: bool = False

    # dispatcher thread ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us in."""
        return self.line.connected

    def publish(self, message: Outgoing) -> None:
        """Send a message to where it belongs."""
        if not self.is_inside(message.topic):
            self.line.publish(message)
            return
        with self._lock:
            boxes = list(self._boxes.get(message.topic, ()))
        for box in boxes:
            box.put(message.payload, droppable=message.qos == 0)
        if message.token is not None:
            self.emit(Delivered(message.token))

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that we have a message of its own."""
        if delivery.connection:
            self.line.acknowledge(delivery)

    def end(self) -> None:
        """Nothing more is published: who waits hears so, and who comes. A question that has a name runs again."""
        with self._lock:
            self._ended = True
            waiting = [(topic, box) for topic, boxes in self._boxes.items() for box in boxes]
        for topic, box in waiting:
            _tell_end(topic, box)

    # any thread -----------------------------------------------------------------------------------------

    def open(self, topic: str, box: Mailbox) -> None:
        """From now on `box` gets what is published to `topic`, an inside one; several may."""
        with self._lock:
            self._boxes.setdefault(topic, []).append(box)
            ended = self._ended
        if ended:
            _tell_end(topic, box)

    def close(self, topic: str, box: Mailbox) -> None:
        """Nobody reads `box` any more."""
        with self._lock:
            boxes = self._boxes.get(topic, [])
            if box in boxes:
                boxes.remove(box)
            if not boxes:
                self._boxes.pop(topic, None)


def _tell_end(topic: str, box: Mailbox) -> None:
    job_id = topic.rpartition("/")[2]
    box.put(reply.encode(reply.failed(job_id, 0, GOING)), droppable=False)
