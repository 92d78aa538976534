"""A board on paper: two bodies that warm each other, a kernel that throttles, an engine that computes.

Nothing here was measured by us; every figure names its source, and what has none is called an assumption. The
simulation answers one question: what the real policy (`edged.core.heat`) does to a board of this kind, hour by
hour, beside no policy and beside fixed thresholds. Pure Python; an hour takes about half a second.

Heat: the chip (J/K, K/W to the heatsink) and heatsink with board (J/K, K/W to the air). Power of a core follows
clock times voltage squared; a core that waits for memory takes `STALLED` of it (assumption). Leakage doubles every
`LEAKAGE_DOUBLES_C` (assumption, usual for such processes).

Decoding: a pass takes the time of the memory and that of the arithmetic, joined by `_join` into a knee. The
arithmetic of one A76 at 2.4 GHz and the memory's share by number of threads are fitted to what Arm published for
a Pi 5 and a 1.5B Q4_0 model: 10.5, 12.4, 11.2, 9.9 tokens/s with 1 to 4 threads ("llm-decode-roofline").
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edged.core.heat.clocks import Found, ladder
from edged.core.heat.heat import Heat
from edged.core.heat.margins import Margins
from edged.core.heat.policy import TABLE, Ceiling, limits
from edged.core.vitals import Level, Trip, Vitals, Zone

STEP_S = 0.2
READ_S = 2.0
STALLED = 0.6
LEAKAGE_DOUBLES_C = 35.0
PROMPT_TOKENS, ANSWER_TOKENS = 200, 200
A76_TOKENS_PER_S = 11.3
"""Arithmetic alone, one thread at 2.4 GHz: fitted, see above."""


@dataclass(frozen=True)
class Board:
    """A board without its cooling.

    Attributes:
        volts: of the cores, by clock in GHz, ascending.
        core_watts: one core at full clock, computing.
        idle_watts: what else warms the chip.
        memory_watts: of a decode that the memory bounds.
        leakage_watts: at 60 C and full voltage.
        decode_threads, prefill_threads: as `configs/` sets them.
        memory_tokens_per_s: passes that the memory allows, by threads.
        prefill_tokens_per_s: of one thread at full clock.
        firmware: throttles as a Raspberry Pi's firmware does; else as Linux' step_wise governor does.
        sensor_c: step of the sensor.
        trips: what the kernel tells.
    """

    name: str
    volts: dict[float, float]
    core_watts: float
    idle_watts: float
    memory_watts: float
    leakage_watts: float
    decode_threads: int
    prefill_threads: int
    memory_tokens_per_s: dict[int, float]
    prefill_tokens_per_s: float
    firmware: bool
    trip_c: float
    sensor_c: float
    trips: tuple[Trip, ...]


ROCK_5B = Board(
    # Clocks and voltages: Linux, arch/arm64/boot/dts/rockchip/rk3588-opp.dtsi, cluster1. Watts: Turing Pi's report
    # on the RK1 module, 4 to 5 W idle and 10 to 12 W under full load, split between cores by their capacity.
    # Memory: 17 GB/s and 0.93 GB a token; one thread less (assumed as on the Pi 5). Sensor: TSADC's steps.
    name="Radxa ROCK 5B",
    volts={0.816: 0.675, 1.008: 0.675, 1.2: 0.675, 1.416: 0.725, 1.608: 0.7625, 1.8: 0.85}
    | {2.016: 0.925, 2.208: 0.9875, 2.4: 1.0},
    core_watts=1.3,
    idle_watts=2.5,
    memory_watts=1.0,
    leakage_watts=0.5,
    decode_threads=4,
    prefill_threads=4,
    memory_tokens_per_s={1: 14.8, 2: 17.5, 3: 18.3, 4: 18.3},
    prefill_tokens_per_s=15.6,
    firmware=False,
    trip_c=85.0,
    sensor_c=0.92,
    trips=(Trip("passive", 85.0, 2.0), Trip("critical", 115.0)),
)
PI_5 = Board(
    # Volts: 0.72 V at 1.5 GHz and 0.91 V at 2.4 GHz (sbc-bench on a Pi 5, geerlingguy/sbc-reviews issue 21), a
    # straight line between. Watts: 8 W under load against 3 W idle (CNX Software, August 2024, and the same issue).
    name="Raspberry Pi 5",
    volts={1.5: 0.72, 1.6: 0.74, 1.7: 0.76, 1.8: 0.78, 1.9: 0.80, 2.0: 0.83, 2.1: 0.85, 2.2: 0.87, 2.3: 0.89}
    | {2.4: 0.91},
    core_watts=1.15,
    idle_watts=2.2,
    memory_watts=0.8,
    leakage_watts=0.4,
    decode_threads=2,
    prefill_threads=4,
    memory_tokens_per_s={1: 14.8, 2: 12.7, 3: 11.3, 4: 9.9},
    prefill_tokens_per_s=20.8,
    firmware=True,
    trip_c=80.0,
    sensor_c=0.55,
    trips=(Trip("critical", 110.0),),
)


@dataclass(frozen=True)
class Cooling:
    """How the heat gets away: J/K of chip and heatsink, K/W between them and to the air."""

    name: str
    chip_j_per_c: float
    chip_c_per_watt: float
    sink_j_per_c: float
    sink_c_per_watt: float


COOLINGS = {
    # ROCK 5B: Turing's RK1 with its heatsink stands at 68 to 74 C under 10 to 12 W: about 4 K/W. A small fan-less
    # heatsink is taken at twice that (assumption). Capacities: 5 J/K of chip and lid, 60 J/K of 30 g aluminium
    # and the copper around (assumptions).
    ("Radxa ROCK 5B", "no fan"): Cooling("no fan", 5.0, 1.5, 60.0, 6.5),
    ("Radxa ROCK 5B", "fan"): Cooling("fan", 5.0, 1.5, 60.0, 2.5),
    # Pi 5: bare it idles at 50 C and throttles under load (Phoronix: 81 C on average, 89 C at most); with the
    # Active Cooler stressberry stays at 61 C (nschloe/stressberry issue 139), about 6 K/W.
    ("Raspberry Pi 5", "no fan"): Cooling("no fan", 4.0, 2.0, 40.0, 10.5),
    ("Raspberry Pi 5", "fan"): Cooling("fan", 4.0, 1.5, 60.0, 4.5),
}


@dataclass(frozen=True)
class Allowed:
    """What a policy allows at a moment; `level` counts as changed when it differs."""

    level: str = "-"
    decode_threads: int = 99
    prefill_threads: int = 99
    pace: float = 1.0
    slots: int = 99
    paused: bool = False
    admits: bool = True
    clock_ghz: float = 99.0


class Policy(Protocol):
    """Decides every `READ_S` seconds from what the sensor says."""

    def decide(self, temp_c: float, now: float) -> Allowed:
        """What is allowed from now on."""


class NoPolicy:
    """(a) The kernel alone."""

    def decide(self, temp_c: float, now: float) -> Allowed:
        """Everything."""
        del temp_c, now
        return Allowed()


class Thresholds:
    """(b) Three fixed thresholds below the trip: half the pace, stop, and go again."""

    def __init__(self, trip_c: float) -> None:
        self._half_c, self._stop_c, self._go_c = trip_c - 10, trip_c - 5, trip_c - 15
        self._stopped = False

    def decide(self, temp_c: float, now: float) -> Allowed:
        """By the temperature of this moment, and whether it has stopped."""
        del now
        self._stopped = temp_c >= self._stop_c or (self._stopped and temp_c > self._go_c)
        if self._stopped:
            return Allowed("stop", paused=True)
        return Allowed("half", pace=0.5) if temp_c >= self._half_c else Allowed("go")


class Edged:
    """(c) The real policy, through the values that the daemon gives it.

    Args:
        board: its clocks are what the kernel offers.
        slots: of the settings.
        margins: of the settings; the defaults without them.
        clocks: whether the daemon may lower them.
    """

    def __init__(
        self, board: Board, slots: int, margins: Margins | None = None, *, clocks: bool = True
    ) -> None:
        self._heat = Heat(margins or Margins(), board.name)
        self._board = board
        offered = tuple(round(ghz * 1e6) * 1000 for ghz in sorted(board.volts))
        cores = tuple(range(board.decode_threads))
        found = Found("policy0", cores, offered[-1], offered[0], offered[-1], offered)
        self._ladders = (ladder(found, offered[-1]),) if clocks else ()
        self._ceiling = Ceiling(2048, 1024, slots, board.decode_threads, board.prefill_threads)

    def decide(self, temp_c: float, now: float) -> Allowed:
        """What `edged.node.heat` would order."""
        zone = "cpu-thermal" if self._board.firmware else "bigcore0-thermal"
        vitals = Vitals(zones=(Zone(zone, temp_c, self._board.trips),))
        verdict = self._heat.step(vitals, now, busy=True)
        told = limits(verdict.level, verdict.effort, self._ceiling, self._ladders)
        level: Level = verdict.level
        return Allowed(
            level,
            told.decode_threads,
            told.prefill_threads,
            told.pace,
            told.slots,
            told.paused,
            "normal" in TABLE[level].admits,
            min(told.caps_hz.values(), default=99e9) / 1e9,
        )


@dataclass
class Question:
    """One stream's question: what is left of it, and when it came."""

    began: float
    read: float = PROMPT_TOKENS
    write: float = ANSWER_TOKENS


