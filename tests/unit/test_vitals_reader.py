"""Reading the board: fixture boards, broken files, this machine."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
from boards import (
    BOOT_ID,
    broken,
    nothing,
    pi3b_plus,
    pi4,
    pi5,
    rk3588_mainline,
    rk3588_vendor,
    set_temp_c,
    tree,
    x86,
)

from edged import settings
from edged.adapters.vitals import Caps, VitalsReader
from edged.core.topology import Core, Topology
from edged.core.vitals import (
    Clock,
    Trip,
    Vitals,
    Zone,
    as_health,
    headroom_c,
    nearest_trip,
)
from edged.core.vitals import (
    level as level_within,
)
from edged.footing import find_footing

PASSIVE = Trip("passive", 85.0, 2.0)
CRITICAL = Trip("critical", 115.0, 0.0)

level = partial(level_within, warm_c=15.0, hot_c=5.0, critical_c=5.0)


def reader(root: Path) -> VitalsReader:
    """Read the board below `root`."""
    return VitalsReader(root / "sys", root / "proc")


def test_rk3588_with_a_mainline_kernel(tmp_path: Path) -> None:
    """Seven zones with their own trips, three clusters, nothing throttled, no supply monitor."""
    vitals = reader(rk3588_mainline(tmp_path)).read()
    by_name = {zone.name: zone for zone in vitals.zones}
    assert len(by_name) == 7
    assert by_name["bigcore0-thermal"] == Zone("bigcore0-thermal", 48.076, (PASSIVE, CRITICAL))
    assert by_name["package-thermal"].trips == (CRITICAL,)
    assert [clock.cores for clock in vitals.clocks] == [(0, 1, 2, 3), (4, 5), (6, 7)]
    assert vitals.clocks[0] == Clock((0, 1, 2, 3), 408_000_000, 1_800_000_000, 1_800_000_000, "schedutil")
    assert vitals.throttled is False
    assert vitals.under_voltage is None
    assert vitals.load_1m == 0.42
    assert vitals.memory_total_bytes == 16_316_804 * 1024
    assert vitals.memory_available_bytes == 16_316_804 * 768
    assert headroom_c(vitals.zones) == pytest.approx(85 - 48.076)
    assert level(vitals)[0] == "cool"


def test_rk3588_with_a_vendor_kernel(tmp_path: Path) -> None:
    """One zone whose first passive trip counts for headroom, and A76 pairs of different clocks."""
    vitals = reader(rk3588_vendor(tmp_path)).read()
    assert [zone.name for zone in vitals.zones] == ["soc-thermal"]
    assert nearest_trip(vitals.zones[0]) == Trip("passive", 75.0, 2.0)
    assert [clock.hardware_max_hz for clock in vitals.clocks] == [1_800_000_000, 2_352_000_000, 2_304_000_000]


def test_raspberry_pi_5(tmp_path: Path) -> None:
    """A running fan is no throttling, fan trips are no limits, and the supply is watched."""
    vitals = reader(pi5(tmp_path)).read()
    assert vitals.throttled is False
    assert vitals.under_voltage is False
    assert len(vitals.zones[0].trips) == 5
    assert nearest_trip(vitals.zones[0]) == Trip("critical", 110.0, 0.0)


def test_raspberry_pi_3_on_a_weak_supply(tmp_path: Path) -> None:
    """The supply monitor's alarm is under-voltage."""
    assert reader(pi3b_plus(tmp_path)).read().under_voltage is True


def test_pc(tmp_path: Path) -> None:
    """Zones of one type get names of their own, and trips that are not set are left out."""
    vitals = reader(x86(tmp_path)).read()
    assert [zone.name for zone in vitals.zones] == ["acpitz", "acpitz-1", "x86_pkg_temp"]
    assert vitals.zones[2].trips == ()
    assert nearest_trip(vitals.zones[0]) == Trip("passive", 95.0, 0.0)
    assert vitals.throttled is False
    assert len(vitals.clocks) == 4


