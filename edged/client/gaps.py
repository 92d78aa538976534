"""What a listener is told of the times in which it heard nothing. Values in, words out; no paho here."""

from __future__ import annotations

from dataclasses import dataclass

from edged.client.answer import CROWDED

MISSED = "there was no connection for {:.0f} s: what happened meanwhile may be missing here"
MISSING = f"{CROWDED}; while both run, each misses what the other one hears"


@dataclass(slots=True)
class Gaps:
    """One listener's connection, as it looked last."""

    _lost_at: float | None = None
    _crowded: bool = False

    def look(self, now: float, *, connected: bool, crowded: bool) -> str | None:
        """A sentence where there is something new to say; to be asked some times a second.

        Of programs that push each other out that is said once: the connection would come and go each second.
        """
        if crowded:
            told, self._crowded, self._lost_at = self._crowded, True, None
            return None if told else MISSING
        self._crowded = False
        if not connected:
            self._lost_at = now if self._lost_at is None else self._lost_at
            return None
        lost_at, self._lost_at = self._lost_at, None
        return None if lost_at is None else MISSED.format(now - lost_at)
