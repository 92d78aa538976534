"""Whether this node takes its share of the pools' questions just now. Belongs to the dispatcher thread.

The broker deals a pool's questions to whoever has the pool's shared subscription (MQTT 5, 4.8.2), one after the
other and without asking. So a node that is hot, draining, full or without a model gives the subscription up, and
is out when the broker has acknowledged that: nothing more is dealt to it. What was dealt to it before is its own
to answer or to refuse, also when it arrives later. There is no coordinator: each node looks at itself only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import structlog

from edged.core.link import Subscribed, Unsubscribed
from edged.core.topics import Topics

LOADING = "loading"
"""Stands until the engine is ready: a node that cannot answer would draw the questions of those that can."""
FULL = "full"
FULL_AT, ROOM_AT = 7 / 8, 1 / 2
"""Shares of the queue's bound at which `full` begins and ends. The eighth is for what is under way while the
node leaves, and for its own devices; the distance keeps it from going in and out with every question."""

Standing = Literal["in", "joining", "leaving", "out", "refused"]

log = structlog.get_logger()


class Subscribes(Protocol):
    """The broker connection, as far as membership needs it."""

    def subscribe(self, topic: str) -> None:
        """Listen to a filter; `Subscribed` follows."""

    def unsubscribe(self, topic: str) -> None:
        """Give a filter up; `Unsubscribed` follows."""


class Membership:
    """In the pools while no reason stands against it.

    Args:
        topics: for the filters.
        line: the broker connection.
        pools: names of the pools, from the settings.
        tell: publishes an event, with fields.
    """

    def __init__(
        self, topics: Topics, line: Subscribes, pools: Iterable[str], tell: Callable[..., None]
    ) -> None:
        self._topics = topics
        self._line = line
        self._tell = tell
        self._reasons: dict[str, None] = {}
        self._standing: dict[str, Standing] = {}
        self._given_up: set[str] = set()
        self._told: list[str] = []
        self.leave(LOADING)
        self.set_pools(pools)

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that this node belongs to, in or out."""
        return tuple(self._standing)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is out, the oldest first; empty when it is in."""
        return tuple(self._reasons)

    @property
    def out(self) -> bool:
        """Whether the broker deals nothing to this node any more: each pool has been left, and that is certain."""
        return bool(self._reasons) and all(at in {"out", "refused"} for at in self._standing.values())

    def leave(self, reason: str) -> None:
        """Leave the pools, for a reason such as `hot`; nothing happens where it stands already."""
        if reason in self._reasons:
            return
        self._reasons[reason] = None
        if len(self._reasons) == 1:
            for pool in self._standing:
                self._give_up(pool)

    def rejoin(self, reason: str) -> None:
        """This reason is over; when it was the last one the node is in the pools again."""
        if reason not in self._reasons:
            return
        del self._reasons[reason]
        if not self._reasons:
            for pool in self._standing:
                self._join(pool)

    def look(self, filling: float) -> None:
        """Leave when the queue fills up and come back when it has room; `filling` is its share of the bound."""
        if filling >= FULL_AT:
            self.leave(FULL)
        elif filling <= ROOM_AT:
            self.rejoin(FULL)

    def set_pools(self, pools: Iterable[str]) -> None:
        """Belong to these pools from now on."""
        wanted = tuple(dict.fromkeys(pools))
        for pool in [pool for pool in self._standing if pool not in wanted]:
            self._line.unsubscribe(self._topics.pool(pool))
            del self._standing[pool]
        for pool in wanted:
            if pool not in self._standing:
                if self._reasons:
                    self._give_up(pool)
                else:
                    self._join(pool)
        self._tell_change()

    def dealt(self, pool: str) -> None:
        """A question of this pool came.

        Where the settings have us in no such pool, the broker remembers it from an earlier life of this node.
        """
        if pool not in self._standing and pool not in self._given_up:
            self._given_up.add(pool)
            log.info("foreign_pool_left", pool=pool)
            self._line.unsubscribe(self._topics.pool(pool))

    # the broker's side ----------------------------------------------------------------------------------

    def subscribed(self, event: Subscribed) -> bool:
        """The broker has answered; True when that changed where we stand."""
        pool = self._pool_of(event.topic)
        if pool is None or self._reasons:
            return False
        before = self._standing[pool]
        self._standing[pool] = "in" if event.refused is None else "refused"
        if event.refused is not None and before != "refused":
            log.error("pool_refused", pool=pool, reason=event.refused)
        self._tell_change()
        return self._standing[pool] != before

    def unsubscribed(self, event: Unsubscribed) -> bool:
        """The broker deals us nothing more; True when that changed where we stand."""
        pool = self._pool_of(event.topic)
        if pool is None or not self._reasons:
            return False
        before = self._standing[pool]
        self._standing[pool] = "out"
        self._tell_change()
        return before != "out"

    def disconnected(self) -> None:
        """Nothing is certain until the broker of the next connection has said it."""
        for pool, standing in self._standing.items():
            if standing == "in":
                self._standing[pool] = "joining"
            elif standing == "out":
                self._standing[pool] = "leaving"

    def as_json(self) -> dict[str, Any]:
        """What info and health say of it."""
        told: dict[str, Any] = {
            "in": [pool for pool, standing in self._standing.items() if standing == "in"],
            "out": [pool for pool, standing in self._standing.items() if standing != "in"],
        }
        if self._reasons:
            told["reasons"] = list(self._reasons)
        return told

    def _join(self, pool: str) -> None:
        self._standing[pool] = "joining"
        self._given_up.discard(pool)
        self._line.subscribe(self._topics.pool(pool))

    def _give_up(self, pool: str) -> None:
        # Also where we never were in: the broker may remember it from an earlier life of this node.
        self._standing[pool] = "leaving"
        self._line.unsubscribe(self._topics.pool(pool))

    def _pool_of(self, topic: str) -> str | None:
        return next((pool for pool in self._standing if self._topics.pool(pool) == topic), None)

    def _tell_change(self) -> None:
        """What was joined and left since this was last told, when each pool's standing is certain."""
        if any(standing in {"joining", "leaving"} for standing in self._standing.values()):
            return
        inside = [pool for pool, standing in self._standing.items() if standing == "in"]
        left = [pool for pool in self._told if pool not in inside]
        joined = [pool for pool in inside if pool not in self._told]
        self._told = inside
        if left:
            log.info("pools_left", pools=left, reasons=list(self._reasons))
            self._tell("pools_left", pools=left, reasons=list(self._reasons))
        if joined:
            log.info("pools_joined", pools=joined)
            self._tell("pools_joined", pools=joined)
