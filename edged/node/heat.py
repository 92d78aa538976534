"""The thermostat: turns what heat allows into orders for the engine, membership of pools, news and log lines.

Belongs to the dispatcher thread. What the readings mean and what a level allows is decided in `edged.core.heat`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from edged.core.admission import Shed
from edged.core.heat import policy
from edged.core.heat.heat import Heat, Verdict
from edged.core.heat.policy import TABLE, Ceiling, Limits
from edged.core.vitals import Level, Vitals
from edged.engine.messages import SetLimits
from edged.node.clocks import Clocks

HOT = "hot"
"""The reason under which a node leaves its pools."""

NOTE_S = 600.0
"""How often beginnings are noted, after the first: a weak supply dips with every question, and each note is a write
to the card. A kill costs what was counted since."""

log = structlog.get_logger()


class Pools(Protocol):
    """Membership of the pools, as far as heat needs it."""

    def leave(self, reason: str) -> None:
        """Take no pool questions while this reason stands."""

    def rejoin(self, reason: str) -> None:
        """This reason is over."""


class Limited(Protocol):
    """The engine's keeper, as far as heat needs it."""

    def limit(self, limits: SetLimits) -> None:
        """Obey these from the next step on."""


@dataclass(slots=True)
class Thermostat:
    """Acts on the heat of the board.

    Attributes:
        heat: the judgement of readings.
        ceiling: what the engine may do while the board is cool; its context shrinks when memory runs out.
        engine, pools: what obeys.
        clocks: of the engine's cores.
        tell: publishes an event, with fields.
        note: keeps a line for the daemon after this one.
        relieved: whether what a hot board does not answer itself is answered by a larger server now.
        verdict: of the latest reading; None before the first.
        limits: what the engine may do now.
    """

    heat: Heat
    ceiling: Callable[[], Ceiling]
    engine: Limited
    pools: Pools
    tell: Callable[..., None]
    clocks: Clocks
    note: Callable[[str], None] = lambda _line: None
    relieved: Callable[[], bool] = lambda: False
    verdict: Verdict | None = None
    limits: Limits | None = None
    _noted: str = field(init=False)
    _noted_at: float = -math.inf

    def __post_init__(self) -> None:
        self._noted = self.heat.edges.line()

    @property
    def level(self) -> Level:
        """In one word."""
        return "cool" if self.verdict is None else self.verdict.level

    @property
    def slots(self) -> int:
        """Questions that may begin side by side now; 0 in a pause."""
        if self.limits is None:
            return self.ceiling().slots
        return 0 if self.limits.paused else self.limits.slots

    @property
    def shed(self) -> Shed | None:
        """What is not admitted at this level; None where everything is."""
        verdict = self.verdict
        if verdict is None or TABLE[verdict.level].admits == policy.ALL:
            return None
        return Shed(verdict.level, TABLE[verdict.level].admits, verdict.retry_after_ms, reason=verdict.reason)

    def read(self, vitals: Vitals, now: float, *, busy: bool) -> bool:
        """Act on a reading; True when the level has changed."""
        before = self.level
        verdict = self.verdict = self.heat.step(vitals, now, busy=busy)
        # Without a sensor to believe the board's own clocks are left to the kernel: nobody could say until when.
        ladders = self.clocks.ladders(hot=verdict.level in {"hot", "critical"})
        limits = self.limits = policy.limits(
            verdict.level, verdict.effort, self.ceiling(), () if verdict.blind else ladders
        )
        self.clocks.apply(limits.caps_hz)
        self.engine.limit(_order(limits))
        if TABLE[verdict.level].pools or self.relieved():
            self.pools.rejoin(HOT)
        else:
            self.pools.leave(HOT)
        self._tell_edges(verdict, now)
        if verdict.level == before:
            return False
        self._say(
            "level_changed", level=verdict.level, before=before, reason=verdict.reason, **self._figures()
        )
        return True

    def without_lies(self, vitals: Vitals) -> Vitals:
        """The reading without what sensors say that are not believed: a cool board is not shown as 127 C hot."""
        lying = {} if self.verdict is None else self.verdict.sensors
        zones = (
            dataclasses.replace(zone, temp_c=None) if zone.name in lying else zone for zone in vitals.zones
        )
        return dataclasses.replace(vitals, zones=tuple(zones)) if lying else vitals

    def as_json(self) -> dict[str, Any]:
        """The part of `health` about heat; what is not known is left out."""
        verdict, limits = self.verdict, self.limits
        if verdict is None or limits is None:
            return {}
        told: dict[str, Any] = {
            "effort": 0.0 if limits.paused else round(verdict.effort, 2),
            "slots": limits.slots,
            "decode_threads": limits.decode_threads,
            "prefill_threads": limits.prefill_threads,
            "pace": 0.0 if limits.paused else limits.pace,
            "paused": limits.paused,
            "throttles": verdict.throttles,
            "under_voltages": verdict.under_voltages,
        }
        if caps := self.clocks.as_json():
            told["clock_cap_hz"] = caps
        near = verdict.nearest
        if near is not None:
            told |= {"zone": near.zone, "target_c": verdict.target_c}
            told["rise_c_per_s"] = round(verdict.rise_c_per_s, 3)
        if verdict.trip_in_s is not None:
            told["time_to_trip_s"] = round(verdict.trip_in_s)
        if verdict.retry_after_ms:
            told["retry_after_ms"] = verdict.retry_after_ms
        if verdict.sensors:
            told["sensors"] = dict(verdict.sensors)
        return told

    def close(self) -> None:
        """The daemon ends: the next one counts on from here."""
        if self.heat.edges.line() != self._noted:
            self._note(self._noted_at)

    def _note(self, now: float) -> None:
        self._noted, self._noted_at = self.heat.edges.line(), now
        self.note(self._noted)

    def _tell_edges(self, verdict: Verdict, now: float) -> None:
        for zone, state in verdict.failed.items():
            self._say("sensor_failed", zone=zone, state=state, blind=verdict.blind)
        for zone in verdict.mended:
            self._say("sensor_mended", zone=zone)
        if now - self._noted_at >= NOTE_S and self.heat.edges.line() != self._noted:
            self._note(now)
        if verdict.throttled is not None:
            self._say(
                "throttling_began" if verdict.throttled else "throttling_ended", count=verdict.throttles
            )
        if verdict.under_voltage is not None:
            name = "under_voltage_began" if verdict.under_voltage else "under_voltage_ended"
            self._say(name, count=verdict.under_voltages)

    def _figures(self) -> dict[str, Any]:
        """What a change of level comes with, for people who read the log alone."""
        if self.limits is None:
            return {}
        figures = {"context": self.limits.context, **self.as_json()}
        wanted = (
            "context",
            "slots",
            "decode_threads",
            "pace",
            "paused",
            "clock_cap_hz",
            "target_c",
            "retry_after_ms",
        )
        return {name: figures[name] for name in wanted if name in figures}

    def _say(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """In the log and to the operator, in the same words."""
        log.info(event, **fields)
        self.tell(event, **fields)


def _order(limits: Limits) -> SetLimits:
    """What of it the engine obeys itself."""
    told = {field.name: getattr(limits, field.name) for field in dataclasses.fields(limits)}
    del told["caps_hz"]
    return SetLimits(**told)
