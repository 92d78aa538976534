"""Cool but slow: is the board slower today than it was when it was calibrated, and what may be to blame.

Heat is the other policy's matter; this one notices a governor that was changed, a clock that stayed capped after
cooling (radxa/kernel #536), a weak supply, a busy neighbour. Pure functions, run by the dispatcher thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.core.topology import format_cores
from edged.core.vitals import Vitals

SLOW_SHARE, WELL_SHARE = 0.7, 0.8
"""Below the first share of the calibrated rate the board is slow, from the second on it is well again; between
them nothing changes, so that a rate near the border does not ring the bell every minute."""
WINDOW_S = 15.0
"""So much comparable work must agree before anything is said: a neighbour's short burst is no news."""
GAP_S = 2.0
"""A sample stands for the time since the last one, but for no longer than this: the engine sends two a second."""
HELD_SHARE = 0.95
SLEEPY = frozenset({"powersave", "conservative", "userspace"})
"""Governors that may hold a clock low while there is work; `powersave` of intel_pstate does not, and is left
alone while the clock is high."""


@dataclass(frozen=True, slots=True)
class Slowness:
    """What is thought of the speed, and the evidence against it.

    Attributes:
        slow: as last said.
        share: of the calibrated rate, in the newest comparable sample; None before any.
        against_s: seconds of comparable work in a row that spoke against `slow` as it stands.
        at_s: when the newest sample was taken.
    """

    slow: bool = False
    share: float | None = None
    against_s: float = 0.0
    at_s: float | None = None


def judge(before: Slowness, share: float | None, at_s: float) -> Slowness:
    """Take one sample into account.

    Args:
        before: what was thought until now.
        share: today's rate as a share of the calibrated one; None where the work does not compare (several
            questions at once, fewer threads, a warm board): it proves nothing either way.
        at_s: monotonic seconds.
    """
    if share is None:
        return Slowness(before.slow, before.share, before.against_s, at_s)
    passed_s = min(GAP_S, max(0.0, at_s - before.at_s)) if before.at_s is not None else 0.0
    against = share >= WELL_SHARE if before.slow else share < SLOW_SHARE
    if not against:
        return Slowness(before.slow, share, 0.0, at_s)
    against_s = before.against_s + passed_s
    if against_s < WINDOW_S:
        return Slowness(before.slow, share, against_s, at_s)
    return Slowness(not before.slow, share, 0.0, at_s)


def suspects(vitals: Vitals, engine: tuple[int, ...]) -> list[str]:
    """What the board tells that would explain it, most telling first; a sentence's part each.

    Args:
        vitals: the latest reading, taken while there was work.
        engine: the engine's cores.
    """
    found = []
    if vitals.under_voltage:
        found.append("the supply voltage is too low (use a stronger supply or a shorter cable)")
    for clock in vitals.clocks:
        if not set(clock.cores) & set(engine):
            continue
        cores, best_hz = format_cores(clock.cores), clock.hardware_max_hz
        if best_hz and clock.max_hz and clock.max_hz < HELD_SHARE * best_hz:
            found.append(f"the clock of cores {cores} is capped at {_ghz(clock.max_hz)} of {_ghz(best_hz)}")
        low = best_hz is not None and clock.now_hz is not None and clock.now_hz < HELD_SHARE * best_hz
        if clock.governor in SLEEPY and low:
            found.append(f"the governor of cores {cores} is {clock.governor}")
    if vitals.throttled and not any("capped" in one for one in found):
        found.append("the kernel holds a clock down, though the board is cool")
    if vitals.load_1m is not None and vitals.load_1m > 1.5 * max(1, len(engine)):
        found.append(f"other programs compute (load {vitals.load_1m:.1f})")
    return found


def _ghz(hz: int) -> str:
    return f"{hz / 1e9:.2f} GHz"
