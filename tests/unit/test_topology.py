"""The choice of cores and threads: boards as published, settings, properties."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from boards import broken, nothing, pi3b_plus, pi4, pi5, rk3588_mainline, rk3588_vendor, tree, x86
from hypothesis import assume, given
from hypothesis import strategies as st

from edged.adapters.vitals import VitalsReader
from edged.core.topology import (
    Choice,
    Core,
    Topology,
    big_cores,
    format_cores,
    named_cores,
    parse_cores,
    threads,
)

if TYPE_CHECKING:
    from pathlib import Path

EIGHT = frozenset(range(8))
FOUR = frozenset(range(4))
RK3588 = Topology(
    "rk3588",
    tuple(Core(n, 397, 1_800_000_000, 0xD05) for n in range(4))
    + tuple(Core(n, 1024, 2_400_000_000, 0xD0B) for n in range(4, 8)),
)

cores = st.builds(
    Core,
    index=st.integers(0, 15),
    capacity=st.none() | st.integers(1, 1024),
    max_hz=st.none() | st.integers(1, 6_000_000_000),
    part=st.none() | st.sampled_from([0xD03, 0xD05, 0xD08, 0xD0B, 0x801]),
)
topologies = st.lists(cores, max_size=16, unique_by=lambda core: core.index).map(
    lambda found: Topology("any", tuple(sorted(found, key=lambda core: core.index)))
)
alloweds = st.frozensets(st.integers(0, 15), min_size=1)


def board(build: tree.Builder, tmp_path: Path) -> Topology:
    """Read a fixture board's topology."""
    root = build(tmp_path / "board")
    return VitalsReader(root / "sys", root / "proc").topology()


@pytest.mark.parametrize(
    ("build", "allowed", "engine", "daemon", "evidence"),
    [
        (rk3588_mainline, EIGHT, "4-7", "0-3", "cpu_capacity"),
        (rk3588_vendor, EIGHT, "4-7", "0-3", "cpu_capacity"),
        (rk3588_mainline, frozenset({2, 3, 6, 7}), "6-7", "2-3", "cpu_capacity"),
        (rk3588_mainline, frozenset({0, 1}), "0-1", "0-1", "equal"),
        (rk3588_mainline, frozenset({4, 5}), "4-5", "4-5", "equal"),
        (pi5, FOUR, "0-3", "0-3", "equal"),
        (pi4, FOUR, "0-3", "0-3", "equal"),
        (pi3b_plus, FOUR, "0-3", "0-3", "equal"),
        (x86, FOUR, "0-3", "0-3", "equal"),
        (nothing, frozenset({0, 1}), "0-1", "0-1", "says nothing"),
        (broken, frozenset({0, 1}), "0-1", "0-1", "nothing tells the cores apart"),
        (pi5, frozenset({2}), "2", "2", "one core"),
    ],
)
def test_cores_of_each_board(  # noqa: PLR0917 - pytest passes them by name
    build: tree.Builder,
    allowed: frozenset[int],
    engine: str,
    daemon: str,
    evidence: str,
    tmp_path: Path,
) -> None:
    """The engine gets the big allowed cores, the daemon the others or a share, and the reason says why."""
    choice = big_cores(board(build, tmp_path), allowed)
    assert (format_cores(choice.engine), format_cores(choice.daemon)) == (engine, daemon)
    assert evidence in choice.reason
    assert engine in choice.reason
    assert ("share" in choice.reason) == (engine == daemon)


def test_big_cores_that_are_kept_away() -> None:
    """By a cpuset, or by isolcpus: half of the speed, and nothing else would say so."""
    choice = big_cores(RK3588, FOUR)
    assert choice.kept_away == (4, 5, 6, 7)
    assert "its big cores, 4-7, may not be used" in choice.reason
    assert big_cores(RK3588, frozenset({0, 1, 6})).kept_away == ()
    assert named_cores(RK3588, FOUR, (2, 3)).kept_away == ()


