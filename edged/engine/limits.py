"""What heat leaves of the engine: slots, threads, the clock of the cores, and the share of the time for passes.

Belongs to the model thread; `slots` and `pace.share` may be read from any, for estimates. What the daemon asks for
is brought into the bounds that the engine was started with.
"""

from __future__ import annotations

from edged.core.pace import PACE_MIN, Pace
from edged.engine.messages import SetLimits

CLOCK_SHARE_MIN = 0.1


class Limits:
    """What may be used, from the next step on; all of it at first.

    Args:
        slots: questions side by side, at most.
        decode_threads, prefill_threads: for passes that write, and for passes that read a prompt, at most.

    Attributes:
        slots_max: as the engine was started.
        paused: nothing is computed.
    """

    def __init__(self, *, slots: int, decode_threads: int, prefill_threads: int) -> None:
        self.slots_max = self.slots = slots
        self._decode_max = self._decode = decode_threads
        self._prefill_max = self._prefill = prefill_threads
        self._cores = max(decode_threads, prefill_threads)
        self._spared = 0
        self._clock = 1.0
        self.pace = Pace()
        self.paused = False

    @property
    def threads_max(self) -> int:
        """The most that any pass could use."""
        return max(self._decode_max, self._prefill_max)

    @property
    def decode_threads(self) -> int:
        """For passes that write."""
        return max(1, min(self._decode, self._cores - self._spared))

    @property
    def prefill_threads(self) -> int:
        """For passes that read a prompt."""
        return max(1, min(self._prefill, self._cores - self._spared))

    def confine(self, cores: int, spared: int) -> float:
        """No more threads than cores from now on, without those that are left to other programs.

        Returns:
            What `obey` does.
        """
        before = self._speed
        self._cores, self._spared = max(1, cores), spared
        return self._speed / before

    def obey(self, told: SetLimits) -> float:
        """Take on new ones; what runs keeps its slot.

        Returns:
            How many times as fast the cores are together as they were, by their number and clock.
        """
        before = self._speed
        self.slots = min(self.slots_max, max(1, told.slots))
        self._decode = min(self._decode_max, max(1, told.decode_threads))
        self._prefill = min(self._prefill_max, max(1, told.prefill_threads))
        self._clock = min(1.0, max(CLOCK_SHARE_MIN, told.clock))
        self.pace.share = min(1.0, max(PACE_MIN, told.pace))
        self.paused = told.paused
        return self._speed / before

    @property
    def _speed(self) -> float:
        """Of the cores that read, by number and clock.

        Spared ones are among them: it is not known how much they won beside the others, and they may be back before
        heat gives back what it took.
        """
        return min(self._prefill, self._cores) * self._clock
