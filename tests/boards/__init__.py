"""Boards as trees of files: what sysfs and procfs show there, for tests on machines without the board.

Each builder fills `root/sys` and `root/proc` and returns `root`; `VitalsReader(root / "sys", root /
"proc")` then reads the board, and so does a daemon with these two as `[paths]`. Figures come from public
device trees and driver sources named at each board; temperatures and clocks of the moment are invented.
Nothing here was copied from a running board.
"""

from __future__ import annotations

from pathlib import Path

from boards import tree
from boards.tree import BOOT_ID

__all__ = [
    "BOOT_ID",
    "broken",
    "nothing",
    "pi3b_plus",
    "pi4",
    "pi5",
    "rk3588_mainline",
    "rk3588_vendor",
    "set_temp_c",
    "stuck",
    "x86",
]


def set_temp_c(root: Path, zone: str, temp_c: float) -> None:
    """Make a board's zone, named by its type, warmer or colder while something watches."""
    for directory in (root / "sys/class/thermal").glob("thermal_zone*"):
        if (directory / "type").read_text().strip() == zone:
            tree.put(directory / "temp", f"{round(temp_c * 1000)}\n")
            return
    raise LookupError(f"{root} has no zone {zone}")


def rk3588_mainline(root: Path) -> Path:
    """A Radxa ROCK 5B with a mainline kernel: seven zones, of which four throttle at 85 C.

    Trips: arch/arm64/boot/dts/rockchip/rk3588-base.dtsi. Capacity: 530 there for the A55; the kernel scales
    it by the highest clocks (1.8 of 2.4 GHz), so sysfs shows 397 (drivers/base/arch_topology.c).
    """
    throttling: tree.Trips = [("passive", 85000, 2000), ("critical", 115000, 0)]
    shutdown: tree.Trips = [("critical", 115000, 0)]
    zones = {
        "package-thermal": (47153, shutdown),
        "bigcore0-thermal": (48076, throttling),
        "bigcore2-thermal": (47153, throttling),
        "littlecore-thermal": (47153, throttling),
        "center-thermal": (46230, shutdown),
        "gpu-thermal": (45307, throttling),
        "npu-thermal": (45307, shutdown),
    }
    for number, (name, (millidegrees, trips)) in enumerate(zones.items()):
        tree.zone(root, number, name, millidegrees, trips)
    for number, name in enumerate(("cpufreq-cpu0", "cpufreq-cpu4", "cpufreq-cpu6", "pwm-fan")):
        tree.cooling(root, number, name, 1 if name == "pwm-fan" else 0)
    tree.devfreq(root, "fb000000.gpu", 300_000_000, 1_000_000_000, "simple_ondemand")
    little = (408000, 600000, 816000, 1008000, 1200000, 1416000, 1608000, 1800000)
    tree.policy(root, 0, range(4), 408000, 1800000, offered_khz=little)
    big = (*little, 2016000, 2208000, 2400000)
    tree.policy(root, 4, range(4, 6), 2400000, 2400000, offered_khz=big)
    tree.policy(root, 6, range(6, 8), 2400000, 2400000, offered_khz=big)
    tree.arm_cores(root, [tree.CORTEX_A55] * 4 + [tree.CORTEX_A76] * 4, [397] * 4 + [1024] * 4)
    tree.model(root, "Radxa ROCK 5B")
    tree.system(root, memory_kib=16_316_804)
    return root


def rk3588_vendor(root: Path) -> Path:
    """An Orange Pi 5 with Rockchip's kernel: one zone, three trips, and two A76 pairs that differ.

    Rockchip's trees call the trip at 75 C the threshold, where the power allocator starts to watch, and the
    one at 85 C the target that it holds. Its kernels bin each chip and may give the two pairs different
    highest clocks, which scale the capacities as on mainline.
    """
    trips: tree.Trips = [("passive", 75000, 2000), ("passive", 85000, 2000), ("critical", 115000, 2000)]
    tree.zone(root, 0, "soc-thermal", 51769, trips)
    for number, name in enumerate(("thermal-cpufreq-0", "thermal-cpufreq-1", "thermal-cpufreq-2")):
        tree.cooling(root, number, name, 0)
    tree.devfreq(root, "dmc", 528_000_000, 2_112_000_000, "dmc_ondemand")
    tree.devfreq(root, "fb000000.gpu", 300_000_000, 1_000_000_000, "simple_ondemand")
    tree.devfreq(root, "fdab0000.npu", 1_000_000_000, 1_000_000_000, "rknpu_ondemand")
    tree.policy(root, 0, range(4), 1008000, 1800000, governor="ondemand")
    tree.policy(root, 4, range(4, 6), 408000, 2352000, governor="ondemand")
    tree.policy(root, 6, range(6, 8), 408000, 2304000, governor="ondemand")
    tree.arm_cores(root, [tree.CORTEX_A55] * 4 + [tree.CORTEX_A76] * 4, [405] * 4 + [1024] * 2 + [1003] * 2)
    tree.model(root, "Orange Pi 5")
    tree.system(root, memory_kib=8_129_064)
    return root


