"""Clocks that heat lowers: what an effort buys, whose a cap is, and that every cap is given back."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import boards
import pytest
import structlog
from boards import tree
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edged.adapters.note import Note
from edged.adapters.vitals import Caps, VitalsReader
from edged.cli import app
from edged.cli.clocks import give_back, paths
from edged.core.heat.clocks import (
    FLOOR_SHARE,
    Cap,
    Found,
    Kept,
    Ladder,
    Spent,
    decode,
    encode,
    in_words,
    ladder,
    lowered,
    power,
    spend,
)
from edged.core.heat.policy import Ceiling, limits
from edged.core.pace import PACE_MIN
from edged.node.clocks import NONE, NOTE_AGAIN, OFF, SAY_AGAIN, UNNOTED, Clocks
from edged.settings import Paths

MHZ = 1_000_000
OFFERED = tuple(mhz * MHZ for mhz in (408, 600, 816, 1008, 1200, 1416, 1608, 1800, 2016, 2208, 2400))
FULL = OFFERED[-1]
BIG = (4, 5, 6, 7)


def found(cap_hz: int = FULL, *, held: bool = False, name: str = "policy4") -> Found:
    """A pair of A76, as it is read."""
    return Found(name, (4, 5), cap_hz, OFFERED[0], FULL, OFFERED, held=held)


# what an effort buys ------------------------------------------------------------------------------------------


def test_the_curve() -> None:
    """Power falls faster than the clock down to half of it, then with it."""
    assert power(1.0) == pytest.approx(1.0)
    assert power(0.75) == pytest.approx(0.75 * 0.85**2)
    assert power(0.5) == pytest.approx(0.5 * 0.7**2)
    assert power(0.25) == pytest.approx(power(0.5) / 2)


def test_steps_of_a_policy() -> None:
    """From the floor to what its owner allows; a cap below the floor is all there is."""
    assert ladder(found(), FULL).steps_hz == OFFERED[3:]
    assert ladder(found(), 1800 * MHZ).steps_hz == OFFERED[3:8]
    assert ladder(found(), 600 * MHZ).steps_hz == (600 * MHZ,)
    bare = Found("policy0", (0,), FULL, 400 * MHZ, FULL)
    steps = [round(hz / MHZ) for hz in ladder(bare, FULL).steps_hz]
    assert steps == [1067, 1233, 1400, 1567, 1733, 1900, 2067, 2233, 2400], "even ones, from the floor on"


def test_power_is_a_share_of_what_the_owner_allows() -> None:
    """Under a cap of 1.8 of 2.4 GHz all of that costs all of the effort, and half an effort half of its power."""
    capped = ladder(found(), 1800 * MHZ)
    assert capped.powers[-1] == 1.0
    assert spend(1.0, [capped]).caps_hz == {"policy4": 1800 * MHZ}
    assert spend(0.5, [capped]).caps_hz == {"policy4": 1200 * MHZ}
    assert power(1200 / 2400) < 0.5 * power(1800 / 2400) < power(1416 / 2400)


def test_what_the_lowest_clocks_leave_to_do() -> None:
    """Each policy counts by its cores, for its power and for its clock."""
    floor = ladder(found(), FULL).powers[0]
    two, four = ladder(found(), FULL), Ladder("policy0", (0, 1, 2, 3), FULL, (FULL,))
    assert spend(0.1, [two]).left == pytest.approx(0.1 / floor)
    assert spend(0.1, [two, four]).left == pytest.approx(0.1 * 6 / (2 * floor + 4))
    assert spend(0.1, [two, four]).clock == pytest.approx((2 * two.steps_hz[0] / FULL + 4) / 6)
    assert spend(0.1, []) == Spent({}, 0.1)


LADDERS = st.lists(
    st.builds(
        lambda number, most: ladder(found(name=f"policy{number}"), most),
        st.integers(0, 9),
        st.sampled_from(OFFERED),
    ),
    max_size=3,
    unique_by=lambda one: one.name,
)


@given(st.floats(PACE_MIN, 1.0), st.floats(PACE_MIN, 1.0), LADDERS)
def test_more_effort_is_never_less(one: float, other: float, ladders: list[Ladder]) -> None:
    """Clocks first: nothing else is cut while all have steps left, and no effort is overspent."""
    low, high = sorted((one, other))
    less, more = spend(low, ladders), spend(high, ladders)
    assert less.left <= more.left
    for each in ladders:
        cap_hz = less.caps_hz[each.name]
        assert cap_hz in each.steps_hz
        assert cap_hz <= more.caps_hz[each.name]
        share = each.powers[each.steps_hz.index(cap_hz)]
        assert share <= low + 1e-6 or cap_hz == each.steps_hz[0]
    assert FLOOR_SHARE <= less.clock <= more.clock <= 1.0 or not ladders
    if less.left < 1.0 and ladders:
        assert any(less.caps_hz[each.name] == each.steps_hz[0] for each in ladders)


def test_order_of_the_limits() -> None:
    """Clocks, then threads, then time; the last of the effort is the same whatever came before."""
    ceiling = Ceiling(2048, 1024, 4, 4, 4)
    told = [limits("warm", effort / 100, ceiling, (ladder(found(), FULL),)) for effort in range(100, 4, -1)]
    for above, below in itertools.pairwise(told):
        assert below.caps_hz["policy4"] <= above.caps_hz["policy4"]
        assert below.decode_threads <= above.decode_threads
        assert below.pace <= above.pace
    for one in told:
        assert one.decode_threads == 4 or one.caps_hz["policy4"] == OFFERED[3]
        assert one.pace == 1.0 or one.decode_threads == 1
    assert told[0].caps_hz == {"policy4": FULL}
    assert (told[0].clock, told[-1].clock) == (1.0, 0.42)
    assert limits("hot", 1.0, ceiling, (ladder(found(), FULL),)).decode_threads == 4
    assert limits("hot", 1.0, ceiling).decode_threads == 2


# whose a cap is -----------------------------------------------------------------------------------------------


def ours(hz: int) -> Cap:
    """A cap that we lowered from the highest clock."""
    cap = Cap()
    cap.look(found(), hot=False)
    assert cap.wish(hz) == hz
    cap.wrote(hz)
    return cap


def test_never_above_the_owners() -> None:
    """What was there at the start is the most; wishes for more, or for the same, write nothing."""
    cap = Cap()
    assert cap.wish(FULL) is None
    cap.look(found(1800 * MHZ), hot=False)
    assert cap.wish(FULL) is None
    assert cap.wish(1200 * MHZ) == 1200 * MHZ


def test_the_kernel_throttles_at_the_start() -> None:
    """Its figure is not taken for the owner's, and nothing is written until it lets go."""
    cap = Cap()
    cap.look(found(1008 * MHZ, held=True), hot=True)
    assert (cap.owner_hz, cap.wish(816 * MHZ)) == (None, None)
    cap.look(found(FULL), hot=False)
    assert cap.owner_hz == FULL


