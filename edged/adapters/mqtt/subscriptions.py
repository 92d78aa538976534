"""What this node listens to, kept over reconnections. Belongs to the MQTT thread.

The broker keeps the subscriptions of a session, those of an earlier life of the daemon too, so at every
connection all is said again: what is wanted, and what is no longer wanted.
"""

from __future__ import annotations

from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.core.link import ConnectFailed, LinkEvent, Subscribed, Subscription, Unsubscribed

SHARED = "$share/"
OPTIONS = SubscribeOptions(
    # No retained questions from before our time, and the flag as published on those of our time: the contract
    # ignores both, and without "retain as published" the broker hides the flag (MQTT 5, 3.8.3.1).
    qos=1,
    retainAsPublished=True,
    retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND,
)


class Subscriptions:
    """Filters that are wanted or given up, and what the broker has said to each.

    Args:
        always: filters for as long as the process lives.
        emit: the node's inbox.
    """

    def __init__(self, always: tuple[str, ...], emit: Callable[[LinkEvent], None]) -> None:
        self._wanted = dict.fromkeys(always, True)
        self._emit = emit
        self._asked: dict[int, Subscription] = {}
        self._shared_available = True

    @property
    def unanswered(self) -> list[str]:
        """Filters that the broker has said nothing to on this connection."""
        return [change.topic for change in self._asked.values()]

    def connected(self, client: paho.Client, properties: PahoProperties | None) -> None:
        """A new connection: say all of it."""
        self._asked.clear()  # packet identifiers of the connection that is gone
        # A broker without shared subscriptions ends the connection of whoever asks for one (MQTT 5, 3.2.2.3.13).
        self._shared_available = getattr(properties, "SharedSubscriptionAvailable", 1) != 0
        for topic, wanted in self._wanted.items():
            self._ask(client, Subscription(topic, wanted=wanted))

    def change(self, change: Subscription, client: paho.Client | None) -> None:
        """Take on a wish; without a client there is no connection, and the next one will carry it."""
        self._wanted[change.topic] = change.wanted
        if client is not None:
            self._ask(client, change)

    def subscribed(self, mid: int, reasons: list[ReasonCode]) -> None:
        """SUBACK."""
        refused = next((str(reason) for reason in reasons if reason.is_failure), None)
        self._answered(mid, refused)

    def unsubscribed(self, mid: int) -> None:
        """UNSUBACK: whatever its reason, the broker hands nothing more to this filter."""
        self._answered(mid, None)

    def _ask(self, client: paho.Client, change: Subscription) -> None:
        if change.topic.startswith(SHARED) and not self._shared_available:
            if change.wanted:
                self._emit(Subscribed(change.topic, refused="the broker has no shared subscriptions"))
            else:
                self._emit(Unsubscribed(change.topic))
            return
        if change.wanted:
            _, mid = client.subscribe(change.topic, options=OPTIONS)
        else:
            _, mid = client.unsubscribe(change.topic)
        if mid is not None:
            self._asked[mid] = change

    def _answered(self, mid: int, refused: str | None) -> None:
        change = self._asked.pop(mid, None)
        if change is None:
            return
        if refused is not None:
            reason = f"the broker refused to subscribe us to {change.topic}: {refused}; see its ACL"
            self._emit(ConnectFailed(reason))
        if any(later.topic == change.topic for later in self._asked.values()):
            return  # changed again meanwhile, be it there and back: the answer to the last one counts
        self._emit(Subscribed(change.topic, refused=refused) if change.wanted else Unsubscribed(change.topic))