@dataclass
class Result:
    """What came of a run; all but `peak_c` count its second half, when everything has settled."""

    tokens_per_hour: float = 0.0
    above_trip_s: float = 0.0
    highest_c: float = 0.0
    peak_c: float = 0.0
    changes_per_hour: float = 0.0
    latency_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    temps_c: list[float] = field(default_factory=list)
    clocks_ghz: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)


def _join(one_s: float, other_s: float) -> float:
    """Two times that overlap, with a soft knee where they are equal."""
    return float((one_s**4 + other_s**4) ** 0.25)


class Simulation:
    """One board under one policy, asked by as many devices as it has streams, without a pause.

    Args:
        board, cooling: what is simulated.
        policy: what decides.
        ambient_c: air around it; a function of the time where it changes.
        streams: questions that are always waiting.
        seed: of the sensor's noise.
        held_c: a made-up trip, at which the kernel throttles as Linux does in place of the board's own way.
    """

    def __init__(
        self,
        board: Board,
        cooling: Cooling,
        policy: Policy,
        ambient_c: float | Callable[[float], float],
        streams: int,
        *,
        seed: int = 1,
        held_c: float | None = None,
    ) -> None:
        self.board, self.cooling, self.policy, self._held_c = board, cooling, policy, held_c
        self._ambient = ambient_c if callable(ambient_c) else lambda _: ambient_c
        self._noise = random.Random(seed)  # noqa: S311 - noise
        self._clocks = sorted(board.volts)
        self._throttle = 0
        self._clock_ghz = self._clocks[-1]
        idle_c = self._ambient(0.0) + board.idle_watts * cooling.sink_c_per_watt
        self.sink_c, self.chip_c = idle_c, idle_c + board.idle_watts * cooling.chip_c_per_watt
        self._before_c = self.chip_c
        self._streams: list[Question | None] = [None] * streams
        self._served = 0.0

    def run(self, hours: float = 2.0) -> Result:
        """Run it."""
        result, allowed, now, read_at = Result(), Allowed(), 0.0, 0.0
        level, half_s = "", hours * 1800.0
        for step in range(round(hours * 3600 / STEP_S)):
            now = step * STEP_S
            if now >= read_at:
                read_at += READ_S
                allowed = self.policy.decide(self._sensor_c(), now)
                if level and allowed.level != level and now >= half_s:
                    result.changes_per_hour += 3600 / half_s
                level = allowed.level
            clock_ghz = max(self._clocks[0], min(self._kernel(), allowed.clock_ghz))
            self._clock_ghz = clock_ghz
            tokens, watts = self._compute(allowed, clock_ghz, now, result)
            self._warm(watts, now)
            result.peak_c = max(result.peak_c, self.chip_c)
            if now >= half_s:
                result.tokens_per_hour += tokens * 3600 / half_s
                result.above_trip_s += STEP_S * (self.chip_c > self.board.trip_c)
                result.highest_c = max(result.highest_c, self.chip_c)
            self._served += tokens
            if step % round(20 / STEP_S) == 0:
                result.seconds.append(now)
                result.temps_c.append(self.chip_c)
                result.clocks_ghz.append(clock_ghz)
                result.tokens_per_s.append(self._served / 20)
                self._served = 0.0
        waiting = [now - one.began for one in self._streams if one is not None]
        result.latency_s = max([result.latency_s, *waiting])
        return result

    def _sensor_c(self) -> float:
        step_c = self.board.sensor_c
        return round((self.chip_c + self._noise.gauss(0.0, 0.3)) / step_c) * step_c

    def _kernel(self) -> float:
        """The clock that is allowed.

        Linux, drivers/thermal/gov_step_wise.c: at the trip and rising one state more, below and falling one less.
        Raspberry Pi's firmware lowers the clock step by step between 80 and 85 C (its documentation, "Frequency
        management and thermal control"); a straight line is assumed.
        """
        rising, trip_c = self.chip_c > self._before_c, self._held_c or self.board.trip_c
        self._before_c = self.chip_c
        most = len(self._clocks) - 1
        if self.board.firmware and self._held_c is None:
            self._throttle = min(most, max(0, round((self.chip_c - trip_c) / 5.0 * most)))
        elif self.chip_c >= trip_c and rising:
            self._throttle = min(most, self._throttle + 1)
        elif self.chip_c < trip_c and not rising:
            self._throttle = max(0, self._throttle - 1)
        return self._clocks[most - self._throttle]

    def _compute(self, allowed: Allowed, clock_ghz: float, now: float, result: Result) -> tuple[float, float]:
        """Tokens written and watts taken in a step."""
        board = self.board
        running = [one for one in self._streams if one is not None]
        for at, one in enumerate(self._streams):
            if one is None and allowed.admits and not allowed.paused and len(running) < allowed.slots:
                self._streams[at] = begun = Question(now)
                running.append(begun)
        idle = board.idle_watts
        if not running or allowed.paused:
            return 0.0, idle
        reading = [one for one in running if one.read > 0]
        writing = [one for one in running if one.read <= 0]
        speed = clock_ghz / self._clocks[-1]
        watts_core = board.core_watts * speed * (board.volts[clock_ghz] / board.volts[self._clocks[-1]]) ** 2
        busy_s = STEP_S * allowed.pace
        prefill_s = busy_s if not writing else busy_s / 2 if reading else 0.0
        prefill_threads = min(allowed.prefill_threads, board.prefill_threads)
        joules = prefill_s * prefill_threads * watts_core
        if reading:
            reading[0].read -= prefill_s * prefill_threads * board.prefill_tokens_per_s * speed
        tokens = 0.0
        if writing:
            threads = min(allowed.decode_threads, board.decode_threads)
            decode_s = busy_s - prefill_s
            memory_s = 1 / board.memory_tokens_per_s[threads]
            arithmetic_s = len(writing) / (threads * A76_TOKENS_PER_S * speed)
            pass_s = _join(memory_s, arithmetic_s)
            used = arithmetic_s / pass_s
            joules += decode_s * threads * watts_core * (STALLED + (1 - STALLED) * min(1.0, used))
            joules += decode_s * board.memory_watts * memory_s / pass_s
            tokens = len(writing) * decode_s / pass_s
            for one in writing:
                one.write -= decode_s / pass_s
        for at, one in enumerate(self._streams):
            if one is not None and one.write <= 0:
                result.latency_s = max(result.latency_s, now - one.began)
                self._streams[at] = None
        return tokens, idle + joules / STEP_S

    def _warm(self, watts: float, now: float) -> None:
        board, cooling = self.board, self.cooling
        volts = board.volts[self._clock_ghz]
        watts += (
            board.leakage_watts
            * 2 ** ((self.chip_c - 60.0) / LEAKAGE_DOUBLES_C)
            * (volts / board.volts[self._clocks[-1]]) ** 2
        )
        across = (self.chip_c - self.sink_c) / cooling.chip_c_per_watt
        away = (self.sink_c - self._ambient(now)) / cooling.sink_c_per_watt
        self.chip_c += STEP_S * (watts - across) / cooling.chip_j_per_c
        self.sink_c += STEP_S * (across - away) / cooling.sink_j_per_c


AS_COOL = "kernel, as cool"


def policies(board: Board, streams: int, margins: Margins) -> dict[str, Policy]:
    """Those that are compared; `margins` are edged's.

    The last but one is edged where it may not write the caps of clocks, the last one the kernel alone again, on a
    board whose trip stands where edged holds the temperature (`held_c`).
    """
    return {
        "kernel": NoPolicy(),
        "thresholds": Thresholds(board.trip_c),
        "edged": Edged(board, streams, margins),
        "edged, no clocks": Edged(board, streams, margins, clocks=False),
        AS_COOL: NoPolicy(),
    }