@pytest.mark.parametrize(("held", "hot"), [(True, False), (False, True), (True, True)])
def test_the_kernel_throttles_below_ours(held: bool, hot: bool) -> None:  # noqa: FBT001 - a table
    """However often it is read, the owner's stays what it was."""
    cap = ours(1800 * MHZ)
    for _ in range(5):
        assert not cap.look(found(1008 * MHZ, held=held), hot=hot)
    assert cap.wish(FULL) == FULL


def test_another_lowers_it() -> None:
    """Read twice on a cool board it is respected, also when it goes up again; read once it may be a glitch."""
    cap = ours(1800 * MHZ)
    assert not cap.look(found(1416 * MHZ), hot=False)
    assert not cap.look(found(1800 * MHZ), hot=False)
    assert not cap.look(found(1416 * MHZ), hot=False)
    assert cap.wish(FULL) is None
    assert cap.look(found(1416 * MHZ), hot=False)
    assert (cap.owner_hz, cap.wish(FULL), cap.wish(1200 * MHZ)) == (1416 * MHZ, None, 1200 * MHZ)
    assert cap.look(found(2208 * MHZ), hot=False)
    assert cap.owner_hz == 2208 * MHZ


def test_another_raises_it() -> None:
    """Nothing but another's hand can do that; ours follows below it."""
    cap = ours(1200 * MHZ)
    assert cap.look(found(2016 * MHZ), hot=True)
    assert (cap.owner_hz, cap.wish(1200 * MHZ)) == (2016 * MHZ, 1200 * MHZ)


