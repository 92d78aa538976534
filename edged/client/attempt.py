"""One try to be taken in by the broker: what came of it, and why not in words. No paho here.

Begun by the thread that connects, which waits; what happens is told by the network thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from edged.client import failures
from edged.client.answer import ClientError, UnreachableError
from edged.client.found import Found

PASSING = frozenset({0x88, 0x89, 0x97, 0x9F})
"""Refusals that may be over later: server unavailable, server busy, quota or rate exceeded (MQTT 5, 3.2.2.2)."""


class Attempt:
    """A try that has not ended yet.

    Args:
        place: the broker's host and port.
        account: the user name that we give, None for none.
        tls: whether the connection is to be over TLS.
        marks: as of `Found`.

    Attributes:
        no_qos_1: the broker that took us in passes on nothing with QoS 1.
    """

    def __init__(self, place: str, account: str | None, *, tls: bool, marks: tuple[str, ...]) -> None:
        self._place, self._account, self._tls = place, account, tls
        self._found = Found(marks)
        self._ended = threading.Event()
        self._refused: tuple[int, str] | None = None
        self._hung_up = False  # before it said anything
        self.no_qos_1 = False

    # the thread that connects ---------------------------------------------------------------------------

    def unreachable(self, error: Exception) -> ClientError:
        """Why no connection was made, or none over TLS."""
        told = f"no broker at {self._place}: {failures.words(error)}; "
        if isinstance(error, ConnectionRefusedError | TimeoutError):
            return UnreachableError(told + failures.MEND)
        return ClientError(told + failures.mend(error))

    def failure(self, timeout_s: float) -> ClientError | None:
        """Wait until it has ended, for so long at most; why the broker has not taken us in, None where it has."""
        place = self._place
        if not self._ended.wait(timeout_s):
            return UnreachableError(f"{place} takes connections and says nothing; is it a broker for MQTT 5?")
        if self._hung_up:
            doubt = failures.on_closing(tls=self._tls)
            return UnreachableError(f"{place} ended the connection without an answer; {doubt}")
        if self._found.doubtful:
            return self._found.refusal(place, self._account)
        if self._refused is None:
            return ClientError(f"the broker at {place} {failures.NO_QOS_1}") if self.no_qos_1 else None
        code, reason = self._refused
        if code in PASSING:
            return UnreachableError(f"the broker at {place} refused us: {reason}; try again later")
        return ClientError(f"the broker at {place} refused us: {reason}; {failures.on_refusal(reason)}")

    # any thread -----------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it is known what came of it."""
        return self._ended.is_set()

    @property
    def foreign(self) -> bool:
        """Whether the broker keeps a session for us that may be somebody else's."""
        return self._found.doubtful

    @property
    def keep_s(self) -> int:
        """For how long the broker is to keep the session after us."""
        return self._found.keep_s

    # network thread -------------------------------------------------------------------------------------

    def refused(self, code: int, reason: str) -> None:
        """CONNACK refuses."""
        self._refused = code, reason
        self._ended.set()

    def hung_up(self) -> None:
        """The connection is gone, and was none."""
        self._hung_up = True
        self._ended.set()

    def found(self, unsubscribe: Callable[[list[str]], object]) -> None:
        """CONNACK tells of a session; `answered` is to follow."""
        self._found.ask(unsubscribe)

    def answered(self, reasons: Iterable[int]) -> bool:
        """UNSUBACK; returns whether the session is ours. Where it is not, `connect` leaves it to its owner."""
        ours = self._found.answered(reasons)
        if not ours:
            self._ended.set()
        return ours

    def taken_in(self) -> None:
        """All is subscribed."""
        self._ended.set()