def test_a_zone_keeps_its_name(tmp_path: Path) -> None:
    """Also while another one of its type tells nothing at all: whoever watches would take it for that one."""
    root = tmp_path / "board"
    tree.zone(root, 0, "soc", 40_000, [])
    tree.zone(root, 1, "soc", 50_000, [("passive", 85_000, 0)])
    names = [zone.name for zone in reader(root).read().zones]
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("")
    assert [zone.name for zone in reader(root).read().zones] == names[1:]


def test_no_zone_takes_another_one_s_place(tmp_path: Path) -> None:
    """Also where a driver's own name looks like one that we give."""
    root = tmp_path / "board"
    for number, name in enumerate(("soc-2", "soc", "soc", "soc-2")):
        tree.zone(root, number, name, 90_000 - 10_000 * number, [("passive", 85_000, 0)])
    told = {zone.name: zone.temp_c for zone in reader(root).read().zones}
    assert list(told.values()) == [90.0, 80.0, 70.0, 60.0]
    assert list(told)[:2] == ["soc-2", "soc"]


def test_an_alarm_of_another_sensor_is_not_the_supply(tmp_path: Path) -> None:
    """Only the Raspberry Pi's monitor tells of under-voltage."""
    root = nothing(tmp_path / "board")
    tree.put(root / "sys/class/hwmon/hwmon0/name", "nct6775\n")
    tree.put(root / "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n")
    assert reader(root).read().under_voltage is None


@pytest.mark.parametrize(
    ("build", "name", "parts"),
    [
        (rk3588_mainline, "Radxa ROCK 5B", {0xD05, 0xD0B}),
        (pi5, "Raspberry Pi 5 Model B Rev 1.0", {0xD0B}),
        (pi4, "Raspberry Pi 4 Model B Rev 1.4", {0xD08}),
        (pi3b_plus, "Raspberry Pi 3 Model B Plus Rev 1.3", {0xD03}),
        (x86, "NUC11PAHi5, 11th Gen Intel(R) Core(TM) i5", {None}),
        (broken, None, {None}),
        (nothing, None, set()),
    ],
)
def test_name_and_parts_of_each_board(
    build: tree.Builder, name: str | None, parts: set[int | None], tmp_path: Path
) -> None:
    """The board's name is the device tree's or the PC's, and cores carry their CPU parts."""
    topology = reader(build(tmp_path / "board")).topology()
    assert topology.board == name
    assert {core.part for core in topology.cores} == parts


def test_the_model_may_stand_in_proc(tmp_path: Path) -> None:
    """Without sysfs's device tree the one in procfs names the board."""
    root = nothing(tmp_path / "board")
    tree.put(root / "proc/device-tree/model", b"FriendlyElec NanoPi R6S\0")
    assert reader(root).topology() == Topology("FriendlyElec NanoPi R6S")


def test_offline_cores_are_no_cores(tmp_path: Path) -> None:
    """The kernel's list of online cores counts; without it each core's own word."""
    root = rk3588_mainline(tmp_path)
    cpu = root / "sys/devices/system/cpu"
    tree.put(cpu / "online", "0-2,4-5\n")
    assert [core.index for core in reader(root).topology().cores] == [0, 1, 2, 4, 5]
    (cpu / "online").unlink()
    tree.put(cpu / "cpu7/online", "0\n")
    tree.put(cpu / "cpu6/online", "1\n")
    assert [core.index for core in reader(root).topology().cores] == [0, 1, 2, 3, 4, 5, 6]


def test_a_core_s_clock_is_the_hardware_s(tmp_path: Path) -> None:
    """A cap of the moment does not make a big core little; without the hardware's figure the cap counts."""
    root = rk3588_mainline(tmp_path)
    policy = root / "sys/devices/system/cpu/cpufreq/policy4"
    tree.put(policy / "scaling_max_freq", "408000\n")
    assert reader(root).topology().cores[4] == Core(4, 1024, 2_400_000_000, 0xD0B)
    (policy / "cpuinfo_max_freq").unlink()
    assert reader(root).topology().cores[4].max_hz == 408_000_000