def test_a_driver_that_rounds_is_not_another() -> None:
    """intel_pstate gives back a little less than it was told; that never creeps downwards."""
    cap = ours(1800 * MHZ)
    for _ in range(5):
        assert not cap.look(found(1785 * MHZ), hot=False)
    assert cap.owner_hz == FULL


WORDS = st.tuples(
    st.sampled_from(OFFERED), st.booleans(), st.booleans(), st.sampled_from(OFFERED), st.booleans()
)


@given(st.lists(WORDS, max_size=40))
def test_whatever_is_read(readings: list[tuple[int, bool, bool, int, bool]]) -> None:
    """We never write more than the owner's, and giving back always writes exactly that."""
    cap = Cap()
    for cap_hz, held, hot, wanted_hz, lost in readings:
        cap.look(found(cap_hz, held=held), hot=hot)
        written = cap.wish(wanted_hz)
        if written is not None and not lost:
            assert cap.owner_hz is not None
            assert written <= cap.owner_hz
            cap.wrote(written)
    cap.look(found(cap.ours_hz or cap.owner_hz or FULL), hot=False)
    if cap.ours_hz:
        assert cap.wish(FULL) == cap.owner_hz


# what is kept on disk -----------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 9999).map(lambda n: f"policy{n}"), st.integers(1, 10**11), min_size=1))
def test_kept_and_read_again(owners: dict[str, int]) -> None:
    """The line is what it was."""
    kept = Kept(tree.BOOT_ID, owners)
    assert decode(encode(kept)) == kept


@pytest.mark.parametrize(
    "line",
    [
        "",
        "boot",
        "boot policy4",
        "boot policy4=",
        "boot policy4=0",
        "boot ../x=5",
        "boot policy4=1 junk",
        "boot 4=1",
        "b policy=1",
        "b policy12345=1",
        "b policy/..=1",
        "b policy4=-1",
        "b policy4=\u00b2",
        "b policy4=\u0661",
        f"b policy4={'1' * 5000}",
    ],
    ids=lambda line: ascii(line)[:20],
)
def test_damaged_lines(line: str) -> None:
    """Nothing is written to a board by a line that is not ours."""
    assert decode(line) is None


@given(st.text(max_size=80))
def test_any_line(line: str) -> None:
    """Reading never raises."""
    decode(line)


def test_caps_in_words() -> None:
    """Policies with the same cap stand together, the lowest first."""
    caps = {"policy6": 1608 * MHZ, "policy0": 1800 * MHZ, "policy4": 1608 * MHZ}
    assert in_words(caps) == "policy4 and policy6 1.61 GHz, policy0 1.80 GHz"


def test_whose_cores_are_lowered() -> None:
    """Those below what the note of this very boot says, by more than a driver rounds; no others."""
    kept, low = Kept("boot", {"policy4": FULL}), found(1008 * MHZ)
    assert lowered(kept, "boot", [low, found(1008 * MHZ, name="policy6")]) == {4, 5}
    for note, boot_id, read in (
        (kept, "another", low),
        (kept, None, low),
        (None, "boot", low),
        (kept, "boot", found(FULL)),
        (kept, "boot", found(2360 * MHZ)),
    ):
        assert lowered(note, boot_id, [read]) == frozenset()


# on a board's files -------------------------------------------------------------------------------------------


