"""Writes the files of a made-up board, in the forms in which Linux shows them.

Here live the places and forms of the files; which figures a board has stands with the boards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

BOOT_ID = "3f8a1c52-90b7-4d1e-8c66-0a5be7d2f913"

CORTEX_A53, CORTEX_A55, CORTEX_A72, CORTEX_A76 = 0xD03, 0xD05, 0xD08, 0xD0B

ARMV8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
ARMV8_2 = f"{ARMV8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
FEATURES = {CORTEX_A53: ARMV8_0, CORTEX_A72: ARMV8_0, CORTEX_A55: ARMV8_2, CORTEX_A76: ARMV8_2}
"""What arm64 kernels name in /proc/cpuinfo (arch/arm64/kernel/cpuinfo.c); the Raspberry Pis' A53 and A72 lack
`aes` to `sha2`, which nothing here reads."""

Builder = Callable[[Path], Path]
"""Fills a root with a board and returns it."""

Trips = Sequence[tuple[str, int, int]]
"""Type, temperature and hysteresis, both in thousandths of a degree."""


def put(path: Path, content: str | bytes) -> None:
    """Write one file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def zone(root: Path, number: int, name: str, millidegrees: int | None, trips: Trips) -> None:
    """A thermal zone; without a temperature its `temp` is not there."""
    directory = root / f"sys/class/thermal/thermal_zone{number}"
    put(directory / "type", f"{name}\n")
    if millidegrees is not None:
        put(directory / "temp", f"{millidegrees}\n")
    for index, (kind, trip, hysteresis) in enumerate(trips):
        for file, value in {"type": kind, "temp": trip, "hyst": hysteresis}.items():
            put(directory / f"trip_point_{index}_{file}", f"{value}\n")


def cooling(root: Path, number: int, name: str, state: int, highest: int = 4) -> None:
    """A cooling device; a `state` above 0 cools."""
    device = root / f"sys/class/thermal/cooling_device{number}"
    put(device / "type", f"{name}\n")
    put(device / "cur_state", f"{state}\n")
    put(device / "max_state", f"{highest}\n")


def devfreq(root: Path, name: str, now_hz: int, max_hz: int, governor: str) -> None:
    """A device's clock; these are in hertz."""
    for file, value in {"cur_freq": now_hz, "max_freq": max_hz, "governor": governor}.items():
        put(root / "sys/class/devfreq" / name / file, f"{value}\n")


def confined(root: Path, cores: str, cgroup: str | None = None, quota: str | None = None) -> None:
    """This process may use these cores only; its cgroup is named where there is one, with its `cpu.max`."""
    put(root / "proc/self/status", f"Name:\tedged\nCpus_allowed:\tff\nCpus_allowed_list:\t{cores}\n")
    if cgroup is not None:
        put(root / "proc/self/cgroup", f"0::/{cgroup}\n")
        put(root / "sys/fs/cgroup" / cgroup / "cpuset.cpus.effective", f"{cores}\n")
        put(root / "sys/fs/cgroup" / cgroup / "cpu.max", f"{quota or 'max 100000'}\n")


def policy(
    root: Path,
    number: int,
    cores: Sequence[int],
    now_khz: int,
    max_khz: int,
    *,
    governor: str = "schedutil",
    offered_khz: Sequence[int] = (),
) -> None:
    """A cpufreq policy that is not capped; without `offered_khz` it lists no clocks, as intel_pstate."""
    listed = " ".join(map(str, cores))
    attributes: Mapping[str, object] = {
        "affected_cpus": listed,
        "related_cpus": listed,
        "scaling_cur_freq": now_khz,
        "scaling_max_freq": max_khz,
        "cpuinfo_max_freq": max_khz,
        "scaling_governor": governor,
    }
    if offered_khz:
        listed = " ".join(map(str, offered_khz))
        attributes = {
            **attributes,
            "scaling_available_frequencies": f"{listed} ",
            "cpuinfo_min_freq": offered_khz[0],
        }
    for file, value in attributes.items():
        put(root / f"sys/devices/system/cpu/cpufreq/policy{number}" / file, f"{value}\n")


def arm_cores(root: Path, parts: Sequence[int], capacities: Sequence[int] | None) -> None:
    """Online cores by CPU part, in sysfs and as arm64 prints them in /proc/cpuinfo."""
    cpu = root / "sys/devices/system/cpu"
    for file in ("online", "present", "possible"):
        put(cpu / file, f"0-{len(parts) - 1}\n")
    for core, capacity in enumerate(capacities or [None] * len(parts)):
        (cpu / f"cpu{core}").mkdir(parents=True, exist_ok=True)
        if capacity is not None:
            put(cpu / f"cpu{core}/cpu_capacity", f"{capacity}\n")
    blocks = [
        f"processor\t: {core}\nBogoMIPS\t: 48.00\nFeatures\t: {FEATURES[part]}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {part:#x}\nCPU revision\t: 1\n"
        for core, part in enumerate(parts)
    ]
    put(root / "proc/cpuinfo", "\n".join(blocks) + "\n")


def model(root: Path, model: str) -> None:
    """The device tree's model, which ends in NUL."""
    put(root / "sys/firmware/devicetree/base/model", f"{model}\0")


def supply(root: Path, alarm: int) -> None:
    """Two hwmon devices, of which the second is the Raspberry Pi's supply monitor."""
    put(root / "sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    put(root / "sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    put(root / "sys/class/hwmon/hwmon1/in0_lcrit_alarm", f"{alarm}\n")


def system(root: Path, memory_kib: int) -> None:
    """What every Linux shows: load, memory (three quarters of it free), boot id."""
    put(root / "proc/loadavg", "0.42 0.35 0.30 1/213 4711\n")
    free = memory_kib * 3 // 4
    put(
        root / "proc/meminfo",
        f"MemTotal:       {memory_kib} kB\nMemFree:        {free - 1} kB\nMemAvailable:   {free} kB\n",
    )
    put(root / "proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n")
