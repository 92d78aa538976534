"""What a board is: its clusters of cores, its sensors' limits, what cools it, its memory.

Here live the description as values and how it is put together from what was read. Reading is the vitals
adapter's; what changes by the second is `vitals`, who runs where is `topology`. Pure functions, any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.core.topology import Core, Topology, format_cores
from edged.core.vitals import Clock, Vitals, Zone, present, zones_as_json

PART_NAMES: Mapping[int, str] = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}
"""Arm's `CPU part` in words (Linux, arch/arm64/include/asm/cputype.h)."""

MATRIX_SETS = (
    "asimddp",
    "i8mm",
    "sve",
    "bf16",
    "fphp",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
)
"""Names in /proc/cpuinfo of the instruction sets that speed llama.cpp's matrix products up, slowest first of
each architecture: `asimddp` is dotprod, which the Pi 4's A72 lacks; `i8mm` came after the A76."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores of one kind that change their clock together.

    Attributes:
        cores: their indices, ascending, never empty.
        part: the core's name, `Cortex-A76`; its number as `0xd0b` where it has no name here; None off Arm.
        capacity: `cpu_capacity`, 1 to 1024; None where the kernel gives none.
        now_hz, max_hz, hardware_max_hz, governor, driver: as cpufreq tells them.
    """

    cores: tuple[int, ...]
    part: str | None = None
    capacity: int | None = None
    now_hz: int | None = None
    max_hz: int | None = None
    hardware_max_hz: int | None = None
    governor: str | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class Cooling:
    """A cooling device of the kernel: a fan, or a clock that can be lowered; `state` of `state_max` steps."""

    name: str
    state: int | None = None
    state_max: int | None = None


@dataclass(frozen=True, slots=True)
class Devfreq:
    """A clock beside the cores': memory controller (`dmc`), NPU, GPU."""

    name: str
    now_hz: int | None = None
    max_hz: int | None = None
    governor: str | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """All that stays while the board is up, and the state of its brakes.

    Attributes:
        name: as the board gives it.
        clusters: of the cores that are online, by lowest index.
        offline: cores that are there and switched off.
        allowed: cores that this process may use (affinity, cgroup); empty where that cannot be told.
        cpu_quota: cores' worth of time that the cgroup allows; None for no limit.
        instruction_sets: those of `MATRIX_SETS` that every core has; empty where nothing was read.
        zones: with their trips.
        cooling, devfreq: in the kernel's order.
        under_voltage: Raspberry Pi: the supply is too weak at the moment.
        memory_total_bytes, memory_available_bytes: of the board.
    """

    name: str | None = None
    clusters: tuple[Cluster, ...] = ()
    offline: tuple[int, ...] = ()
    allowed: tuple[int, ...] = ()
    cpu_quota: float | None = None
    instruction_sets: tuple[str, ...] = ()
    zones: tuple[Zone, ...] = ()
    cooling: tuple[Cooling, ...] = ()
    devfreq: tuple[Devfreq, ...] = ()
    under_voltage: bool | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """What is read for a board beside its vitals and its topology; the attributes are those of `Board`."""

    present: tuple[int, ...] = ()
    allowed: tuple[int, ...] = ()
    cpu_quota: float | None = None
    features: frozenset[str] = frozenset()
    drivers: Mapping[int, str] = field(default_factory=dict)
    cooling: tuple[Cooling, ...] = ()
    devfreq: tuple[Devfreq, ...] = ()


def part_name(part: int | None) -> str | None:
    """A core's name by Arm's number."""
    return None if part is None else PART_NAMES.get(part, f"{part:#x}")