class Rig:
    """A ROCK 5B of files, and the clocks of its big cores."""

    def __init__(self, folder: Path, *, wanted: bool = True) -> None:
        self.root = boards.rk3588_mainline(folder / "board")
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self.wanted = wanted
        self.clocks = self.another()

    def another(self) -> Clocks:
        """The clocks as a daemon finds them that has just started."""
        reader = VitalsReader(self.root / "sys", self.root / "proc")
        note = Note(self.state / "clocks")
        return Clocks(Caps(self.root / "sys"), BIG, note, reader.boot_id(), self.wanted)

    def file(self, policy: int = 4, name: str = "scaling_max_freq") -> Path:
        """A policy's attribute."""
        return self.root / f"sys/devices/system/cpu/cpufreq/policy{policy}/{name}"

    def cap(self, policy: int = 4) -> int:
        """What stands in it, megahertz."""
        return int(self.file(policy).read_text()) // 1000

    def spend(self, effort: float, *, hot: bool = False) -> float:
        """One turn of the thermostat; returns what is left for threads and time."""
        spent = spend(effort, self.clocks.ladders(hot=hot))
        self.clocks.apply(spent.caps_hz)
        return spent.left


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A board at full clock."""
    return Rig(tmp_path)


def test_lowered_and_given_back(rig: Rig) -> None:
    """Both pairs of the engine's cores, never the little ones; the end leaves what was there."""
    assert rig.spend(0.5) == 1.0
    assert (rig.cap(4), rig.cap(6), rig.cap(0)) == (1608, 1608, 1800)
    assert rig.clocks.as_json() == {"4-5": 1608 * MHZ, "6-7": 1608 * MHZ}
    assert rig.spend(1.0) == 1.0
    assert (rig.cap(4), rig.cap(6)) == (2400, 2400)
    assert rig.clocks.as_json() == {"4-5": FULL, "6-7": FULL}
    rig.spend(0.05)
    assert rig.cap(4) == 1008
    rig.clocks.restore()
    assert (rig.cap(4), rig.cap(6)) == (2400, 2400)
    assert list(rig.state.iterdir()) == []


def test_after_a_kill(rig: Rig) -> None:
    """The next one gives back what the note says, and only then reads what the owner allows."""
    rig.file(6).write_text("2208000\n")
    rig.spend(0.3)
    rig.clocks = rig.another()
    assert rig.clocks.ladders(hot=True)[0].steps_hz[-1] == FULL
    assert (rig.cap(4), rig.cap(6)) == (2400, 2208)


def test_after_another_boot(rig: Rig) -> None:
    """The kernel has forgotten our caps, so the note is old news: what stands there is its owner's."""
    rig.spend(0.3)
    rig.file().write_text("1800000\n")
    tree.put(rig.root / "proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000000\n")
    rig.clocks = rig.another()
    rig.clocks.ladders(hot=False)
    assert rig.cap() == 1800


def test_switched_off(tmp_path: Path) -> None:
    """Nothing is touched, but what an earlier daemon left is given back."""
    before = Rig(tmp_path)
    before.spend(0.3)
    rig = Rig.__new__(Rig)
    rig.root, rig.state, rig.wanted = before.root, before.state, False
    rig.clocks = rig.another()
    assert rig.spend(0.5) == 0.5
    assert rig.cap() == 2400
    assert rig.clocks.about() == {"lowered": False, "reason": OFF}
    alone = Rig(tmp_path / "alone", wanted=False)
    alone.spend(0.5)
    alone.wanted = True
    assert alone.another().ladders(hot=False), "it keeps no other daemon from lowering them"


def test_no_policies(rig: Rig) -> None:
    """A virtual machine: threads and time do it all."""
    shutil.rmtree(rig.root / "sys/devices/system/cpu/cpufreq")
    assert rig.spend(0.5) == 0.5
    assert rig.clocks.about() == {"lowered": False, "reason": NONE}


@pytest.mark.parametrize(
    "garbage", ["", "<unknown>\n", "-5\n", "0\n", "99999999999999\n", "12 13\n", "\x00\x01"]
)
@pytest.mark.parametrize("name", ["scaling_max_freq", "cpuinfo_max_freq"])
def test_garbage(rig: Rig, name: str, garbage: str) -> None:
    """A policy that tells nonsense is left alone; the other one is lowered."""
    rig.file(4, name).write_text(garbage)
    rig.spend(0.5)
    assert rig.cap(6) == 1608
    assert rig.file(4, name).read_text() == garbage


