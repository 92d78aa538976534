"""Reads the board: temperatures, clocks, cores, supply, load, memory.

The only place that knows where Linux keeps them, and that names psutil. What the readings mean is
`edged.core.vitals` and `edged.core.topology`. Runs in whichever thread of the daemon asks; nothing is kept
between two readings.

Everything is read below two roots, so a tree of plain files can stand in for a board. A file that tells
nothing usable makes its item absent and nothing else: no reading raises.

Where things stand: Linux, Documentation/ABI/testing/sysfs-class-thermal and sysfs-devices-system-cpu,
Documentation/admin-guide/pm/cpufreq.rst, drivers/hwmon/raspberrypi-hwmon.c; proc(5).
"""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from ...core.board import Board, describe
from ...core.topology import Core, Topology
from ...core.vitals import Clock, Trip, Vitals, Zone, plausible_c, plausible_trip, without_sleepers
from . import files
from .rest import cpu_quota, read_rest

VMSTAT_BYTES_MAX = 64 * 1024

_SYS = Path("/sys")
_PROC = Path("/proc")
_KIBIBYTES = re.compile(r"^(MemTotal|MemAvailable|VmRSS):\s+([0-9]{1,15}) kB$", re.ASCII | re.MULTILINE)
_CPUINFO = re.compile(r"^(processor|CPU part|model name|Model)[ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_OOM_KILLS = re.compile(r"^oom_kill ([0-9]{1,15})$", re.MULTILINE | re.ASCII)
_INDEX = re.compile(r"[0-9]{1,4}", re.ASCII)
_PART = re.compile(r"0x[0-9a-fA-F]{1,4}", re.ASCII)
_BOOT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_PLACEHOLDERS = frozenset({"none", "default string", "system product name", "to be filled by o.e.m."})


class VitalsReader:
    """The board below two roots.

    Args:
        sys: where sysfs is mounted, or a tree that looks like it.
        proc: where procfs is mounted, or a tree that looks like it.
    """

    def __init__(self, sys: Path = _SYS, proc: Path = _PROC) -> None:
        self._sys = sys
        self._proc = proc
        self._cpu = sys / "devices/system/cpu"

    def read(self) -> Vitals:
        """Read everything that changes: about 80 small files on an RK3588."""
        clocks, cooling = self._clocks(), files.cpu_cooling(self._sys)
        memory = _memory_bytes(self._proc / "meminfo")
        return Vitals(
            zones=self._zones(),
            clocks=clocks,
            throttled=self._throttled(clocks, cooling),
            cpu_cooling=any(state > 0 for state in cooling) if cooling else None,
            under_voltage=self._under_voltage(),
            load_1m=files.first_decimal(self._proc / "loadavg"),
            memory_total_bytes=memory.get("MemTotal"),
            memory_available_bytes=memory.get("MemAvailable"),
        )

    def topology(self) -> Topology:
        """Read what stays while the board is up: its name and its online cores."""
        cpuinfo = _CPUINFO.findall(files.text(self._proc / "cpuinfo", files.CPUINFO_BYTES_MAX) or "")
        parts: dict[int, int | None] = {}
        core: int | None = None
        for key, value in cpuinfo:
            if key == "processor":
                core = int(value) if _INDEX.fullmatch(value) else None
            if core is not None:
                known = key == "CPU part" and _PART.fullmatch(value)
                parts[core] = int(value, 16) if known else parts.get(core)
        max_hz = {
            core: clock.hardware_max_hz or clock.max_hz for clock in self._clocks() for core in clock.cores
        }
        cores = tuple(
            Core(
                index=index,
                capacity=files.positive(self._cpu / f"cpu{index}" / "cpu_capacity"),
                max_hz=max_hz.get(index),
                part=parts.get(index),
            )
            for index in self._online() or sorted(parts)
        )
        return Topology(self._board(dict(reversed(cpuinfo))), cores)  # reversed: the first core's word counts

    def board(self) -> Board:
        """Read all that describes the board: name, clusters, limits, brakes, memory."""
        return describe(self.topology(), self.read(), read_rest(self._sys, self._proc))

    def cpu_quota(self) -> float | None:
        """Return cores' worth of time that the cgroup allows, None for no limit; no sensor is asked for it."""
        return cpu_quota(self._sys, self._proc)

    def boot_id(self) -> str | None:
        """Return the random name of this boot, a lower-case UUID; a clock set wrong cannot change it."""
        name = files.label(self._proc / "sys/kernel/random/boot_id") or ""
        return name if _BOOT_ID.fullmatch(name) else None

    def oom_kills(self) -> int | None:
        """Processes that the kernel has ended for want of memory since boot (/proc/vmstat, `oom_kill`)."""
        match = _OOM_KILLS.search(files.text(self._proc / "vmstat", VMSTAT_BYTES_MAX) or "")
        return int(match[1]) if match else None

    def process_memory(self, pid: int) -> int | None:
        """Return a process's resident memory in bytes, mapped model pages included; None if it cannot be read."""
        if self._proc != _PROC:
            return _memory_bytes(self._proc / str(pid) / "status").get("VmRSS")
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except (psutil.Error, ValueError, OSError):  # no process has such an id; no file can be opened
            return None

    def _zones(self) -> tuple[Zone, ...]:
        zones: dict[str, Zone] = {}
        named: set[str] = set()  # also those that tell nothing just now: names must not move up
        for number, directory in files.numbered(self._sys / "class/thermal", "thermal_zone"):
            kind = files.label(directory / "type") or f"thermal_zone{number}"
            name = kind
            while name in named:
                name += f"-{number}"
            named.add(name)
            zone = Zone(name, plausible_c(files.celsius(directory / "temp")), _trips(directory))
            if zone.temp_c is not None or zone.trips:
                zones[name] = zone
        return without_sleepers(tuple(zones.values()))

    def _clocks(self) -> tuple[Clock, ...]:
        clocks = []
        for number, directory in files.numbered(self._cpu / "cpufreq", "policy"):
            listed = files.text(directory / "affected_cpus")  # empty while the whole cluster is offline
            if listed is None:
                listed = files.text(directory / "related_cpus") or str(number)
            clock = Clock(
                cores=files.core_list(listed),
                now_hz=files.hertz(directory / "scaling_cur_freq"),
                max_hz=files.hertz(directory / "scaling_max_freq"),
                hardware_max_hz=files.hertz(directory / "cpuinfo_max_freq"),
                governor=files.label(directory / "scaling_governor"),
            )
            if clock.cores and (clock.now_hz or clock.max_hz or clock.hardware_max_hz):
                clocks.append(clock)
        return tuple(clocks)

    @staticmethod
    def _throttled(clocks: tuple[Clock, ...], cooling: list[int]) -> bool | None:
        evidence = [
            clock.max_hz < clock.hardware_max_hz for clock in clocks if clock.max_hz and clock.hardware_max_hz
        ]
        evidence += [state > 0 for state in cooling]
        return any(evidence) if evidence else None

    def _under_voltage(self) -> bool | None:
        """The driver asks the firmware every 2 s and clears its sticky bit: short dips show for 2 s."""
        for _, directory in files.numbered(self._sys / "class/hwmon", "hwmon"):
            alarm = files.integer(directory / "in0_lcrit_alarm")
            if alarm in (0, 1) and files.label(directory / "name") == "rpi_volt":
                return alarm == 1
        return None

    def _online(self) -> tuple[int, ...]:
        """Cores that are online, ascending; none where sysfs does not tell."""
        if cores := files.core_list(files.text(self._cpu / "online") or ""):
            return cores
        # Without the list, a core counts unless it says that it is offline; the boot core has no such file.
        listed = files.numbered(self._cpu, "cpu")
        return tuple(index for index, directory in listed if files.integer(directory / "online") != 0)

    def _board(self, cpuinfo: dict[str, str]) -> str | None:
        """The device tree's model; on a PC the maker's product name and the processor's."""
        for path in (self._sys / "firmware/devicetree/base/model", self._proc / "device-tree/model"):
            if model := files.label(path):
                return model
        product = files.label(self._sys / "class/dmi/id/product_name")
        names = (
            product,
            files.printable(cpuinfo.get("Model", "")),
            files.printable(cpuinfo.get("model name", "")),
        )
        return ", ".join(name for name in names if name and name.casefold() not in _PLACEHOLDERS) or None


def _trips(zone: Path) -> tuple[Trip, ...]:
    trips = []
    for number, path in files.numbered(zone, "trip_point_", "_type"):
        kind = files.label(path)
        temp_c = files.celsius(zone / f"trip_point_{number}_temp")
        if kind is not None and temp_c is not None:
            trips.append(Trip(kind, temp_c, files.celsius(zone / f"trip_point_{number}_hyst")))
    return tuple(trip for trip in trips if plausible_trip(trip))


def _memory_bytes(path: Path) -> dict[str, int]:
    return {name: int(kibibytes) * 1024 for name, kibibytes in _KIBIBYTES.findall(files.text(path) or "")}
