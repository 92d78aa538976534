"""Tries to reach the broker: what is told of those that fail and of connections that are lost, and the waits.

Each cause is told once, until there is a connection again, in words that say what to change. Belongs to the MQTT
thread. No paho here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from edged.core import link_advice
from edged.core.link import SHORT_LIVES, STEADY_S, ConnectFailed, Disconnected, LinkEvent
from edged.core.ration import worth_a_line

from .link import Link

RETRY_MAX_S = 4.0
"""Longest wait between two tries, before jitter: a node shall be back within 5 s of its broker."""
CUT_S, CUTS, CUT_RETRY_MAX_S = 2.0, 6, 64.0
"""So many connections in a row that ended within so long, each before the same thing was answered: some brokers cut
the connection of who may not use a topic, in place of a reason code. That lasts until somebody mends it, so it is
tried less and less often. A broker that dies each time cuts off now this, now that."""
GIVE_UP_CUTS = 10
"""After so many, a minute or so, that one message alone has in common it is given up: an answer that is longer than
the broker takes, or goes where it lets nobody write, would keep the node off its broker for as long as it lives."""
NAMED_MAX = 4
TOLD_EACH, SAY_AGAIN = 16, 16384
"""Of connections that are short again and again so many are told, then each doubling of their number, and at last
one in so many, a day: boards of one image, which all have one name, would write 50 MB a day each."""


class Tries:
    """How it goes.

    Args:
        link: where and how it is tried.
        emit: the node's inbox.
        clock: monotonic seconds.
    """

    def __init__(
        self, link: Link, emit: Callable[[LinkEvent], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._link = link
        self._emit = emit
        self._clock = clock
        self._failures = 0
        self._short_lives = 0
        self._cuts = 0
        self._suspects: list[str] = []
        self._connected_at = 0.0
        self._reasons_told: set[str] = set()
        self._told = False

    def begin(self) -> None:
        """One more."""
        self._told = False

    def succeeded(self) -> None:
        """The broker took us in."""
        self._connected_at = self._clock()
        self._reasons_told.clear()

    @property
    def doubtful(self) -> bool:
        """Whether so many connections in a row were short that another is no news."""
        return self._short_lives >= TOLD_EACH

    @property
    def wary(self) -> bool:
        """Whether it shall show at what the next connection is cut."""
        return self._cuts >= CUTS

    @property
    def culprit(self) -> str | None:
        """The one thing that so many cut connections have in common, as it came with `lost`."""
        return self._suspects[0] if self._cuts >= GIVE_UP_CUTS and len(self._suspects) == 1 else None

    def relieved(self) -> None:
        """It was given up."""
        self._cuts = 0

    def lost(self, reason: str, unanswered: Sequence[str] = ()) -> None:
        """A connection is gone that was there; `unanswered`: what we did on it that the broker said nothing to."""
        self._told = True  # paho tells it twice
        lasted_s = self._clock() - self._connected_at
        again = [one for one in self._suspects if one in unanswered] if self._cuts else []
        self._cuts = 0 if lasted_s >= CUT_S else self._cuts + 1 if again else 1
        self._suspects = again or list(unanswered)
        if lasted_s >= STEADY_S:
            self._failures = self._short_lives = 0
        else:
            self._short_lives += 1
        if self._short_lives >= SHORT_LIVES:
            name = self._link.client_id
            doubt = f"does another daemon use this node.id (as {name}), or another program its account?"
            if self._suspects:
                named = ", ".join(self._suspects[:NAMED_MAX])
                doubt += f" Or does the broker's ACL forbid something that it had not answered yet: {named}?"
            reason += f"; again soon after connecting, {self._short_lives} times in a row: {doubt}"
        news = worth_a_line(self._short_lives, first=TOLD_EACH, then_each=SAY_AGAIN)
        self._emit(Disconnected(reason, quiet=not news))

    def closed(self, reason: str) -> None:
        """The broker closed it before it took us in; nothing, where it said why before."""
        if not self._told:
            tls = self._link.tls
            closing = link_advice.on_closing(
                reason, tls=tls is not None, certificate=tls is not None and tls.cert is not None
            )
            self.failed(f"{self._link.host}:{self._link.port}: {closing}")

    def failed(self, reason: str) -> None:
        """It came to nothing."""
        self._cuts = 0
        if not self._told and reason not in self._reasons_told:
            self._reasons_told.add(reason)
            self._emit(ConnectFailed(reason))
        self._told = True  # what follows from a refusal (a closed connection, say) is no news

    def wait_s(self) -> float:
        """How long to wait before the next; each costs more patience than the one before."""
        self._failures += 1
        return longest_wait_s(self._failures, self._cuts) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def longest_wait_s(failures: int, cuts: int = 0) -> float:
    """Most to wait, in seconds, after so many tries in a row that failed, or were cut; there may be any number."""
    if cuts > CUTS:
        return min(CUT_RETRY_MAX_S, RETRY_MAX_S * 2.0 ** min(cuts - CUTS, 8))
    return min(RETRY_MAX_S, 0.25 * 2.0 ** min(failures, 8))