def test_garbage_among_the_clocks(rig: Rig) -> None:
    """Words that are no clocks of this hardware are passed over; nothing usable means even steps."""
    rig.file(4, "scaling_available_frequencies").write_text("1 -3 x 1416000 99000000 2400000\n")
    rig.file(6, "scaling_available_frequencies").write_text("\x00")
    rig.spend(0.5)
    assert rig.cap(4) == 1416
    assert 1400 < rig.cap(6) < 1800


def test_a_write_that_fails(rig: Rig) -> None:
    """The clocks are left alone from then on, what was lowered is given back, and the reason is told."""
    [first, _] = rig.clocks.ladders(hot=False)
    rig.file(6).unlink()
    rig.file(6).mkdir()  # for root, who may write to every file
    rig.clocks.apply({"policy4": first.steps_hz[0], "policy6": first.steps_hz[0]})
    rig.file(6).rmdir()
    rig.file(6).write_text("2400000\n")
    assert rig.spend(0.5) == 0.5
    assert rig.cap(4) == 2400
    assert str(rig.file(6)) in rig.clocks.about()["reason"]


class Barred(Caps):
    """The caps of a board on which some may not be written."""

    names: tuple[str, ...] = ()

    def look(self, cores: Collection[int]) -> tuple[Found, ...]:
        """As they are read."""
        return tuple(replace(one, writable=one.name not in self.names) for one in super().look(cores))


@pytest.mark.parametrize(("names", "which"), [(("policy4",), "policy4"), (("policy4", "policy6"), "policy*")])
def test_the_right_that_is_missing(rig: Rig, names: tuple[str, ...], which: str) -> None:
    """All are left alone then; the reason names each, and one command gives the right to all of them."""
    rig.clocks.caps = barred = Barred(rig.root / "sys")
    barred.names = names
    assert rig.spend(0.5) == 0.5
    reason = f"{' and '.join(names)} may not be written"
    assert rig.clocks.about() == {"lowered": False, "reason": reason, "mend": barred.right(which)}
    assert rig.clocks.as_json() == {}
    barred.names = ()
    assert (rig.spend(0.5), rig.clocks.about()) == (1.0, {"lowered": True})


class Stubborn(Caps):
    """The caps of a kernel that takes none any more."""

    def write(self, name: str, hz: int) -> str:
        """Refuse."""
        return f"{name} takes no {hz}"


def test_a_cap_that_cannot_be_given_back_is_told_once(rig: Rig) -> None:
    """It is tried with each reading, and at the end, of which the log has the command that helps."""
    rig.spend(0.5)
    rig.clocks.caps = Stubborn(rig.root / "sys")
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            rig.spend(1.0)
        rig.clocks.restore()
    told = [(line["event"], line.get("policy") or line.get("policies")) for line in lines]
    left = ["policy4", "policy6"]
    failed = [("clock_cap_failed", name) for name in left]
    assert told == [*failed, ("clocks_left_alone", None), ("clocks_not_restored", left)]
    assert lines[-1]["mend"] == rig.clocks.caps.right("policy4")
    assert rig.clocks.note.read(), "for whoever comes next"


def test_hot_unplugged(rig: Rig) -> None:
    """A pair that is switched off is not missed; back again, it has its cap as before."""
    rig.spend(0.5)
    rig.file(6, "affected_cpus").write_text("\n")
    assert rig.spend(0.25) == 1.0
    assert (rig.cap(4), rig.cap(6)) == (1200, 1608)
    rig.file(6, "affected_cpus").write_text("6 7\n")
    rig.spend(1.0)
    assert (rig.cap(4), rig.cap(6)) == (2400, 2400)
    rig.spend(0.5)
    shutil.rmtree(rig.file(6).parent)
    rig.spend(0.2)
    rig.clocks.restore()
    assert rig.cap(4) == 2400
    assert list(rig.state.iterdir()) == []


def test_changed_by_another_meanwhile(rig: Rig) -> None:
    """A lower cap of an operator stays when ours goes, also after a kill."""
    rig.spend(0.5)
    rig.file(4).write_text("1200000\n")
    rig.spend(0.5)
    rig.spend(0.5)
    rig.spend(1.0)
    assert (rig.cap(4), rig.cap(6)) == (1200, 2400)
    rig.spend(0.2)
    rig.clocks = rig.another()
    rig.spend(1.0)
    assert (rig.cap(4), rig.cap(6)) == (1200, 2400)