def test_cores_of_cpuinfo_where_sysfs_has_none(tmp_path: Path) -> None:
    """With /proc/cpuinfo alone the cores and their parts are still known."""
    root = nothing(tmp_path / "board")
    tree.put(
        root / "proc/cpuinfo", "processor\t: 0\nCPU part\t: 0xd05\n\nprocessor\t: 1\nCPU part\t: 0xd0b\n"
    )
    assert [(core.index, core.part) for core in reader(root).topology().cores] == [(0, 0xD05), (1, 0xD0B)]


def test_an_offline_cluster_has_no_clock(tmp_path: Path) -> None:
    """A policy whose cores are all offline is left out; one without the list goes by its related cores."""
    root = rk3588_mainline(tmp_path)
    policies = root / "sys/devices/system/cpu/cpufreq"
    tree.put(policies / "policy6/affected_cpus", "\n")
    (policies / "policy4/affected_cpus").unlink()
    assert [clock.cores for clock in reader(root).read().clocks] == [(0, 1, 2, 3), (4, 5)]


def test_a_capped_clock_is_throttling(tmp_path: Path) -> None:
    """A policy held below its hardware maximum, even on a cool board, is told in flag and reason."""
    root = rk3588_mainline(tmp_path)
    tree.put(root / "sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq", "1608000\n")
    vitals = reader(root).read()
    assert vitals.throttled is True
    heat, reason = level(vitals)
    assert heat == "cool"
    assert "clock is held below" in reason


@pytest.mark.parametrize("kind", ["Processor", "cpufreq-cpu4", "thermal-cpufreq-0"])
def test_an_active_cpu_cooling_device_is_throttling(kind: str, tmp_path: Path) -> None:
    """Cooling devices that slow a CPU down count, whatever the kernel's age calls them."""
    root = nothing(tmp_path / "board")
    tree.cooling(root, 0, kind, 3)
    assert reader(root).read().throttled is True


def test_a_board_that_shows_nothing_reads_as_absent(tmp_path: Path) -> None:
    """No sensor is None everywhere and an empty piece of health, never a zero."""
    empty = reader(nothing(tmp_path / "board"))
    assert empty.read() == Vitals()
    assert as_health(empty.read()) == {}
    assert empty.topology() == Topology()
    assert empty.boot_id() is None


def test_roots_that_are_not_there_read_as_absent(tmp_path: Path) -> None:
    """A missing tree is a board that shows nothing."""
    assert VitalsReader(tmp_path / "no", tmp_path / "no").read() == Vitals()


def test_broken_files_make_their_items_absent(tmp_path: Path) -> None:
    """Binary, huge, garbled, looping and failing files cost their own item; the one good reading survives."""
    root = broken(tmp_path)
    assert reader(root).read() == Vitals(zones=(Zone("thermal_zone10", 52.0),))
    assert reader(root).boot_id() is None
    topology = reader(root).topology()
    assert [core.index for core in topology.cores] == [0, 1]
    assert {(core.capacity, core.max_hz) for core in topology.cores} == {(None, None)}


def test_a_sensor_that_is_not_ready_is_absent(tmp_path: Path) -> None:
    """EAGAIN (here from an empty pipe) neither blocks nor raises, and the zone keeps its trips."""
    root = rk3588_vendor(tmp_path)
    temp = root / "sys/class/thermal/thermal_zone0/temp"
    temp.unlink()
    os.mkfifo(temp)
    writer = os.open(temp, os.O_RDWR)
    try:
        zone = reader(root).read().zones[0]
    finally:
        os.close(writer)
    assert zone.temp_c is None
    assert len(zone.trips) == 3