def pi5(root: Path) -> Path:
    """A Raspberry Pi 5: four equal A76, no passive trip (its firmware throttles), a fan that is running.

    Raspberry Pi's kernel tree, bcm2712.dtsi and bcm2712-rpi-5-b.dts: critical at 110 C, fan steps from 50 C.
    A device tree without capacities makes the kernel show 1024 for every core.
    """
    fan: tree.Trips = [("active", step, 5000) for step in (50000, 60000, 67500, 75000)]
    tree.zone(root, 0, "cpu-thermal", 52350, [("critical", 110000, 0), *fan])
    tree.cooling(root, 0, "pwm-fan", 1)
    offered = range(1_500_000, 2_400_001, 100_000)
    tree.policy(root, 0, range(4), 1500000, 2400000, governor="ondemand", offered_khz=offered)
    tree.arm_cores(root, [tree.CORTEX_A76] * 4, [1024] * 4)
    tree.model(root, "Raspberry Pi 5 Model B Rev 1.0")
    tree.supply(root, alarm=0)
    tree.system(root, memory_kib=8_254_656)
    return root


def pi4(root: Path) -> Path:
    """A Raspberry Pi 4: four equal A72 and one trip, critical at 90 C (mainline's bcm283x.dtsi)."""
    tree.zone(root, 0, "cpu-thermal", 55017, [("critical", 90000, 0)])
    tree.policy(root, 0, range(4), 600000, 1800000, governor="ondemand")
    tree.arm_cores(root, [tree.CORTEX_A72] * 4, [1024] * 4)
    tree.model(root, "Raspberry Pi 4 Model B Rev 1.4")
    tree.supply(root, alarm=0)
    tree.system(root, memory_kib=3_884_352)
    return root


def pi3b_plus(root: Path) -> Path:
    """A Raspberry Pi 3B+ on a weak supply, on an old kernel without `cpu_capacity`: four equal A53.

    The 60 C from which its firmware slows it down stands in no trip point; the critical one is at 90 C.
    """
    tree.zone(root, 0, "cpu-thermal", 61838, [("critical", 90000, 0)])
    tree.policy(root, 0, range(4), 600000, 1400000, governor="ondemand")
    tree.arm_cores(root, [tree.CORTEX_A53] * 4, None)
    tree.model(root, "Raspberry Pi 3 Model B Plus Rev 1.3")
    tree.supply(root, alarm=1)
    tree.system(root, memory_kib=931_404)
    return root


def x86(root: Path) -> Path:
    """A small PC with four Intel cores, one policy each, and trips that are not set.

    `x86_pkg_temp` shows 0 (older kernels) or -274000 for its two free thresholds, wireless cards -274000.
    """
    tree.zone(root, 0, "acpitz", 27800, [("critical", 119000, 0), ("passive", 95000, 0)])
    tree.zone(root, 1, "acpitz", 29800, [("critical", 119000, 0)])
    tree.zone(root, 2, "x86_pkg_temp", 43000, [("passive", 0, 0), ("passive", -274000, 0)])
    tree.zone(root, 3, "iwlwifi_1", None, [("passive", -274000, 0)])
    for core in range(4):
        tree.cooling(root, core, "Processor", 0)
        tree.policy(
            root, core, [core], 1200000 + core, 4700000 if core < 2 else 4500000, governor="powersave"
        )
        tree.put(root / f"sys/devices/system/cpu/cpu{core}/topology/core_id", f"{core}\n")
        tree.put(root / f"sys/devices/system/cpu/cpufreq/policy{core}/scaling_driver", "intel_pstate\n")
    tree.cooling(root, 4, "intel_powerclamp", -1)
    for file in ("online", "present", "possible"):
        tree.put(root / "sys/devices/system/cpu" / file, "0-3\n")
    tree.put(root / "sys/class/dmi/id/product_name", "NUC11PAHi5\n")
    blocks = [
        f"processor\t: {core}\nmodel name\t: 11th Gen Intel(R) Core(TM) i5\n"
        "flags\t\t: fpu fma f16c avx2 avx512f avx512_vnni\n"
        for core in range(4)
    ]
    tree.put(root / "proc/cpuinfo", "\n".join(blocks) + "\n")
    tree.system(root, memory_kib=16_166_520)
    return root