def test_another_that_never_rests(rig: Rig) -> None:
    """A program that sets the cap back again and again is told now and then: lines push others out."""
    rig.spend(0.5)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2 * SAY_AGAIN):
            rig.file(4).write_text("2400000\n")
            rig.spend(0.5)
            assert rig.cap(4) == 1608
    told = [one for one in lines if one["event"] == "clock_cap_changed_by_another"]
    assert [one.get("left_out") for one in told] == [None, SAY_AGAIN - 1]


def test_the_kernel_throttles_meanwhile(rig: Rig) -> None:
    """What its cooling shows is not taken for anybody's wish."""
    rig.spend(0.5)
    cooling = rig.root / "sys/class/thermal/cooling_device1/cur_state"
    cooling.write_text("3\n")
    rig.file(4).write_text("1008000\n")
    for _ in range(3):
        rig.spend(0.5)
    cooling.write_text("0\n")
    rig.file(4).write_text("1608000\n")
    rig.spend(1.0)
    assert rig.cap(4) == 2400


def test_no_note_no_cap(rig: Rig) -> None:
    """A disk that refuses the note keeps the clocks up: nobody could give them back after a kill."""
    shutil.rmtree(rig.state)
    rig.state.write_text("no folder")
    rig.spend(0.5)
    assert rig.cap() == 2400


class Counted(Note):
    """A note that counts how often it is written."""

    writes = 0

    def write(self, text: str) -> None:
        """Count it."""
        self.writes += 1
        super().write(text)


def test_no_note_and_the_heat_goes_into_threads_and_time(rig: Rig) -> None:
    """Caps that nobody may write are none to count on; the disk is tried again, and the log says it once."""
    shutil.rmtree(rig.state)
    rig.state.write_text("no folder")
    with structlog.testing.capture_logs() as lines:
        left = [rig.spend(0.5) for _ in range(3 * NOTE_AGAIN)]
    assert set(left[1:]) == {0.5}
    assert rig.clocks.about() == {"lowered": False, "reason": UNNOTED}
    assert [line["event"] for line in lines] == ["clocks_used", "note_failed", "clocks_left_alone"]
    tried = Counted(rig.state / "clocks")
    rig.clocks.note = tried
    for _ in range(3 * NOTE_AGAIN):
        rig.spend(0.5)
    assert tried.writes == 3
    rig.state.unlink()
    rig.state.mkdir()
    for _ in range(NOTE_AGAIN + 1):
        rig.spend(0.5)
    assert (rig.cap(), rig.clocks.about()) == (1608, {"lowered": True})


def test_a_disk_that_fills_up_while_caps_are_lowered(rig: Rig) -> None:
    """They follow the heat as before, for their note stands; one that must change gives them back."""
    rig.spend(0.5)
    (rig.state / ".clocks").mkdir()  # in the way of each new note
    assert rig.spend(0.3) == 1.0
    assert rig.cap(4) == 1200
    for _ in range(3):
        rig.file(4).write_text("1008000\n")
        rig.spend(0.3)
    assert (rig.spend(0.3), rig.cap(4), rig.cap(6)) == (0.3, 1008, 2400)


def test_the_owners_cap_is_throttling_below_ours_too(rig: Rig) -> None:
    """Lowering a clock that its owner holds down already ends no throttling, and giving it back begins none."""
    reader = VitalsReader(rig.root / "sys", rig.root / "proc")
    rig.file(4).write_text("1800000\n")
    for effort in (1.0, 0.3, 0.3, 1.0, 1.0):
        rig.spend(effort)
        assert rig.clocks.without_ours(reader.read()).throttled
    assert rig.cap(4) == 1800


def test_a_note_that_was_taken_away(rig: Rig) -> None:
    """`edged clocks --restore` beside a daemon that runs: the next cap has its note again, for after a kill."""
    rig.spend(0.3)
    assert give_back(Paths(sys=rig.root / "sys", proc=rig.root / "proc", state=rig.state))
    rig.spend(0.3)
    assert rig.cap() < 2400
    rig.clocks = rig.another()
    rig.spend(1.0)
    assert rig.cap() == 2400


