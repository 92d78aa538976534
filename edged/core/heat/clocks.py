"""Lower clocks as the first thing that heat takes: which caps an effort buys, and whose a cap is that is read.

A clock goes with its voltage, so its last third costs more than half of the power; threads and time cost their
share and no more. Writing the caps is the adapter's (`edged.adapters.vitals.caps`), when is the thermostat's.
Pure values and a small state machine; any thread.

The kernel keeps one wish of user space for each policy beside those of its own cooling, and holds to the lowest;
what it shows in `scaling_max_freq` is that lowest (Linux, drivers/cpufreq/cpufreq.c and
drivers/thermal/cpufreq_cooling.c). So a cap never undoes the kernel's own throttling, and a low figure may be the
kernel's, ours or somebody else's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

VOLTS_MIN = 0.7
"""Voltage from half of the highest clock down, as a share of the highest one's; a straight line in between.
ROCK 5B: 0.675 V up to 1.2 GHz, 0.85 at 1.8, 1.0 at 2.4 (Linux, rk3588-opp.dtsi, cluster1). Raspberry Pi 5: 0.72 V
at 1.5 GHz, 0.91 at 2.4 (sbc-bench, geerlingguy/sbc-reviews issue 21): 0.79 of it where the line says 0.775. The
controller makes up for boards that differ; the curve only says how large a step is."""
FLOOR_SHARE = 0.4
"""No cap below this share of the hardware's highest clock: lower ones save no voltage any more, and make all else
on the board slow as well."""
STEPS = 12
"""Steps between lowest and highest clock where the kernel lists none (intel_pstate)."""
SAME = 0.02
"""Clocks that differ by no more than this share are the same: some drivers round what they are told."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cpufreq policy as it was read; the cores that it governs share one clock.

    Attributes:
        name: the kernel's, `policy4`.
        cores: those online.
        cap_hz: the highest clock allowed at the moment, by whomever.
        lowest_hz, highest_hz: of the hardware.
        offered_hz: clocks that it offers; may be empty.
        writable: whether this process may change the cap.
        held: the kernel's own cooling slows cores down just now.
    """

    name: str
    cores: tuple[int, ...]
    cap_hz: int
    lowest_hz: int
    highest_hz: int
    offered_hz: tuple[int, ...] = ()
    writable: bool = True
    held: bool = False


@dataclass(frozen=True, slots=True)
class Ladder:
    """The caps that one policy may get.

    Attributes:
        name, cores, highest_hz: see `Found`.
        steps_hz: ascending, never empty; the last one is what the policy may do without us.
    """

    name: str
    cores: tuple[int, ...]
    highest_hz: int
    steps_hz: tuple[int, ...]

    @property
    def powers(self) -> tuple[float, ...]:
        """Power of each step as a share of the last one's."""
        full = power(self.steps_hz[-1] / self.highest_hz)
        return tuple(power(hz / self.highest_hz) / full for hz in self.steps_hz)


@dataclass(frozen=True, slots=True)
class Spent:
    """An effort turned into caps.

    Attributes:
        caps_hz: by the policy's name; a policy at its last step is there too.
        left: the effort that threads and time must still be cut to, above 0 to 1; 1 where the clocks sufficed.
        clock: the cores' mean clock, as a share of what it is without us.
    """

    caps_hz: Mapping[str, int]
    left: float
    clock: float = 1.0


def power(clock: float) -> float:
    """Power of a core at a share of its highest clock, as a share of its highest: clock times voltage squared."""
    volts = VOLTS_MIN + (1 - VOLTS_MIN) * max(0.0, 2 * clock - 1)
    return clock * volts**2


def ladder(found: Found, most_hz: int) -> Ladder:
    """The steps of a policy that may go up to `most_hz`; only that one where it is low already."""
    offered = found.offered_hz or _even(found.lowest_hz, found.highest_hz)
    floor_hz = FLOOR_SHARE * found.highest_hz
    below = [hz for hz in sorted(set(offered)) if floor_hz <= hz < most_hz * (1 - SAME)]
    return Ladder(found.name, found.cores, found.highest_hz, (*below, most_hz))


