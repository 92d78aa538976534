"""What a listener is told of the times in which it heard nothing. Values in, words out; no paho here."""

from __future__ import annotations

from dataclasses import dataclass

from edged.client.answer import CROWDED

MISSED = "the connection was lost within the last {:.0f} s: what happened meanwhile may be missing here"
MISSING = f"{CROWDED}; while both run, each misses what the other one hears"


@dataclass(slots=True)
class Gaps:
    """One listener's connection, as it looked last."""

    _lives: int | None = None
    _well_at: float = 0.0
    _looked_at: float = 0.0
    _crowded: bool = False

    def look(self, now: float, *, lives: int, connected: bool, crowded: bool) -> str | None:
        """A sentence where there is something new to say; to be asked whenever somebody listens.

        Of programs that push each other out that is said once: the connection would come and go each second.

        Args:
            now: seconds, of any monotonic clock.
            lives: connections that there were so far.
            connected: there is one now, as far as is known.
            crowded: they end soon after they began.
        """
        if crowded:
            told, self._crowded = self._crowded, True
            self._lives, self._well_at, self._looked_at = lives, now, now
            return None if told else MISSING
        self._crowded = False
        if lives == self._lives:
            if connected:
                # What was seen now is believed by the next look: a process that was stopped does not know yet.
                self._well_at, self._looked_at = self._looked_at, now
            return None
        before, since_s = self._lives, now - self._well_at
        self._lives, self._well_at, self._looked_at = lives, now, now
        return None if before is None else MISSED.format(since_s)