def test_what_is_given_back_is_given_back_once(rig: Rig) -> None:
    """While one policy takes nothing, the other one is its owner's again, whatever he makes of it."""
    rig.spend(0.3)
    rig.file(6).unlink()
    rig.file(6).mkdir()  # for root, who may write to every file
    rig.clocks = rig.another()
    rig.spend(1.0)
    assert rig.cap(4) == 2400
    rig.file(4).write_text("1200000\n")
    rig.spend(1.0)
    assert rig.cap(4) == 1200
    rig.file(6).rmdir()
    rig.file(6).write_text("1008000\n")
    rig.spend(1.0)
    assert (rig.cap(4), rig.cap(6), list(rig.state.iterdir())) == (1200, 2400, [])


def test_what_cannot_be_given_back_is_said_once(rig: Rig) -> None:
    """With what it was and the command that helps; then what was given back, of the policies that are there."""
    rig.spend(0.3)
    shutil.rmtree(rig.file(4).parent)
    rig.file(6).unlink()
    rig.file(6).mkdir()  # for root, who may write to every file
    rig.clocks = rig.another()
    with structlog.testing.capture_logs() as lines:
        notes = set()
        for _ in range(3):
            rig.spend(1.0)
            notes.add((rig.state / "clocks").stat().st_mtime_ns)
        assert len(notes) == 1, "the same note again, every two seconds, wears the card"
        rig.file(6).rmdir()
        rig.file(6).write_text("1008000\n")
        rig.spend(1.0)
    first, second, third, fourth = lines
    assert (first["event"], first["log_level"]) == ("clocks_not_restored", "warning")
    assert (first["caps"], str(rig.file(6)) in first["reason"]) == ("policy6 2.40 GHz", True)
    assert first["mend"] == rig.clocks.caps.right("policy6")
    assert (second["event"], "could not be given back" in second["reason"]) == ("clocks_left_alone", True)
    assert (third["event"], third["caps"]) == ("clocks_restored", "policy6 2.40 GHz")
    assert (fourth["event"], fourth["policies"]) == ("clocks_used", ["policy6"])
    assert (rig.cap(6), list(rig.state.iterdir())) == (2400, [])


def test_two_daemons_on_one_board(rig: Rig, tmp_path: Path) -> None:
    """In whatever order they lower and end: what was there before both is there afterwards."""
    (tmp_path / "other").mkdir()
    other = Clocks(
        Caps(rig.root / "sys"), BIG, Note(tmp_path / "other" / "clocks"), rig.clocks.boot_id, wanted=True
    )

    def lower(clocks: Clocks, effort: float) -> None:
        clocks.apply(spend(effort, clocks.ladders(hot=False)).caps_hz)

    lower(rig.clocks, 0.5)
    with structlog.testing.capture_logs() as lines:
        for effort in (0.3, 0.8, 0.3, 0.5):
            lower(other, 0.3)
            lower(rig.clocks, effort)
    assert [line["event"] for line in lines] == ["clocks_left_alone"], (
        "one whose hand it is says nothing of it"
    )
    other.restore()
    lower(rig.clocks, 1.0)
    lower(rig.clocks, 1.0)
    rig.clocks.restore()
    assert (rig.cap(4), rig.cap(6)) == (2400, 2400)


def test_our_caps_are_no_throttling(rig: Rig) -> None:
    """The vitals say throttled for what the kernel or another holds down, not for what we do."""
    reader = VitalsReader(rig.root / "sys", rig.root / "proc")
    rig.spend(0.5)
    lowered = reader.read()
    assert lowered.throttled
    assert rig.clocks.without_ours(lowered).throttled is False
    rig.file(0).write_text("1008000\n")
    assert rig.clocks.without_ours(reader.read()).throttled
    rig.file(0).write_text("1800000\n")
    rig.spend(1.0)
    assert rig.clocks.without_ours(lowered).throttled is False, "a reading that is older than our last order"
    rig.spend(1.0)
    assert rig.clocks.without_ours(lowered).throttled


