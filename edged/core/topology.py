"""Which cores the engine runs on, and with how many threads.

Here live the shape of a board's processor and the choice made from it. Reading the board (files, affinity)
is the vitals adapter's and the daemon's; nothing here touches a file, a clock or a logger. Pure functions,
run by the daemon once at start.

Little cores slow llama.cpp down by half when they are given a share of the work (each matrix product waits
for the slowest thread), so the engine is pinned to the big ones only and the daemon to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

BIG_SHARE = 0.8
"""A core is big when its figure is at least this share of the largest: RK3588's two A76 pairs differ a
little in clock, and x86 cores in turbo, without being of another kind."""

LITTLE_PARTS = frozenset({0xD03, 0xD04, 0xD05, 0xD46, 0xD80})
"""Arm's `CPU part` of Cortex-A53, A35, A55, A510, A520 (Linux, arch/arm64/include/asm/cputype.h). The big
ones (0xd08 A72, 0xd0b A76 and whatever comes) are all the others."""

CORTEX_A76 = 0xD0B

CORE_LIMIT = 4096
"""Highest core index + 1 believed in a list; CONFIG_NR_CPUS stays below it, and a typing error ends early."""

_RANGE = re.compile(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", re.ASCII)

KEPT_AWAY = "allow them: AllowedCPUs= or CPUAffinity= of the unit, isolcpus= on the kernel's command line"
"""What mends `Choice.kept_away`."""


@dataclass(frozen=True, slots=True)
class Core:
    """One core that is online.

    Attributes:
        index: the kernel's number, from 0.
        capacity: `cpu_capacity`, 1 to 1024, relative to the board's fastest core; None where the kernel
            gives none.
        max_hz: highest clock the hardware has.
        part: Arm's `CPU part`; None on other architectures.
    """

    index: int
    capacity: int | None = None
    max_hz: int | None = None
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """The board's name as it gives it, and its cores, ascending; none where nothing could be read."""

    board: str | None = None
    cores: tuple[Core, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Who runs where.

    Attributes:
        engine: cores of the engine process, ascending, never empty.
        daemon: cores of the daemon, ascending, never empty; the same as `engine` where there are none to
            spare.
        reason: why, in one sentence, for logs and `info`.
        decode_threads: the count that decodes fastest where that has been measured; None: one per engine
            core.
        kept_away: the board's big cores, where this process may use none of them and the settings named none.
    """

    engine: tuple[int, ...]
    daemon: tuple[int, ...]
    reason: str
    decode_threads: int | None = None
    kept_away: tuple[int, ...] = ()


def parse_cores(text: str) -> tuple[int, ...]:
    """Read a list of cores as in `4-7`, `4,5,6,7` or `0,2-3` (also the kernel's own form).

    Returns:
        The indices, ascending, each once.

    Raises:
        ValueError: the text is no such list, a range runs backwards, or an index is 4096 or above.
    """
    cores: set[int] = set()
    for item in text.split(","):
        match = _RANGE.fullmatch(item)
        if match is None:
            raise ValueError(f"cores {text[:80]!r} is no list of cores: write it as 4-7 or 4,5,6,7")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise ValueError(f"cores {text[:80]!r}: the range {first}-{last} runs backwards")
        if last >= CORE_LIMIT:
            raise ValueError(
                f"cores {text[:80]!r}: core {last} is above the highest possible, {CORE_LIMIT - 1}"
            )
        cores.update(range(first, last + 1))
    return tuple(sorted(cores))


def format_cores(cores: Iterable[int]) -> str:
    """Write cores the short way, `0-3,6`; `parse_cores` reads it back. Empty text for no cores."""
    runs: list[list[int]] = []
    for core in sorted(set(cores)):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def big_cores(topology: Topology, allowed: frozenset[int]) -> Choice:
    """Choose the engine's cores: the big ones among those this process may use.

    The first evidence that tells the cores apart decides: `cpu_capacity`, highest clock, CPU part. Equal
    figures prove nothing (a device tree without capacities yields 1024 for every core), so then the next is
    asked.

    Args:
        topology: what the board says of its cores.
        allowed: indices this process may run on (affinity mask, which a cgroup's cpuset narrows).

    Returns:
        `engine` is within `allowed`, and so is `daemon`.

    Raises:
        ValueError: `allowed` is empty.
    """
    if not allowed:
        raise ValueError("no core is allowed to this process: its affinity mask or cpuset is empty")
    known = tuple(core for core in topology.cores if core.index in allowed)
    decode = _decode_threads(topology)
    if not known:
        cores = tuple(sorted(allowed))
        reason = f"the board says nothing of its cores: engine and daemon share {format_cores(cores)}"
        return Choice(cores, cores, reason, decode)
    big, why = _tell_apart(known)
    biggest = _tell_apart(topology.cores)[0]
    away = () if biggest & allowed else tuple(sorted(biggest))
    engine = tuple(core.index for core in known if core.index in big)
    rest = tuple(sorted(allowed.difference(engine)))
    if rest:
        words = f"{why}: engine on {format_cores(engine)}, daemon on {format_cores(rest)}"
    else:
        words = f"{why}: engine and daemon share {format_cores(engine)}"
    if away:
        words += f"; its big cores, {format_cores(away)}, may not be used"
    return Choice(engine, rest or engine, words, decode, away)


def named_cores(topology: Topology, allowed: frozenset[int], cores: tuple[int, ...]) -> Choice:
    """Give the engine the cores that the settings name; the daemon gets the other allowed ones, or shares.

    Raises:
        ValueError: a named core is not there or not allowed, or none is named; the text says which and what
            is.
    """
    if not cores:
        raise ValueError("cores names no core: leave it out to have the big ones found")
    present = frozenset(core.index for core in topology.cores)
    if present and (missing := set(cores) - present):
        raise ValueError(
            f"cores: {format_cores(missing)} not on this board, which has {format_cores(present)} online"
        )
    if forbidden := set(cores) - allowed:
        usable = format_cores(allowed) or "none"
        raise ValueError(
            f"cores: {format_cores(forbidden)} not allowed to this process, which may use {usable}"
        )
    engine = tuple(sorted(set(cores)))
    rest = tuple(sorted(allowed.difference(engine))) or engine
    reason = f"named in the settings: engine on {format_cores(engine)}, daemon on {format_cores(rest)}"
    return Choice(engine, rest, reason, _decode_threads(topology))


def choose(topology: Topology, allowed: frozenset[int], wanted: frozenset[int] | None) -> Choice:
    """Give the engine the cores that the settings want, or where they want none the big ones.

    Raises:
        ValueError: as in `named_cores` and `big_cores`.
    """
    if wanted is None:
        return big_cores(topology, allowed)
    return named_cores(topology, allowed, tuple(sorted(wanted)))


def threads(
    choice: Choice,
    decode: int | None = None,
    prefill: int | None = None,
    quota: float | None = None,
    calibrated: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Settle the two thread counts: `(decode, prefill)`, each from 1 to the number of engine cores.

    Prefill is bound by arithmetic and wants every engine core. Decode is bound by memory bandwidth and
    wants as many only where fewer have not been measured to be faster, and what was measured on this very board
    goes before both. No default is more than a cgroup gives time for: llama.cpp's threads wait for each other in
    loops, and would spend that time on it.

    Args:
        choice: the engine's cores.
        decode: explicit count, or None for the default.
        prefill: explicit count, or None for the default.
        quota: cores' worth of time that the cgroup allows; None for no limit.
        calibrated: both counts as `edged calibrate` found them to be best; None where it has not.

    Raises:
        ValueError: an explicit count is below 1 or above the number of engine cores.
    """
    pinned = len(choice.engine)
    for name, count in (("decode_threads", decode), ("prefill_threads", prefill)):
        if count is not None and not 1 <= count <= pinned:
            where = f"{pinned} core{'s' if pinned != 1 else ''} ({format_cores(choice.engine)})"
            raise ValueError(f"{name} is {count}, but the engine is pinned to {where}: choose 1 to {pinned}")
    most = pinned if quota is None else max(1, min(pinned, int(quota)))
    best = calibrated or (choice.decode_threads or most, most)
    return (
        min(best[0], most) if decode is None else decode,
        min(best[1], most) if prefill is None else prefill,
    )


def _tell_apart(cores: tuple[Core, ...]) -> tuple[frozenset[int], str]:
    """Return the indices of the big cores (all, where nothing tells them apart) and the evidence in words."""
    capacities = [core.capacity for core in cores]
    clocks = [core.max_hz for core in cores]
    for name, figures in (("cpu_capacity", capacities), ("highest clock", clocks)):
        known = [figure for figure in figures if figure is not None]
        if len(known) < len(cores):
            continue
        threshold = BIG_SHARE * max(known)
        big = frozenset(core.index for core, figure in zip(cores, known, strict=True) if figure >= threshold)
        if len(big) < len(cores):
            return big, f"big cores by {name}"
    parts = [core.part for core in cores]
    little = frozenset(core.index for core in cores if core.part in LITTLE_PARTS)
    if None not in parts and 0 < len(little) < len(cores):
        return frozenset(core.index for core in cores) - little, "big cores by CPU part"
    everything = frozenset(core.index for core in cores)
    if len(cores) == 1:
        return everything, "there is one core"
    complete = any(None not in figures for figures in (capacities, clocks, parts))
    return everything, "all cores are equal" if complete else "nothing tells the cores apart"


def _decode_threads(topology: Topology) -> int | None:
    """Two on four equal A76, the shape of a Raspberry Pi 5; None elsewhere, for want of a measurement.

    Qwen2.5-1.5B Q4_0 decodes there at 10.5, 12.4, 11.2 and 9.9 tokens/s with 1 to 4 threads: two saturate the
    memory bus and more only contend for it (Arm learning path "llm-decode-roofline").
    """
    cores = topology.cores
    four_a76 = len(cores) == 4 and all(core.part == CORTEX_A76 for core in cores)  # noqa: PLR2004 - the board's shape
    return 2 if four_a76 else None