def stuck(root: Path) -> Path:
    """A ROCK 5B in trouble: one zone at -273 C, one at 0, two cores of a cluster off-line, six cores allowed.

    Its process lives in a cgroup with cores 2 to 5 and the time of one and a half of them.
    """
    rk3588_mainline(root)
    set_temp_c(root, "bigcore0-thermal", -273.0)
    set_temp_c(root, "gpu-thermal", 0.0)
    tree.put(root / "sys/devices/system/cpu/online", "0-5\n")
    tree.put(root / "sys/devices/system/cpu/cpufreq/policy6/affected_cpus", "\n")
    tree.confined(root, "2-5", "system.slice/edged.service", "150000 100000")
    return root


def nothing(root: Path) -> Path:
    """A board that shows nothing at all, as in a tight container."""
    (root / "sys").mkdir(parents=True)
    (root / "proc").mkdir()
    return root


def broken(root: Path) -> Path:
    """A board on which every file is broken in its own way, but for one zone's temperature of 52 C."""
    huge = b"53000" + b" " * 100_000
    for number, content in enumerate(
        (b"\xff\xfe\x00", b"-273000\n", huge, b"N/A\n", b"", b"9" * 18, b"999999\n")
    ):
        tree.zone(root, number, "soc-thermal", None, [("passive", 85000, 2000)])
        tree.put(root / f"sys/class/thermal/thermal_zone{number}/temp", content)
        tree.put(root / f"sys/class/thermal/thermal_zone{number}/trip_point_0_temp", "soon\n")
    thermal = root / "sys/class/thermal"
    tree.put(thermal / "thermal_zone7/type", "cpu-thermal\n")
    (thermal / "thermal_zone7/temp").mkdir()
    tree.put(thermal / "thermal_zone8/type", "gpu-thermal\n")
    (thermal / "thermal_zone8/temp").symlink_to("/proc/self/mem")  # whose first page answers EIO
    tree.put(thermal / "thermal_zone9/type", "npu-thermal\n")
    (thermal / "thermal_zone9/temp").symlink_to("temp")  # a loop
    tree.put(thermal / "thermal_zone10/type", b"\xc3\x28")
    tree.put(thermal / "thermal_zone10/temp", "52000\n")
    tree.put(thermal / "thermal_zone10/trip_point_0_type", "two\nlines\n")
    tree.put(thermal / "thermal_zone10/trip_point_0_temp", "85000\n")
    tree.put(thermal / "thermal_zonex/temp", "60000\n")
    tree.put(thermal / "cooling_device0/type", "Processor\n")
    tree.put(thermal / "cooling_device0/cur_state", "some\n")
    tree.put(root / "sys/class/devfreq/dmc/cur_freq", "fast\n")
    tree.put(root / "sys/class/devfreq/dmc/max_freq", "-1\n")
    tree.put(root / "proc/self/status", "Cpus_allowed_list:\t7-0,99999\n")
    tree.put(root / "proc/self/cgroup", "0::/../../escape\n")
    cpu = root / "sys/devices/system/cpu"
    tree.put(cpu / "online", "all of them\n")
    tree.put(cpu / "present", "0-\n")
    for core in range(2):
        tree.put(cpu / f"cpu{core}/cpu_capacity", "-1\n" if core else "much\n")
    tree.put(cpu / "cpufreq/policy0/affected_cpus", "0-99999999\n")
    tree.put(cpu / "cpufreq/policy1/affected_cpus", "1\n")
    for file in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq", "scaling_governor"):
        tree.put(cpu / "cpufreq/policy1" / file, "<unknown>\n" if file != "scaling_governor" else b"\x00\x01")
    tree.put(root / "sys/class/hwmon/hwmon0/name", "rpi_volt\n")
    tree.put(root / "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "maybe\n")
    tree.put(root / "sys/firmware/devicetree/base/model", huge)
    tree.put(root / "sys/class/dmi/id/product_name", "To Be Filled By O.E.M.\n")
    tree.put(root / "proc/cpuinfo", bytes(range(256)) * 16)
    tree.put(root / "proc/loadavg", "nan inf\n")
    tree.put(root / "proc/meminfo", "MemTotal: lots kB\nMemAvailable: -5 kB\n")
    tree.put(root / "proc/sys/kernel/random/boot_id", "not a boot id\n")
    return root