def test_who_must_not_wait_asks_no_sensor(tmp_path: Path) -> None:
    """The start and the dispatcher read what the kernel has in memory: no sensor, and no fan behind a bus."""
    root = rk3588_mainline(tmp_path / "board")
    thermal = root / "sys/class/thermal"
    pipes = {}
    for path in (*thermal.glob("thermal_zone*/temp"), thermal / "cooling_device3/cur_state"):
        path.unlink()
        os.mkfifo(path)
        pipes[path] = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        os.write(pipes[path], b"1\n")
    file = tmp_path / "edged.toml"
    file.write_text(f'model.path = "m.gguf"\n[paths]\nsys = "{root}/sys"\nproc = "{root}/proc"\n')
    find_footing(settings.load(file), reader(root))
    assert len(Caps(root / "sys").look(range(8))) == 3
    try:
        for path, pipe in pipes.items():
            assert os.read(pipe, 9) == b"1\n", path
    finally:
        for pipe in pipes.values():
            os.close(pipe)


def test_zones_that_all_say_zero_are_asleep(tmp_path: Path) -> None:
    """Zeros everywhere are sensors without power, not frost."""
    root = rk3588_mainline(tmp_path)
    for zone in reader(root).read().zones:
        set_temp_c(root, zone.name, 0.0)
    vitals = reader(root).read()
    assert {zone.temp_c for zone in vitals.zones} == {None}
    assert headroom_c(vitals.zones) is None
    assert level(vitals)[0] == "cool"


def test_a_warming_board_passes_through_all_levels(tmp_path: Path) -> None:
    """What a watching daemon reads follows the files."""
    root = rk3588_mainline(tmp_path)
    seen = []
    for temp_c in (50, 72, 81, 85.5):
        set_temp_c(root, "bigcore2-thermal", temp_c)
        seen.append(level(reader(root).read())[0])
    assert seen == ["cool", "warm", "hot", "critical"]


def test_health_is_json(tmp_path: Path) -> None:
    """Zones by name with trips, clocks, flags; no null anywhere."""
    health = as_health(reader(pi4(tmp_path)).read())
    assert json.loads(json.dumps(health, allow_nan=False)) == {
        "zones": {
            "cpu-thermal": {
                "temp_c": 55.017,
                "trips": [{"kind": "critical", "temp_c": 90.0, "hysteresis_c": 0.0}],
            }
        },
        "clocks": [
            {
                "cores": [0, 1, 2, 3],
                "now_hz": 600_000_000,
                "max_hz": 1_800_000_000,
                "hardware_max_hz": 1_800_000_000,
                "governor": "ondemand",
            }
        ],
        "headroom_c": 34.983,
        "throttled": False,
        "under_voltage": False,
        "load_1m": 0.42,
        "memory_total_bytes": 3_884_352 * 1024,
        "memory_available_bytes": 2_913_264 * 1024,
    }


def test_boot_id(tmp_path: Path) -> None:
    """The kernel's name of this boot."""
    assert reader(pi4(tmp_path)).boot_id() == BOOT_ID


def test_memory_of_a_process_below_another_root(tmp_path: Path) -> None:
    """A fixture tree's processes are read from the tree; one that is not there is absent."""
    tree.put(tmp_path / "proc/7/status", "Name:\tedged\nVmRSS:\t    2048 kB\n")
    assert reader(tmp_path).process_memory(7) == 2048 * 1024
    assert reader(tmp_path).process_memory(8) is None


def test_this_machine() -> None:
    """The real sysfs and procfs are read without raising and give what every Linux has."""
    machine = VitalsReader(Path("/sys"), Path("/proc"))
    vitals = machine.read()
    assert vitals.memory_total_bytes
    assert level(vitals)[1]
    json.dumps(as_health(vitals), allow_nan=False)
    assert machine.topology().cores
    assert machine.boot_id()
    resident = machine.process_memory(os.getpid())
    assert resident
    assert resident > 1 << 20
    assert machine.process_memory(1 << 22) is None  # above the kernel's highest process id
    assert machine.process_memory(-1) is None