@pytest.mark.parametrize(
    ("fields", "evidence"),
    [
        ({"capacity": None}, "highest clock"),
        ({"capacity": 1024}, "highest clock"),
        ({"capacity": None, "max_hz": None}, "CPU part"),
        ({"capacity": 1024, "max_hz": 1_800_000_000}, "CPU part"),
    ],
)
def test_the_next_evidence_decides_where_one_is_missing_or_equal(
    fields: dict[str, int], evidence: str
) -> None:
    """Without a telling capacity the clock decides, without that the CPU part."""
    topology = Topology("rk3588", tuple(replace(core, **fields) for core in RK3588.cores))
    choice = big_cores(topology, EIGHT)
    assert choice.engine == (4, 5, 6, 7)
    assert evidence in choice.reason


def test_evidence_that_misses_a_core_is_not_used() -> None:
    """A capacity or a part known of some cores only tells nothing."""
    known = RK3588.cores[0]
    topology = Topology("half", (known, Core(1, None, None, 0xD0B), Core(2)))
    assert big_cores(topology, EIGHT).engine == (0, 1, 2)


def test_little_differences_do_not_tell_cores_apart() -> None:
    """A core with 0.8 of the largest capacity is big, one just below is not."""
    topology = Topology("three kinds", (Core(0, 1000), Core(1, 800), Core(2, 799)))
    assert big_cores(topology, FOUR).engine == (0, 1)


def test_no_allowed_core_is_refused() -> None:
    """An empty affinity mask is a sentence, not an empty choice."""
    with pytest.raises(ValueError, match="no core is allowed"):
        big_cores(RK3588, frozenset())


@given(topologies, alloweds)
def test_engine_and_daemon_stay_within_the_allowed_cores(topology: Topology, allowed: frozenset[int]) -> None:
    """Both are non-empty, ascending, allowed; they share all of the engine's cores or none."""
    choice = big_cores(topology, allowed)
    assert choice.engine
    assert choice.daemon
    assert set(choice.engine) <= allowed
    assert set(choice.daemon) <= allowed
    assert list(choice.engine) == sorted(set(choice.engine))
    assert choice.engine == choice.daemon or not set(choice.engine) & set(choice.daemon)


@given(st.lists(st.integers(1, 1024), min_size=2, max_size=16), st.data())
def test_no_core_left_out_is_better_than_one_chosen(capacities: list[int], data: st.DataObject) -> None:
    """Where every core has a capacity and they differ much, the engine has the largest of those it may have."""
    topology = Topology("any", tuple(Core(at, capacity) for at, capacity in enumerate(capacities)))
    allowed = data.draw(st.frozensets(st.sampled_from(range(len(capacities))), min_size=2))
    figures = [capacities[at] for at in allowed]
    assume(2 * min(figures) < max(figures))
    choice = big_cores(topology, allowed)
    assert "cpu_capacity" in choice.reason
    left_out = allowed.difference(choice.engine)
    assert max(capacities[at] for at in left_out) < min(capacities[at] for at in choice.engine)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4-7", (4, 5, 6, 7)),
        ("4,5,6,7", (4, 5, 6, 7)),
        (" 0 , 2 - 3 ", (0, 2, 3)),
        ("7,0,7", (0, 7)),
        ("3-3", (3,)),
        ("4095", (4095,)),
    ],
)
def test_lists_of_cores(text: str, expected: tuple[int, ...]) -> None:
    """Ranges and single cores, in any order, each once."""
    assert parse_cores(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "4-", "-1", "4..7", "big", "4;5", "7-4", "4096", "0-99999", "٤", "1_0", "0x4", "4-5-6"],
)
def test_what_is_no_list_of_cores_is_refused(text: str) -> None:
    """The sentence repeats what was written."""
    with pytest.raises(ValueError, match=r"^cores '"):
        parse_cores(text)


@given(st.text() | st.text("0123456789,- ", max_size=8))
def test_parsing_any_text_gives_cores_or_a_value_error(text: str) -> None:
    """No text raises anything else, and what is read is ascending and bounded."""
    try:
        found = parse_cores(text)
    except ValueError:
        return
    assert found
    assert list(found) == sorted(set(found))
    assert 0 <= found[0] <= found[-1] < 4096


@given(st.frozensets(st.integers(0, 4095), min_size=1, max_size=64))
def test_written_cores_are_read_back(chosen: frozenset[int]) -> None:
    """`parse_cores` reads what `format_cores` wrote."""
    assert parse_cores(format_cores(chosen)) == tuple(sorted(chosen))


