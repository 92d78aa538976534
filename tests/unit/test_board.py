"""The description of a board: fixture boards, confinement, broken trees, this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from boards import (
    broken,
    nothing,
    pi3b_plus,
    pi4,
    pi5,
    rk3588_mainline,
    rk3588_vendor,
    stuck,
    tree,
    x86,
)
from hypothesis import given
from hypothesis import strategies as st

from edged.adapters.vitals import VitalsReader
from edged.core.board import Board, Cooling, Devfreq, as_json, clusters, cores_in_words, part_name
from edged.core.topology import Core, big_cores
from edged.core.vitals import Clock, Trip


def described(root: Path) -> Board:
    """Read the board below `root`."""
    return VitalsReader(root / "sys", root / "proc").board()


@pytest.mark.parametrize(
    ("build", "words", "sets"),
    [
        (
            rk3588_mainline,
            "0-3 Cortex-A55 1.80 GHz, 4-5 Cortex-A76 2.40 GHz, 6-7 Cortex-A76 2.40 GHz",
            ("asimddp", "fphp"),
        ),
        (
            rk3588_vendor,
            "0-3 Cortex-A55 1.80 GHz, 4-5 Cortex-A76 2.35 GHz, 6-7 Cortex-A76 2.30 GHz",
            ("asimddp", "fphp"),
        ),
        (pi5, "0-3 Cortex-A76 2.40 GHz", ("asimddp", "fphp")),
        (pi4, "0-3 Cortex-A72 1.80 GHz", ()),
        (pi3b_plus, "0-3 Cortex-A53 1.40 GHz", ()),
        (x86, "0-1 4.70 GHz, 2-3 4.50 GHz", ("avx2", "fma", "f16c", "avx512f", "avx512_vnni")),
        (nothing, "the board says nothing of its cores", ()),
        (broken, "0-1", ()),
        (stuck, "0-3 Cortex-A55 1.80 GHz, 4-5 Cortex-A76 2.40 GHz; 6-7 off-line", ("asimddp", "fphp")),
    ],
)
def test_cores_of_each_board(build: tree.Builder, words: str, sets: tuple[str, ...], tmp_path: Path) -> None:
    """Clusters by kind and clock, in a line a person reads; instruction sets that matter to llama.cpp."""
    board = described(build(tmp_path / "board"))
    assert cores_in_words(board) == words
    assert board.instruction_sets == sets


def test_what_cools_an_orange_pi(tmp_path: Path) -> None:
    """Trips with hysteresis, three clocks that can be lowered, memory controller and NPU with their clocks."""
    board = described(rk3588_vendor(tmp_path))
    assert board.zones[0].trips == (
        Trip("passive", 75.0, 2.0),
        Trip("passive", 85.0, 2.0),
        Trip("critical", 115.0, 2.0),
    )
    assert board.cooling[0] == Cooling("thermal-cpufreq-0", 0, 4)
    assert len(board.cooling) == 3
    assert board.devfreq == (
        Devfreq("dmc", 528_000_000, 2_112_000_000, "dmc_ondemand"),
        Devfreq("gpu", 300_000_000, 1_000_000_000, "simple_ondemand"),
        Devfreq("npu", 1_000_000_000, 1_000_000_000, "rknpu_ondemand"),
    )


def test_a_pi_s_supply_and_fan(tmp_path: Path) -> None:
    """The fan is a cooling device in its step; the supply is told."""
    board = described(pi5(tmp_path / "5"))
    assert board.cooling == (Cooling("pwm-fan", 1, 4),)
    assert board.under_voltage is False
    assert described(pi3b_plus(tmp_path / "3")).under_voltage is True


def test_a_cooling_device_that_cannot_say_its_state(tmp_path: Path) -> None:
    """`intel_powerclamp` says -1 while it is off: that is no step."""
    assert Cooling("intel_powerclamp", None, 4) in described(x86(tmp_path)).cooling


def test_a_board_in_trouble(tmp_path: Path) -> None:
    """Dead sensors are absent, switched-off cores are told, and the cgroup's cores and time count."""
    board = described(stuck(tmp_path))
    temps = {zone.name: zone.temp_c for zone in board.zones}
    assert temps["bigcore0-thermal"] is None
    assert temps["gpu-thermal"] is None
    assert temps["bigcore2-thermal"] == 47.153
    assert board.offline == (6, 7)
    assert sorted(core for cluster in board.clusters for core in cluster.cores) == [0, 1, 2, 3, 4, 5]
    assert board.allowed == (2, 3, 4, 5)
    assert board.cpu_quota == 1.5


def test_the_engine_stays_inside_a_small_cpuset(tmp_path: Path) -> None:
    """Of the two big and two little cores that are left, the engine gets the big ones."""
    root = stuck(tmp_path)
    reader = VitalsReader(root / "sys", root / "proc")
    choice = big_cores(reader.topology(), frozenset(reader.board().allowed))
    assert (choice.engine, choice.daemon) == ((4, 5), (2, 3))


def test_the_tightest_quota_of_all_levels_counts(tmp_path: Path) -> None:
    """A limit on the slice above holds as well; `max` is none."""
    root = pi5(tmp_path)
    tree.confined(root, "0-3", "a.slice/b.service")
    assert described(root).cpu_quota is None
    tree.put(root / "sys/fs/cgroup/a.slice/cpu.max", "50000 100000\n")
    assert described(root).cpu_quota == 0.5


def test_the_cgroup_s_cores_where_the_mask_is_not_told(tmp_path: Path) -> None:
    """Without `Cpus_allowed_list` the cgroup's own file tells the cores."""
    root = pi5(tmp_path)
    tree.confined(root, "1-2", "edged.service")
    tree.put(root / "proc/self/status", "Name:\tedged\n")
    assert described(root).allowed == (1, 2)


