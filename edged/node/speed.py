"""Compares the engine's speed with the calibrated one, and tells when a cool board has become slow.

Belongs to the dispatcher thread. The judgement is `edged.core.slowness`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from edged.core.calibration import Calibration
from edged.core.slowness import Slowness, judge, suspects
from edged.core.vitals import Vitals
from edged.engine.messages import Pulse, SetLimits

UNEXPLAINED = "nothing that the board tells explains it"

log = structlog.get_logger()


class Herald(Protocol):
    """The bulletin, as far as it is needed here."""

    def tell_event(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """Publish something that happened."""


@dataclass(slots=True)
class Speed:
    """Watches one engine's rate.

    Attributes:
        calibration: what was measured; None where nothing was, then nothing is judged.
        decode_tokens_per_s, prefill_tokens_per_s: the calibrated rates of the thread counts in use.
        decode_threads: that count for decode.
        cores: of the engine.
        clock: monotonic seconds.
        comparable: the model that answers is the one that was measured.
    """

    calibration: Calibration | None = None
    decode_tokens_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_threads: int = 0
    cores: tuple[int, ...] = ()
    clock: Callable[[], float] = lambda: 0.0
    comparable: bool = True
    state: Slowness = field(default_factory=Slowness)

    @property
    def step_s(self) -> float:
        """Seconds of a pass that writes, for the engine's first ETAs; 0.0 where nothing was measured."""
        return 1 / self.decode_tokens_per_s if self.decode_tokens_per_s else 0.0

    @property
    def read_s(self) -> float:
        """Seconds to read a token of a prompt; 0.0 where nothing was measured."""
        return 1 / self.prefill_tokens_per_s if self.prefill_tokens_per_s else 0.0

    def loaded(self, *, measured: bool) -> None:
        """An engine is ready; `measured`: with the model that the calibration is of."""
        if measured != self.comparable:
            self.comparable, self.state = measured, Slowness()

    def heard(
        self, pulse: Pulse, limits: SetLimits | None, vitals: Vitals, herald: Herald, *, usual: bool
    ) -> None:
        """Take a sign of life into account; tells log and event topic when the judgement changes.

        `usual`: the board is cool, and its clocks are not held down by us.
        """
        if self.calibration is None or not self.comparable:
            return
        before = self.state
        self.state = judge(before, self._share(pulse, limits, usual=usual), self.clock())
        if self.state.slow == before.slow:
            return
        figures = {
            "decode_tokens_per_s": pulse.alone_tokens_per_s,
            "calibrated_tokens_per_s": round(self._expected(pulse), 1),
            "share": round(self.state.share or 0.0, 2),
        }
        if self.state.slow:
            blame = suspects(vitals, self.cores) or [UNEXPLAINED]
            log.warning("slow", **figures, suspects=blame)
            herald.tell_event("slow", **figures, suspects=blame)
        else:
            log.info("slow_over", **figures)
            herald.tell_event("slow_over", **figures)

    def health(self) -> dict[str, Any]:
        """The part of `health`: nothing without a calibration of this model."""
        if self.calibration is None or not self.comparable:
            return {}
        told: dict[str, Any] = {
            "calibrated_decode_tokens_per_s": self.decode_tokens_per_s,
            "slow": self.state.slow,
        }
        if self.state.share is not None:
            told["calibrated_share"] = round(self.state.share, 3)
        return told

    def _share(self, pulse: Pulse, limits: SetLimits | None, *, usual: bool) -> float | None:
        """Share of the calibrated rate; None where this work does not compare with the calibration's."""
        alone = pulse.running == 1 and pulse.waiting == 0 and pulse.busy
        free = limits is None or (limits.decode_threads == self.decode_threads and not limits.paused)
        if not alone or not usual or not free or pulse.alone_tokens_per_s <= 0:
            return None
        return pulse.alone_tokens_per_s / self._expected(pulse)

    def _expected(self, pulse: Pulse) -> float:
        """What to expect now; the whole cache counts as this question's, which expects rather too little."""
        if self.calibration is None:
            return self.decode_tokens_per_s
        return self.calibration.expected_decode(self.decode_tokens_per_s, pulse.kv_tokens)
