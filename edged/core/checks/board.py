"""The board: its cores, clocks, heat, supply, and the instruction sets that llama.cpp makes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from edged.core.board import Board, Cluster, cores_in_words
from edged.core.checks.verdict import Verdict, failure, ok, unknown, warning
from edged.core.gpu import why_unused
from edged.core.heat.clocks import Found
from edged.core.heat.margins import Margins
from edged.core.huge_pages import HugePages, Measured
from edged.core.slowness import SLEEPY
from edged.core.topology import KEPT_AWAY, Choice, format_cores
from edged.core.vitals import (
    Trip,
    Vitals,
    Zone,
    headroom_c,
    level,
    nearest_trip,
    plausible_c,
    plausible_trip,
)

DYNAMIC_DRIVERS = ("intel_pstate", "amd-pstate", "amd_pstate")
"""Their `powersave` raises the clock under load (Linux, admin-guide/pm/intel_pstate.rst and amd-pstate.rst)."""
HELD_SHARE = 0.98
INSTALL_AGAIN = "bash deploy/try in the checkout, or sh install in the release"

USED = {"asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "avx2": "AVX2", "avx512f": "AVX512"}
"""The kernel's name of an instruction set and llama.cpp's (ggml-cpu, system info)."""
NEEDED = {"asimddp": "dotprod", "i8mm": "i8mm", "avx2": "AVX2", "avx512f": "AVX512"}
"""Those whose lack costs speed: without dotprod Q4_0 runs at about half of it. SVE of 128 bits wins nothing."""


@dataclass(frozen=True, slots=True)
class Library:
    """What became of asking llama.cpp for the instruction sets it uses.

    Attributes:
        sets: as llama.cpp names them; None where it could not be asked.
        reason: why not.
        illegal: the process died of an instruction that this processor does not have.
        gpus: the devices that it finds.
        gpu_backends: the kinds that it was built for.
    """

    sets: frozenset[str] | None
    reason: str = ""
    illegal: bool = False
    gpus: tuple[str, ...] = ()
    gpu_backends: frozenset[str] = frozenset()


def board(found: Board) -> Verdict:
    """Its name and cores; cores that are switched off."""
    cores = cores_in_words(found)
    words = ", ".join(word for word in (found.name, f"cores {cores}" if found.clusters else cores) if word)
    if not found.clusters:
        return unknown("board", words)
    if found.offline:
        first = found.offline[0]
        return warning("board", words, f"echo 1 | sudo tee /sys/devices/system/cpu/cpu{first}/online")
    return ok("board", words)


def cores(found: Board, choice: Choice | None, reason: str = "") -> Verdict:
    """Who runs where; cores or time that a cgroup keeps from the engine."""
    if choice is None:
        return failure("cores", reason or "no core may be used", "correct it under [engine], or leave it out")
    engine = format_cores(choice.engine)
    words = choice.reason
    if found.cpu_quota is not None and found.cpu_quota < len(choice.engine):
        words = f"{words}; but its cgroup allows the time of {found.cpu_quota:g} cores only"
        return warning("cores", words, "raise CPUQuota= of the unit, or cpu.max of its cgroup")
    if choice.kept_away:
        return warning("cores", words, KEPT_AWAY)
    big = next((cluster for cluster in found.clusters if choice.engine[0] in cluster.cores), None)
    missing = _kept_away(found, big) if big is not None else []
    if missing and found.allowed:
        words = f"{words}; cores {format_cores(missing)} of the same kind are not allowed"
        return warning("cores", words, f"widen AllowedCPUs= of the unit (now {format_cores(found.allowed)})")
    return ok("cores", words if engine in words else f"{words}: engine on {engine}")


def _kept_away(found: Board, big: Cluster) -> list[int]:
    same = [one for one in found.clusters if (one.part, one.capacity) == (big.part, big.capacity)]
    return [core for one in same for core in one.cores if core not in found.allowed]


def clocks(found: Board, engine: tuple[int, ...], lowered: Collection[int] = ()) -> Iterator[Verdict]:
    """Governor and cap of the engine's cores, one verdict a cluster; `lowered`: those whose cap is edged's."""
    told = [cluster for cluster in found.clusters if set(cluster.cores) & set(engine) and cluster.governor]
    if not told:
        yield unknown("clocks", "this machine does not tell its clocks (a virtual machine?)")
    for cluster in told:
        first = cluster.cores[0]
        policy = f"/sys/devices/system/cpu/cpu{first}/cpufreq"
        words = f"cores {format_cores(cluster.cores)}: {cluster.governor}"
        if cluster.now_hz:
            words += f", {cluster.now_hz / 1e9:.2f} GHz now"
        best_hz = cluster.hardware_max_hz
        if best_hz and cluster.max_hz and cluster.max_hz < HELD_SHARE * best_hz:
            words += f", held at {cluster.max_hz / 1e9:.2f} of {best_hz / 1e9:.2f} GHz"
            if set(cluster.cores) <= set(lowered):
                yield ok("clocks", f"{words} by edged, for heat")
                continue
            yield warning("clocks", words, f"echo {best_hz // 1000} | sudo tee {policy}/scaling_max_freq")
        elif cluster.governor in SLEEPY and not (cluster.driver or "").startswith(DYNAMIC_DRIVERS):
            yield warning("clocks", words, f"echo ondemand | sudo tee {policy}/scaling_governor")
        else:
            yield ok("clocks", f"{words}{f' of {best_hz / 1e9:.2f} GHz' if best_hz else ''}")


def caps(found: Sequence[Found], mend: str, *, wanted: bool) -> Verdict:
    """Whether heat may lower the engine's clocks, as far as this account can tell.

    Args:
        found: their policies.
        mend: the command that gives the right.
        wanted: by the settings.
    """
    name = "clock caps"
    if not wanted:
        return ok(name, "heat.clocks is off: heat takes threads and time only")
    if not found:
        return unknown(name, "no clocks to lower: heat takes threads and time only")
    barred = [one.name for one in found if not one.writable]
    if barred:
        words = f"heat may not lower {', '.join(barred)}, and takes more speed for as much cooling"
        return warning(name, words, f"{mend}; the shipped unit does it for the service")
    return ok(name, f"heat may lower {', '.join(one.name for one in found)}")


def heat(vitals: Vitals, margins: Margins) -> Verdict:
    """The hottest zone against its own trips; `vitals` with the trips that only edged knows."""
    room_c = headroom_c(vitals.zones)
    read = [zone for zone in vitals.zones if plausible_c(zone.temp_c) is not None]
    if not vitals.zones:
        return unknown("heat", "no thermal sensor on this machine")
    if not read or (room_c is None and any(nearest_trip(zone) is not None for zone in vitals.zones)):
        words = "every sensor that heat could go by is silent or lies"
        return warning("heat", words, "look into dmesg for thermal errors")
    if room_c is None:
        hottest = max(read, key=lambda zone: zone.temp_c or 0.0)
        words = f"{hottest.name} is at {hottest.temp_c:.1f} C; no zone tells a trip point"
        return warning(
            "heat", words, "under [heat]: trip_c = where this board throttles, by its maker's word"
        )
    heat_level, reason = level(
        vitals, warm_c=margins.warm_c, hot_c=margins.hot_c, critical_c=margins.critical_c
    )
    if heat_level == "cool":
        return ok("heat", reason)
    mend = "give it a larger heatsink or a fan, and air"
    return failure("heat", reason, mend) if heat_level == "critical" else warning("heat", reason, mend)


def sensors(vitals: Vitals) -> Verdict | None:
    """Zones that have a trip and tell no temperature, while others do; None where there is none."""
    zones = [zone for zone in vitals.zones if nearest_trip(zone) is not None]
    silent = [_short(zone) for zone in zones if plausible_c(zone.temp_c) is None]
    if not silent or len(silent) == len(zones):
        return None
    words = (
        f"{', '.join(silent)} {'is' if len(silent) == 1 else 'are'} silent or lie{'s' * (len(silent) == 1)}"
    )
    return warning("sensors", f"{words}: heat goes by the others", "look into dmesg for thermal errors")


def trips(vitals: Vitals) -> Verdict:
    """The trips that slow the board down or switch it off, with their hysteresis; zones with the same together."""
    told: dict[str, list[str]] = {}
    for zone in vitals.zones:
        if nearest_trip(zone) is not None:
            heating = [trip for trip in zone.trips if trip.kind != "active" and plausible_trip(trip)]
            found = [_trip(trip) for trip in sorted(heating, key=lambda trip: trip.temp_c)]
            told.setdefault(", ".join(found), []).append(_short(zone))
    words = "; ".join(f"{', '.join(zones)}: {trips}" for trips, zones in told.items())
    return ok("trips", f"{words} C") if told else unknown("trips", "no zone tells a trip point")


def _short(zone: Zone) -> str:
    return zone.name.removesuffix("-thermal")


def _trip(trip: Trip) -> str:
    return f"{trip.kind} {trip.temp_c:g}{f' -{trip.hysteresis_c:g}' if trip.hysteresis_c else ''}"


def supply(vitals: Vitals) -> Verdict | None:
    """Raspberry Pi: whether the voltage holds; None on boards that do not tell."""
    if vitals.under_voltage is None:
        return None
    if vitals.under_voltage:
        return failure(
            "supply",
            "the voltage is too low: the board slows down and may crash",
            "use the supply that its maker names (Raspberry Pi 5: 27 W, 4: 15 W) and a short cable",
        )
    return ok("supply", "the voltage holds")


def huge_pages(found: HugePages | None, setting: str = "auto", measured: Measured | None = None) -> Verdict:
    """Whether the weights stand in huge pages.

    Args:
        found: what the kernel gives.
        setting: `engine.huge_pages`.
        measured: what a calibration that holds says of them.
    """
    name = "huge pages"
    if setting == "off":
        return ok(name, "the engine does without: engine.huge_pages is off")
    if setting == "auto" and measured is not None and measured.slower:
        return ok(name, measured.words)
    if found is None:
        return unknown(name, "this kernel does not tell of them")
    if not found.usable:
        return ok(name, f"of {found.size_bytes >> 20} MiB: too large for the engine, which does without")
    if found.mode == "never":
        words = "this kernel gives none, and decoding wants them (a tenth of the speed, on x86)"
        return warning(name, words, "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    return ok(name, "the engine asks for them" if found.asked_for else "this kernel gives them to everybody")


def instructions(found: Board, library: Library) -> Verdict:
    """What the processor has against what this build of llama.cpp uses."""
    name = "llama.cpp"
    if library.illegal:
        words = "it dies of an illegal instruction: this build is for another processor"
        return failure(name, words, INSTALL_AGAIN)
    if library.sets is None:
        words, _, mend = library.reason.removeprefix("llama.cpp cannot be loaded: ").partition("; ")
        return failure(name, f"it cannot be loaded: {words}", mend or INSTALL_AGAIN)
    there = [NEEDED[one] for one in found.instruction_sets if one in NEEDED]
    unused = [
        NEEDED[one] for one in found.instruction_sets if one in NEEDED and USED[one] not in library.sets
    ]
    if unused:
        words = f"the processor has {', '.join(unused)}, but this build does not use it"
        return warning(name, words, INSTALL_AGAIN)
    if not there:
        return warning(name, "neither dotprod nor AVX2: prompts are read slowly on this processor")
    return ok(name, f"uses {', '.join(there)}")


def gpu(library: Library, layers: int) -> Verdict | None:
    """Whether the layers that the settings put on a GPU find one; None where neither asks for the other."""
    name = "gpu"
    if library.sets is None or (layers == 0 and not library.gpus):
        return None
    devices = ", ".join(library.gpus)
    if layers == 0:
        return ok(name, f"{devices}: not used, engine.gpu_layers is 0")
    if not library.gpus:
        return warning(name, *why_unused(sorted(library.gpu_backends)))
    return ok(name, f"{devices}: engine.gpu_layers is {layers}")