def test_named_cores_override_what_would_be_found() -> None:
    """The settings' cores are the engine's, the other allowed ones the daemon's."""
    choice = named_cores(RK3588, EIGHT, parse_cores("6-7"))
    assert choice.engine == (6, 7)
    assert choice.daemon == (0, 1, 2, 3, 4, 5)
    assert "settings" in choice.reason


def test_naming_all_cores_lets_the_daemon_share() -> None:
    """With nothing left over the daemon runs where the engine does."""
    assert named_cores(RK3588, EIGHT, tuple(range(8))).daemon == tuple(range(8))


@pytest.mark.parametrize(
    ("named", "allowed", "sentence"),
    [
        ((6, 9), EIGHT, "9 not on this board, which has 0-7 online"),
        ((5, 6), FOUR, "5-6 not allowed to this process, which may use 0-3"),
        ((), EIGHT, "names no core"),
    ],
)
def test_named_cores_that_cannot_be_used_are_refused(
    named: tuple[int, ...], allowed: frozenset[int], sentence: str
) -> None:
    """Cores that are absent or forbidden are told from each other and listed."""
    with pytest.raises(ValueError, match=sentence):
        named_cores(RK3588, allowed, named)


def test_named_cores_on_a_board_that_says_nothing_need_only_be_allowed() -> None:
    """Without a topology the affinity mask alone judges."""
    assert named_cores(Topology(), FOUR, (1, 2)).engine == (1, 2)


@pytest.mark.parametrize(
    ("build", "allowed", "expected"),
    [
        (rk3588_mainline, EIGHT, (4, 4)),
        (rk3588_vendor, EIGHT, (4, 4)),
        (pi5, FOUR, (2, 4)),
        (pi5, frozenset({3}), (1, 1)),
        (pi4, FOUR, (4, 4)),
        (x86, FOUR, (4, 4)),
        (nothing, frozenset({0, 1}), (2, 2)),
    ],
)
def test_default_threads(
    build: tree.Builder, allowed: frozenset[int], expected: tuple[int, int], tmp_path: Path
) -> None:
    """One thread per engine core, but two for decoding where four A76 share a narrow bus."""
    assert threads(big_cores(board(build, tmp_path), allowed)) == expected


def test_explicit_threads_are_taken() -> None:
    """Settings win over the defaults, each count by itself."""
    choice = Choice((4, 5, 6, 7), (0, 1, 2, 3), "test", decode_threads=2)
    assert threads(choice, 3, None) == (3, 4)
    assert threads(choice, None, 1) == (2, 1)


@pytest.mark.parametrize(
    ("quota", "expected"), [(None, (2, 4)), (4.0, (2, 4)), (3.9, (2, 3)), (1.5, (1, 1)), (0.2, (1, 1))]
)
def test_a_cgroup_s_time_bounds_the_defaults(quota: float | None, expected: tuple[int, int]) -> None:
    """No more threads than can compute all the time; settings may ask for more."""
    choice = Choice((0, 1, 2, 3), (0, 1, 2, 3), "test", decode_threads=2)
    assert threads(choice, quota=quota) == expected
    assert threads(choice, 4, 4, quota) == (4, 4)
    assert threads(choice, quota=quota, calibrated=(4, 2)) == (expected[1], min(2, expected[1]))


def test_calibrated_threads_go_before_the_defaults() -> None:
    """And the settings before both, each count by itself."""
    choice = Choice((0, 1, 2, 3), (0, 1, 2, 3), "test", decode_threads=2)
    assert threads(choice, calibrated=(3, 1)) == (3, 1)
    assert threads(choice, 1, None, calibrated=(3, 2)) == (1, 2)


@pytest.mark.parametrize(
    ("decode", "prefill", "sentence"),
    [
        (5, None, r"decode_threads is 5, but the engine is pinned to 4 cores \(4-7\): choose 1 to 4"),
        (None, 8, r"prefill_threads is 8"),
        (0, None, r"decode_threads is 0"),
    ],
)
def test_threads_beyond_the_pinned_cores_are_refused(
    decode: int | None, prefill: int | None, sentence: str
) -> None:
    """More threads than cores only wait for each other: the sentence names setting, cores and range."""
    with pytest.raises(ValueError, match=sentence):
        threads(big_cores(RK3588, EIGHT), decode, prefill)