def test_what_our_caps_do_not_explain(rig: Rig) -> None:
    """The kernel's cooling, and what throttles while nothing is lowered; what is not throttled stays so."""
    read = VitalsReader(rig.root / "sys", rig.root / "proc").read
    free, throttled = read(), replace(read(), throttled=True)
    rig.spend(1.0)
    assert rig.clocks.without_ours(throttled).throttled
    rig.spend(0.5)
    assert rig.clocks.without_ours(throttled).throttled is False
    cooling = rig.root / "sys/class/thermal/cooling_device1/cur_state"
    cooling.write_text("3\n")
    assert rig.clocks.without_ours(read()).throttled
    cooling.write_text("0\n")
    rig.file(4).write_text("1200000\n")
    for _ in range(2):
        rig.spend(0.5)
    assert rig.clocks.without_ours(free).throttled is False


# the command that the unit runs after every end -------------------------------------------------------------------


def test_settings_that_are_wrong_by_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end the daemon's next start, but keep nobody from giving the clocks back: systemd names the folder."""
    config = tmp_path / "edged.toml"
    config.write_text(f'[paths]\nsys = "{tmp_path}"\nstate = "{tmp_path}"\n[model]\npath = "x.gguf"\n')
    assert paths(config).sys == tmp_path
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    config.write_text("[heat]\nclocks = 7\n")
    assert paths(config) == Paths(state=tmp_path / "state")


def test_the_restore_needs_no_daemon(rig: Rig) -> None:
    """It finds note and board by the settings alone, and says whether anything is left to do."""
    where = Paths(sys=rig.root / "sys", proc=rig.root / "proc", state=rig.state)
    assert give_back(where)
    rig.spend(0.3)
    rig.file(6).unlink()
    rig.file(6).mkdir()  # for root, who may write to every file
    assert not give_back(where)
    rig.file(6).rmdir()
    rig.file(6).write_text("1200000\n")
    assert give_back(where)
    assert (rig.cap(4), rig.cap(6), list(rig.state.iterdir())) == (2400, 2400, [])


def test_what_a_person_is_shown(tmp_path: Path) -> None:
    """Who may lower what, and what is lowered; on a board whose cores are those that this process may use."""
    own = Rig(tmp_path)
    own.file(0, "affected_cpus").write_text(" ".join(map(str, sorted(os.sched_getaffinity(0)))))
    own.file(0).write_text("1200000\n")
    own.clocks.note.write(encode(Kept(tree.BOOT_ID, {"policy0": FULL})))
    config = tmp_path / "edged.toml"
    lines = [
        "[paths]",
        f'sys = "{own.root}/sys"',
        f'proc = "{own.root}/proc"',
        f'state = "{own.state}"',
        "[model]",
        'path = "x.gguf"',
    ]
    config.write_text("\n".join(lines))
    shown = CliRunner().invoke(app, ["clocks", "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "before: policy0 2.40 GHz" in shown.output
    own.clocks.note.write("")
    shown = CliRunner().invoke(app, ["clocks", "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "before: " not in shown.output
    assert "at most 1.20 of 1.80 GHz; may be lowered" in shown.output
    for note in (Kept(tree.BOOT_ID, {"policy0": 1200 * MHZ}), Kept("another-boot", {"policy0": FULL})):
        own.clocks.note.write(encode(note))
        shown = CliRunner().invoke(app, ["clocks", "--config", str(config)])
        assert "has lowered them" not in shown.output, (
            "its owner's own cap, or one that a power cut took away"
        )
    own.file(0).unlink()
    shown = CliRunner().invoke(app, ["clocks", "--config", str(config)])
    assert "policy0:" not in shown.output
    assert "tells no clocks" in shown.output


def test_a_note_is_written_over_nothing_else(tmp_path: Path) -> None:
    """Root may write it, `edged clocks --restore`; a link that the service's account put there leads nowhere."""
    (tmp_path / "shadow").write_text("secret")
    (tmp_path / ".clocks").symlink_to(tmp_path / "shadow")
    Note(tmp_path / "clocks").write("a line")
    assert Note(tmp_path / "clocks").read() == "a line"
    assert (tmp_path / "shadow").read_text() == "secret"
