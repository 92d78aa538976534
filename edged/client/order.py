"""Puts the replies to one question into sequence. Pure; the clock is the caller's.

Deltas travel with QoS 0 and may be lost or, after a reconnection, come twice and in a mixed order. What comes
too early waits for what is missing, but not for long: `done` repeats the whole text anyway.
"""

from __future__ import annotations

from edged.core.reply import Accepted, Cancelled, Done, Failed, Reply

GAP_S = 1.0
"""How long a missing reply holds up those behind it."""
HELD_MAX = 256
"""Replies held back at once."""


class Order:
    """The replies to one question that are due, in the order of `seq`, each once.

    Attributes:
        next_seq: the reply that is waited for.
    """

    def __init__(self) -> None:
        self.next_seq = 0
        self._held: dict[int, Reply | None] = {}  # None for one that cannot be read
        self._gap_since_s: float | None = None
        self._accepted: Accepted | None = None

    @property
    def gap(self) -> bool:
        """Whether something is missing that later replies wait for."""
        return bool(self._held)

    def take(self, reply: Reply, now_s: float) -> list[Reply]:
        """Take in what came; returns what may be shown now.

        A second `accepted` with number 0 that differs from the first begins the next attempt: the node was
        restarted and counts anew. A terminal message ends all waiting.
        """
        if isinstance(reply, Done | Cancelled | Failed):
            return [*self._release(), reply]
        if isinstance(reply, Accepted) and reply.seq == 0:
            if reply == self._accepted:
                return []
            self._accepted = reply
            if self.next_seq:
                self._held.clear()
                self.next_seq = 0
        return self._placed(reply.seq, reply, now_s)

    def pass_over(self, seq: int, now_s: float) -> list[Reply]:
        """Take in that a reply came which cannot be shown; returns what waited for it."""
        return self._placed(seq, None, now_s)

    def _placed(self, seq: int, reply: Reply | None, now_s: float) -> list[Reply]:
        if seq >= self.next_seq:
            self._held[seq] = reply
        before = self.next_seq
        ready = self._in_sequence()
        if not self._held:
            self._gap_since_s = None
        elif self._gap_since_s is None or self.next_seq > before:
            self._gap_since_s = now_s
        elif now_s - self._gap_since_s > GAP_S or len(self._held) > HELD_MAX:
            self._gap_since_s = None
            ready += self._release()
        return ready

    def _in_sequence(self) -> list[Reply]:
        ready = []
        while self.next_seq in self._held:
            reply = self._held.pop(self.next_seq)
            ready += [] if reply is None else [reply]
            self.next_seq += 1
        return ready

    def _release(self) -> list[Reply]:
        held = sorted(self._held.items())
        self._held.clear()
        if held:
            self.next_seq = held[-1][0] + 1
        return [reply for _, reply in held if reply is not None]