def spend(effort: float, ladders: Sequence[Ladder]) -> Spent:
    """The highest caps whose power fits the effort, and what is left to do below the lowest ones.

    Args:
        effort: share of its power that the engine may spend, above 0 to 1.
        ladders: of the engine's policies; none where clocks are not ours to lower.
    """
    caps: dict[str, int] = {}
    lowest, clock, cores = 0.0, 0.0, 0
    for one in ladders:
        fitting = [hz for hz, share in zip(one.steps_hz, one.powers, strict=True) if share <= effort + 1e-9]
        caps[one.name] = max(fitting, default=one.steps_hz[0])
        lowest += one.powers[0] * len(one.cores)
        clock += caps[one.name] / one.steps_hz[-1] * len(one.cores)
        cores += len(one.cores)
    if not cores:
        return Spent({}, effort)
    return Spent(caps, min(1.0, effort * cores / lowest), clock / cores)


def _even(lowest_hz: int, highest_hz: int) -> tuple[int, ...]:
    width = (highest_hz - lowest_hz) / STEPS
    return (*(round((lowest_hz + width * n) / 1000) * 1000 for n in range(STEPS)), highest_hz)


@dataclass(slots=True)
class Cap:
    """Whose the cap of one policy is, over time.

    Attributes:
        owner_hz: what holds without us; None until that could be read: while the kernel throttles, it shows its
            own figure.
        ours_hz: what we wrote; None while the owner's holds.
    """

    owner_hz: int | None = None
    ours_hz: int | None = None
    _doubted_hz: int | None = None

    def look(self, found: Found, *, hot: bool) -> bool:
        """Take a reading; True when somebody else has changed the cap.

        A higher figure than expected is somebody else's in any case, a lower one only when it is read twice while
        neither the kernel's cooling is at work nor the board hot: some vendors' kernels throttle without telling.
        """
        hz = min(found.cap_hz, found.highest_hz)
        expected_hz = self.ours_hz or self.owner_hz
        doubted_hz, self._doubted_hz = self._doubted_hz, None
        if expected_hz is None:
            if not found.held:
                self.owner_hz = hz
            return False
        if abs(hz - expected_hz) <= SAME * expected_hz:
            return False
        if hz < expected_hz:
            if found.held or hot:
                return False
            if hz != doubted_hz:
                self._doubted_hz = hz
                return False
        self.owner_hz, self.ours_hz = hz, None
        return True

    def wish(self, hz: int) -> int | None:
        """What to write for a cap of `hz`; None where that holds already. `wrote` follows a success."""
        if self.owner_hz is None or self._doubted_hz is not None:
            return None
        hz = min(hz, self.owner_hz)
        return None if hz == (self.ours_hz or self.owner_hz) else hz

    def wrote(self, hz: int) -> None:
        """The kernel has it."""
        self.ours_hz = None if hz == self.owner_hz else hz


# what is kept on disk, for whoever comes after a daemon that was killed -----------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """What was there before us: owners' caps by policy, in one boot of the kernel, which forgets caps itself."""

    boot_id: str
    owners_hz: Mapping[str, int] = field(default_factory=dict)


def encode(kept: Kept) -> str:
    """One line: the boot's name, then `policy4=2400000000` for each."""
    return " ".join([kept.boot_id, *(f"{name}={hz}" for name, hz in sorted(kept.owners_hz.items()))])


def decode(line: str) -> Kept | None:
    """The reverse; None for an empty or damaged line."""
    boot_id, *words = line.split() or [""]
    owners: dict[str, int] = {}
    for word in words:
        name, _, digits = word.partition("=")
        number = name.removeprefix("policy")
        well = name.startswith("policy") and _number(number, 4) and _number(digits, 12)
        if not well or int(digits) == 0:
            return None
        owners[name] = int(digits)
    return Kept(boot_id, owners) if owners else None


def lowered(kept: Kept | None, boot_id: str | None, found: Sequence[Found]) -> frozenset[int]:
    """Cores that a daemon lowered and holds lowered still, by its note: those below what it says was there before.

    The note stays until the daemon ends, and after a power cut until the next one starts.
    """
    if kept is None or kept.boot_id != boot_id:
        return frozenset()
    ours = (one for one in found if one.cap_hz < (1 - SAME) * kept.owners_hz.get(one.name, 0))
    return frozenset(core for one in ours for core in one.cores)


def _number(text: str, digits_max: int) -> bool:
    return len(text) <= digits_max and text.isascii() and text.isdigit()


def in_words(caps_hz: Mapping[str, int]) -> str:
    """For the log: `policy4 and policy6 1.61 GHz`; policies with the same cap together."""
    by_hz = itertools.groupby(
        sorted(caps_hz.items(), key=lambda one: (one[1], one[0])), key=lambda one: one[1]
    )
    return ", ".join(f"{' and '.join(name for name, _ in group)} {hz / 1e9:.2f} GHz" for hz, group in by_hz)