def test_broken_trees(tmp_path: Path) -> None:
    """Garbage costs its own item; nothing at all is an empty description."""
    board = described(broken(tmp_path / "broken"))
    assert (board.offline, board.allowed, board.cpu_quota, board.devfreq) == ((), (), None, ())
    assert [zone.temp_c for zone in board.zones] == [52.0]
    assert described(nothing(tmp_path / "nothing")) == Board()
    assert as_json(Board()) == {}


def test_instruction_sets_are_those_of_every_core(tmp_path: Path) -> None:
    """What one core lacks cannot be used, and half a line of garbage adds nothing."""
    root = nothing(tmp_path / "board")
    tree.put(
        root / "proc/cpuinfo", "processor: 0\nFeatures : asimddp i8mm\n\nprocessor: 1\nFeatures : asimddp\n"
    )
    assert described(root).instruction_sets == ("asimddp",)


def test_unknown_parts_keep_their_number() -> None:
    """A core that is newer than this table is told by its number."""
    assert part_name(0xD8E) == "0xd8e"
    assert part_name(None) is None


@given(
    st.lists(
        st.builds(
            Core, st.integers(0, 31), st.none() | st.integers(1, 1024), st.none(), st.sampled_from([None, 1])
        ),
        unique_by=lambda core: core.index,
        max_size=16,
    ),
    st.lists(
        st.builds(Clock, st.lists(st.integers(0, 31), min_size=1, max_size=4, unique=True).map(tuple)),
        max_size=6,
    ),
)
def test_every_core_is_in_one_cluster(cores: list[Core], clocks: list[Clock]) -> None:
    """Whatever the policies say, no core is lost and none counted twice."""
    grouped = [core for cluster in clusters(cores, clocks) for core in cluster.cores]
    assert sorted(grouped) == sorted(core.index for core in cores)
    assert all(cluster.cores for cluster in clusters(cores, clocks))


@pytest.mark.parametrize("build", [rk3588_mainline, rk3588_vendor, pi5, pi4, pi3b_plus, x86, broken, stuck])
def test_descriptions_are_json(build: tree.Builder, tmp_path: Path) -> None:
    """What is absent is left out: no null anywhere."""
    text = json.dumps(as_json(described(build(tmp_path / "board"))), allow_nan=False)
    assert "null" not in text


def test_this_machine() -> None:
    """The real board is described, with the cores that this process may use."""
    board = VitalsReader().board()
    assert board.allowed == tuple(sorted(os.sched_getaffinity(0)))
    assert set(board.allowed) <= {core for cluster in board.clusters for core in cluster.cores}
    assert board.memory_total_bytes


def in_a_line(board: Board) -> str:
    """Name, zones with temperature and trips, what cools, other clocks, supply, memory."""
    zones = [
        f"{zone.name} {'?' if zone.temp_c is None else f'{zone.temp_c:.0f}'}"
        + "".join(f" {trip.kind[0]}{trip.temp_c:.0f}" for trip in zone.trips)
        for zone in board.zones
    ]
    parts = (
        board.name or "-",
        ", ".join(zones),
        ", ".join(f"{one.name} {one.state}/{one.state_max}" for one in board.cooling),
        ", ".join(f"{one.name} {(one.max_hz or 0) // 10**6}" for one in board.devfreq),
        {None: "", True: "weak supply", False: "supply well"}[board.under_voltage],
        f"{(board.memory_total_bytes or 0) // 2**20} MB",
    )
    return "; ".join(part for part in parts if part)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            rk3588_mainline,
            (
                "Radxa ROCK 5B; package-thermal 47 c115, bigcore0-thermal 48 p85 c115, "
                "bigcore2-thermal 47 p85 c115, littlecore-thermal 47 p85 c115, center-thermal 46 c115, "
                "gpu-thermal 45 p85 c115, npu-thermal 45 c115; cpufreq-cpu0 0/4, cpufreq-cpu4 0/4, "
                "cpufreq-cpu6 0/4, pwm-fan 1/4; gpu 1000; 15934 MB"
            ),
        ),
        (
            rk3588_vendor,
            (
                "Orange Pi 5; soc-thermal 52 p75 p85 c115; thermal-cpufreq-0 0/4, thermal-cpufreq-1 0/4, "
                "thermal-cpufreq-2 0/4; dmc 2112, gpu 1000, npu 1000; 7938 MB"
            ),
        ),
        (
            pi5,
            (
                "Raspberry Pi 5 Model B Rev 1.0; cpu-thermal 52 c110 a50 a60 a68 a75; pwm-fan 1/4; "
                "supply well; 8061 MB"
            ),
        ),
        (pi4, "Raspberry Pi 4 Model B Rev 1.4; cpu-thermal 55 c90; supply well; 3793 MB"),
        (pi3b_plus, "Raspberry Pi 3 Model B Plus Rev 1.3; cpu-thermal 62 c90; weak supply; 909 MB"),
        (broken, "-; thermal_zone10 52; Processor None/None; 0 MB"),
        (
            x86,
            (
                "NUC11PAHi5, 11th Gen Intel(R) Core(TM) i5; acpitz 28 c119 p95, acpitz-1 30 c119, "
                "x86_pkg_temp 43; Processor 0/4, Processor 0/4, Processor 0/4, Processor 0/4, "
                "intel_powerclamp None/4; 15787 MB"
            ),
        ),
        (nothing, "-; 0 MB"),
    ],
)
def test_all_that_each_board_tells(build: tree.Builder, told: str, tmp_path: Path) -> None:
    """Each fixture board in a line."""
    assert in_a_line(described(build(tmp_path / "board"))) == told
