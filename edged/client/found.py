"""Whose session the broker has kept under our name: one of ours, or somebody's who must not lose it. No paho here.

A client's session ends with it, but it never starts clean: where the account is the session's name, as in the
shipped configuration, that would delete what waits at the broker for the board whose account somebody gave us. So
we give up subscriptions that only ours has, and see whether there were any. Until that is answered, nothing is
acknowledged.

Belongs to the network thread, but for what `connect` and `close` of the line ask before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edged.client.answer import ClientError

SESSION_S = 5
"""How long the broker keeps our session without us. Not 0: who asks for that can leave no session to its owner, for
DISCONNECT must not ask for more then (MQTT 5, 3.14.2.2.2)."""
KEEP_S = 86_400
"""How long it is to keep one that we found and left; when its owner is back, that one says."""
NO_SUBSCRIPTION = 0x11
"""UNSUBACK "No subscription existed" (MQTT 5, 3.11.3)."""


class Found:
    """What was found.

    Args:
        marks: topics that only sessions of programs of our name have, this one or others.

    Attributes:
        doubtful: there is a session of which we do not know that it is ours, or know that it is not.
    """

    def __init__(self, marks: tuple[str, ...]) -> None:
        self._marks = marks
        self.doubtful = False

    def ask(self, unsubscribe: Callable[[list[str]], object]) -> None:
        """There is one; `answered` is to follow."""
        self.doubtful = True
        unsubscribe(list(self._marks))

    def answered(self, reasons: Iterable[int]) -> bool:
        """UNSUBACK, a reason for each mark; returns whether the session is ours."""
        self.doubtful = all(reason == NO_SUBSCRIPTION for reason in reasons)
        return not self.doubtful

    @property
    def keep_s(self) -> int:
        """For how long the broker is to keep the session after us."""
        return KEEP_S if self.doubtful else 0

    @staticmethod
    def refusal(place: str, username: str | None) -> ClientError:
        """Why we go again; `place` is the broker's."""
        account = "this certificate" if username is None else f"the account {username!r}"
        return ClientError(
            f"the broker at {place} keeps a session for {account}, a board's or another program's, and lets "
            "each account in once: give this program one of its own"
        )