def describe(topology: Topology, vitals: Vitals, rest: Rest) -> Board:
    """Put a board together from what was read of it."""
    online = frozenset(core.index for core in topology.cores)
    return Board(
        name=topology.board,
        clusters=clusters(topology.cores, vitals.clocks, rest.drivers),
        offline=tuple(core for core in rest.present if core not in online) if online else (),
        allowed=rest.allowed,
        cpu_quota=rest.cpu_quota,
        instruction_sets=tuple(name for name in MATRIX_SETS if name in rest.features),
        zones=vitals.zones,
        cooling=rest.cooling,
        devfreq=rest.devfreq,
        under_voltage=vitals.under_voltage,
        memory_total_bytes=vitals.memory_total_bytes,
        memory_available_bytes=vitals.memory_available_bytes,
    )


def clusters(
    cores: Iterable[Core], clocks: Iterable[Clock], drivers: Mapping[int, str] | None = None
) -> tuple[Cluster, ...]:
    """Group cores by what they are and by their clock; policies of one core each with the same limits make one.

    Args:
        cores: those online.
        clocks: one per cpufreq policy; cores without one are grouped by kind alone.
        drivers: cpufreq's driver, by a core of the policy.
    """
    of_core = {index: clock for clock in clocks for index in clock.cores}
    groups: dict[tuple[object, ...], list[Core]] = {}
    for core in sorted(cores, key=lambda core: core.index):
        clock = of_core.get(core.index)
        kind: tuple[object, ...] = (core.part, core.capacity)
        if clock is not None:
            shared = clock.cores if len(clock.cores) > 1 else ()
            kind += (shared, clock.hardware_max_hz, clock.max_hz, clock.governor)
        groups.setdefault(kind, []).append(core)
    return tuple(_cluster(group, of_core, drivers or {}) for group in groups.values())


def _cluster(group: list[Core], of_core: Mapping[int, Clock], drivers: Mapping[int, str]) -> Cluster:
    first = group[0]
    members = tuple(core.index for core in group)
    clock = of_core.get(first.index, Clock(members))
    return Cluster(
        cores=members,
        part=part_name(first.part),
        capacity=first.capacity,
        now_hz=clock.now_hz,
        max_hz=clock.max_hz,
        hardware_max_hz=clock.hardware_max_hz,
        governor=clock.governor,
        driver=next((drivers[index] for index in members if index in drivers), None),
    )


def cores_in_words(board: Board) -> str:
    """The clusters in a line: `0-3 Cortex-A55 1.80 GHz, 4-7 Cortex-A76 2.40 GHz; 2 off-line`."""
    parts = []
    for cluster in board.clusters:
        hz = cluster.hardware_max_hz or cluster.max_hz
        words = [format_cores(cluster.cores), cluster.part, f"{hz / 1e9:.2f} GHz" if hz else None]
        parts.append(" ".join(word for word in words if word))
    told = ", ".join(parts) or "the board says nothing of its cores"
    return f"{told}; {format_cores(board.offline)} off-line" if board.offline else told


def as_json(board: Board) -> dict[str, Any]:
    """The description for programs, what is absent left out; temperatures that no sensor can mean are absent."""
    return present(
        name=board.name,
        clusters=[
            present(
                cores=list(cluster.cores),
                part=cluster.part,
                capacity=cluster.capacity,
                now_hz=cluster.now_hz,
                max_hz=cluster.max_hz,
                hardware_max_hz=cluster.hardware_max_hz,
                governor=cluster.governor,
                driver=cluster.driver,
            )
            for cluster in board.clusters
        ],
        offline=list(board.offline),
        allowed=list(board.allowed),
        cpu_quota=board.cpu_quota,
        instruction_sets=list(board.instruction_sets),
        zones=zones_as_json(board.zones),
        cooling=[present(name=one.name, state=one.state, state_max=one.state_max) for one in board.cooling],
        devfreq=[
            present(name=one.name, now_hz=one.now_hz, max_hz=one.max_hz, governor=one.governor)
            for one in board.devfreq
        ],
        under_voltage=board.under_voltage,
        memory_total_bytes=board.memory_total_bytes,
        memory_available_bytes=board.memory_available_bytes,
    )
