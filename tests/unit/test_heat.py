"""The judgement of heat over time: levels up at once and down late, sensors that lie, a supply that gives way."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.heat.edges import Edges
from edged.core.heat.heat import UNDER_VOLTAGE_S, Heat, Verdict
from edged.core.heat.margins import Margins, nearest, with_known_trips
from edged.core.heat.policy import BLIND_EFFORT, TABLE, UNDER_VOLTAGE_EFFORT
from edged.core.heat.sensors import OUTLIVED_C, OUTLIVED_S, STUCK_BUSY_S, STUCK_S
from edged.core.heat.slope import Slope, time_to_trip_s
from edged.core.vitals import LEVELS, Trip, Vitals, Zone

PASSIVE = (Trip("passive", 85.0, 2.0), Trip("critical", 115.0))
SHUTDOWN = (Trip("critical", 110.0),)


def vitals(
    *temps: float | None,
    under_voltage: bool | None = None,
    throttled: bool = False,
) -> Vitals:
    """A board with a zone for each temperature."""
    zones = tuple(Zone(f"zone{n}", temp_c, PASSIVE) for n, temp_c in enumerate(temps))
    return Vitals(zones=zones, under_voltage=under_voltage, throttled=throttled)


class Watched:
    """A board that is read every two seconds."""

    def __init__(self, **margins: float) -> None:
        self.heat = Heat(Margins(**margins))
        self.now = 1000.0
        self.verdicts: list[Verdict] = []

    def read(self, reading: Vitals, *, busy: bool = True) -> Verdict:
        """One reading."""
        self.now += 2.0
        self.verdicts.append(self.heat.step(reading, self.now, busy=busy))
        return self.verdicts[-1]

    def hold(self, seconds: float, *temps: float | None, busy: bool = True) -> Verdict:
        """The same reading for some time."""
        for _ in range(max(1, round(seconds / 2))):
            self.read(vitals(*temps), busy=busy)
        return self.verdicts[-1]

    @property
    def levels(self) -> list[str]:
        """Levels without repetitions."""
        names = [verdict.level for verdict in self.verdicts]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


# levels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temp_c", "level"),
    [(50, "cool"), (69.9, "cool"), (70, "warm"), (83.9, "warm"), (84, "hot"), (85, "critical")],
)
def test_level_by_its_own_trip(temp_c: float, level: str) -> None:
    """Each level begins at its margin below the zone's own trip; hot at the second reading, the others at once."""
    board = Watched()
    assert board.read(vitals(temp_c)).level == ("warm" if level == "hot" else level)
    assert board.read(vitals(temp_c)).level == level


def test_hottest_zone_decides() -> None:
    """The zone nearest to its own trip decides, not the one with the highest temperature."""
    heat = Heat(Margins())
    zones = (Zone("a", 80.0, SHUTDOWN), Zone("b", 79.1, (Trip("passive", 80.0),)))
    heat.step(Vitals(zones=zones), 1.0, busy=True)
    verdict = heat.step(Vitals(zones=zones), 3.0, busy=True)
    assert verdict.level == "hot"
    assert verdict.nearest is not None
    assert (verdict.nearest.zone, verdict.target_c) == ("b", 77.5)


def test_levels_end_late() -> None:
    """A level ends only below its hysteresis, and only after the dwell; critical ends sooner."""
    board = Watched()
    board.hold(4, 84.5)
    assert board.hold(300, 83.5).level == "hot", "within the hysteresis"
    assert board.hold(28, 82.5).level == "hot", "within the dwell"
    assert board.hold(10, 82.5).level == "warm", "the held temperature is not hot"
    assert board.hold(300, 67.5).level == "warm", "within the hysteresis"
    assert board.hold(40, 66.5).level == "cool"
    board.hold(10, 86.0)
    assert board.verdicts[-1].level == "critical"
    assert board.hold(12, 81.5).level == "hot"


def test_cooling_must_last() -> None:
    """A dip in the midst of the dwell begins it anew."""
    board = Watched()
    board.hold(4, 84.0)
    for _ in range(10):
        board.hold(20, 81.0)
        board.hold(2, 83.5)
    assert board.levels == ["warm", "hot"]


@given(st.lists(st.floats(30.0, 100.0), min_size=2, max_size=60))
def test_never_below_what_it_is(temps: list[float]) -> None:
    """Whatever the temperatures do, the level is never below what a slow reading of it would say."""
    board = Watched()
    for temp_c in temps:
        verdict = board.hold(6, temp_c)
        least = 3 if temp_c >= 85 else 2 if temp_c >= 84.0 else int(temp_c >= 70)
        assert LEVELS.index(verdict.level) >= least


def test_noise_changes_no_level() -> None:
    """Half an hour of noise of a degree around the beginning of a level is one change, or two."""
    board, noise = Watched(), random.Random(3)  # noqa: S311 - noise
    for _ in range(900):
        board.read(vitals(70.0 + noise.uniform(-1.4, 1.4)))
    assert board.levels in (["cool", "warm"], ["warm"])


def test_rise_lifts_the_level_early() -> None:
    """A steady fast rise makes the board warm before its margin, and the reason tells the time."""
    board = Watched()
    for n in range(12):
        board.read(vitals(38.0 + 2.0 * n))
    verdict = board.verdicts[-1]
    assert verdict.level == "warm"
    assert verdict.rise_c_per_s == pytest.approx(1.0)
    assert verdict.trip_in_s == pytest.approx(25.0)
    assert "25 s" in verdict.reason


def test_a_steep_rise_makes_a_warm_board_hot_early() -> None:
    """At the second reading from which it would be at the trip within seconds."""
    board = Watched()
    for n in range(7):
        board.read(vitals(45.0 + 5.0 * n))
    assert [verdict.level for verdict in board.verdicts[-2:]] == ["warm", "hot"]
    assert board.verdicts[-1].trip_in_s == pytest.approx(4.0)


def test_a_slow_rise_lifts_no_level() -> None:
    """The trip is minutes away."""
    board = Watched()
    for n in range(30):
        board.read(vitals(40.0 + 0.4 * n))
    assert board.verdicts[-1].trip_in_s == pytest.approx(167.0)
    assert board.levels == ["cool"]


@pytest.mark.parametrize("interval_s", [0.2, 2.0, 6.0, 7.0, 10.0])
def test_a_rise_is_seen_at_every_interval(interval_s: float) -> None:
    """Also where the board is read so seldom that a window of some seconds holds two readings."""
    slope = Slope()
    for number in range(200):
        slope.add(number * (interval_s + 0.003), 40.0 + 0.2 * number * interval_s)
    assert slope.c_per_s == pytest.approx(0.2, rel=0.05)


def test_two_zones_that_take_turns_rise_as_one_does() -> None:
    """The hottest of a ROCK 5B's two big pairs changes with every reading; the rise is seen all the same."""
    board = Watched()
    for n in range(12):
        near, far = 38.0 + 2.0 * n, 37.6 + 2.0 * n
        board.read(vitals(*((near, far) if n % 2 else (far, near))))
    verdict = board.verdicts[-1]
    assert verdict.rise_c_per_s == pytest.approx(1.0, abs=0.05)
    assert verdict.level == "warm"


# slope ----------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 2.0), st.randoms(use_true_random=False))
def test_slope_through_steps(rise: float, noise: random.Random) -> None:
    """A line is found through readings in whole degrees."""
    slope = Slope()
    for n in range(15):
        slope.add(2.0 * n, float(round(50 + rise * 2.0 * n + noise.uniform(-0.3, 0.3))))
    assert slope.c_per_s == pytest.approx(rise, abs=0.12)


@given(st.lists(st.sampled_from([50.0, 51.0]), min_size=11, max_size=11))
def test_no_slope_in_a_flicker(temps: list[float]) -> None:
    """A reading that flickers between two steps never seems to reach a trip at 85 C within a minute."""
    slope = Slope()
    for n, temp_c in enumerate(temps):
        slope.add(2.0 * n, temp_c)
    trip_in_s = time_to_trip_s(-34.0, slope.c_per_s)
    assert trip_in_s is None or trip_in_s > 400


def test_two_readings_say_nothing() -> None:
    """It is too early for a slope."""
    slope = Slope()
    slope.add(0.0, 50.0)
    slope.add(2.0, 60.0)
    assert slope.c_per_s == 0.0


@pytest.mark.parametrize(
    ("excess", "rise", "expected"), [(-10.0, 0.5, 20.0), (-10.0, 0.0, None), (1.0, -3.0, 0.0)]
)
def test_time_to_trip(excess: float, rise: float, expected: float | None) -> None:
    """None while it does not rise, nothing left beyond the trip."""
    assert time_to_trip_s(excess, rise) == expected


# sensors --------------------------------------------------------------------------------------------------


def test_no_sensor_at_all() -> None:
    """A board that never had a sensor is cool and runs free: there is nothing to be judged by."""
    verdict = Watched().read(Vitals())
    assert (verdict.level, verdict.effort, verdict.blind) == ("cool", 1.0, False)


def test_the_first_reading_hangs() -> None:
    """Whether there are sensors is not known then: such a board is no board without any."""
    board = Watched()
    verdict = board.read(Vitals(late=True))
    assert (verdict.level, verdict.effort, verdict.blind) == ("warm", BLIND_EFFORT, True)
    assert "hangs" in verdict.reason
    assert board.hold(60, 50.0).level == "cool"


def test_sensor_lost() -> None:
    """The only sensor goes away: warm, half the effort, one event; it comes back: another."""
    board = Watched()
    board.hold(10, 50.0)
    assert board.hold(4, None).level == "cool", "its last word counts for some seconds"
    verdict = board.read(vitals(None))
    assert (verdict.level, verdict.blind, dict(verdict.failed)) == ("warm", True, {"zone0": "missing"})
    assert verdict.reason == "no sensor can be believed: zone0 is missing"
    assert verdict.effort <= BLIND_EFFORT
    assert not board.read(vitals(None)).failed
    back = board.read(vitals(50.0))
    assert (back.mended, back.blind, dict(back.sensors)) == ((), False, {})
    board.hold(30, 50.0)
    assert [verdict.mended for verdict in board.verdicts if verdict.mended] == [("zone0",)]


def test_a_loose_contact_is_told_once() -> None:
    """A sensor that answers now and then for hours has failed once, and is mended when it has answered for long."""
    board = Watched()
    for n in range(1800):
        board.read(vitals(None if n % 6 < 5 else 50.0 + n % 3, 51.0 + n % 2))
    told = [(dict(verdict.failed), verdict.mended) for verdict in board.verdicts]
    assert [one for one in told if one != ({}, ())] == [({"zone0": "missing"}, ())]
    board.hold(40, 50.0, 51.0)
    assert [verdict.mended for verdict in board.verdicts if verdict.mended] == [("zone0",)]


def test_lost_while_hot() -> None:
    """A hot board whose sensor dies stays hot for a minute, then counts as warm; never as cool."""
    board = Watched(dwell_s=0.0)
    board.hold(10, 84.0)
    assert board.hold(50, None).level == "hot"
    assert board.hold(40, None).level == "warm"
    assert board.hold(3600, None).level == "warm"


def test_one_of_several_lost() -> None:
    """While another sensor tells, the loss of one is an event and no more."""
    board = Watched()
    board.hold(10, 50.0, 51.0)
    board.hold(4, None, 51.0)
    verdict = board.read(vitals(None, 51.0))
    assert (verdict.level, verdict.blind, dict(verdict.failed)) == ("cool", False, {"zone0": "missing"})


def test_a_sensor_that_is_asked_seldom() -> None:
    """One reading that it does not answer is no failure, however long the last one is ago; two are."""
    heat = Heat(Margins())
    heat.step(vitals(50.0), 1000.0, busy=True)
    assert not heat.step(vitals(None), 1010.0, busy=True).blind
    assert heat.step(vitals(50.0), 1020.0, busy=True).sensors == {}
    heat.step(vitals(None), 1030.0, busy=True)
    assert heat.step(vitals(None), 1040.0, busy=True).sensors == {"zone0": "missing"}


def test_spike_is_not_believed() -> None:
    """One wild reading changes nothing; a jump that stays is believed at the second reading."""
    board = Watched()
    board.hold(10, 50.0)
    assert board.read(vitals(95.0)).level == "cool"
    assert board.hold(4, 50.5).level == "cool"
    board.read(vitals(84.0))
    board.read(vitals(84.5))
    assert board.read(vitals(84.5)).level == "hot"


def test_wild_sensor() -> None:
    """A sensor that jumps about all the time is taken out, and taken back after a calm minute."""
    board = Watched()
    board.hold(10, 50.0)
    for _ in range(4):
        board.read(vitals(110.0))
        board.read(vitals(50.0))
    assert board.verdicts[-1].sensors == {"zone0": "jumping"}
    assert board.verdicts[-1].level == "warm"
    board.hold(70, 50.0)
    assert board.verdicts[-1].sensors == {}


@pytest.mark.parametrize("others_move", [True, False])
def test_stuck_sensor(others_move: bool) -> None:  # noqa: FBT001 - a table
    """A reading that stands still while the engine works and rests, or while others move, is not believed."""
    board = Watched()
    steps = round(STUCK_S / 2) + 2
    for n in range(steps):
        if others_move:
            board.read(vitals(50.0, 45.0 + 15.0 * n / steps))
        else:
            board.read(vitals(50.0), busy=n * 2 < 2 * STUCK_BUSY_S)
    assert board.verdicts[-1].sensors == {"zone0": "stuck"}
    assert board.verdicts[-1].blind is not others_move
    assert board.read(vitals(50.5, 60.0)).sensors == {}


def test_a_figure_that_a_firmware_makes_up() -> None:
    """`acpitz` of a PC says 27.8 C for ever: it is found out, and such a PC is not taken for one gone blind."""
    board = Watched()
    acpitz = Zone("acpitz", 27.8, (Trip("passive", 95.0), Trip("critical", 119.0)))
    for n in range(round(2 * STUCK_S / 2)):
        board.read(Vitals(zones=(acpitz, Zone("x86_pkg_temp", 45.0 + n % 30))), busy=n % 120 > 60)
    verdict = board.verdicts[-1]
    assert verdict.sensors == {"acpitz": "stuck"}
    assert (verdict.level, verdict.effort, verdict.blind) == ("cool", 1.0, False)
    assert board.levels == ["cool"]


def test_a_cool_sensor_that_stops_moving() -> None:
    """One that ever told another figure is a sensor, and one that has broken, at whatever figure."""
    board = Watched()
    board.hold(20, 35.5)
    for n in range(round(STUCK_S / 2) + 2):
        board.read(vitals(35.0), busy=n % 2 == 0)
    assert (board.verdicts[-1].blind, board.verdicts[-1].effort) == (True, BLIND_EFFORT)


@pytest.mark.parametrize(("temp_c", "busy"), [(84.5, False), (87.0, False), (87.0, True)])
def test_a_lie_that_stops_all_work_ends(temp_c: float, busy: bool) -> None:  # noqa: FBT001 - a table
    """A sensor that says hot for ever lets nothing in that could prove it wrong: standing still there is proof."""
    board = Watched()
    assert board.hold(STUCK_S - 10, temp_c, busy=busy).level in {"hot", "critical"}
    verdict = board.hold(120, temp_c, busy=busy)
    assert (verdict.sensors, verdict.blind, verdict.level) == ({"zone0": "stuck"}, True, "warm")
    assert board.read(vitals(temp_c + 1.0), busy=busy).level != "cool"


def test_a_lie_that_would_have_switched_the_board_off_ends_soon() -> None:
    """A sensor says 127 C from its first reading on, beyond the shutdown, and all other zones are far cooler."""
    board = Watched()
    assert board.hold(OUTLIVED_S - 4, 127.0, 45.0, 44.0).level == "critical"
    assert board.verdicts[-1].sensors == {}
    verdict = board.hold(60, 127.0, 45.0, 44.0)
    assert (verdict.sensors, verdict.blind, verdict.level) == ({"zone0": "stuck"}, False, "cool")


@pytest.mark.parametrize(
    "temps",
    [
        (127.0,),  # nobody else tells
        (127.0, None),
        (127.0, 127.0 - OUTLIVED_C + 1),  # the chip is hot
        (114.9, 45.0),  # the kernel lets the board run
    ],
)
def test_what_may_be_true_heat_is_believed_as_long_as_ever(temps: tuple[float | None, ...]) -> None:
    """One piece of evidence is not enough."""
    board = Watched()
    assert board.hold(STUCK_S - 10, *temps, busy=False).level == "critical"
    assert "zone0" not in board.verdicts[-1].sensors


def test_what_moves_is_believed_beyond_the_shutdown() -> None:
    """A reading with the least life in it is a chip's, whatever the others say."""
    board = Watched()
    for n in range(round(STUCK_S / 2)):
        board.read(vitals(120.0 + 0.5 * (n // 25 % 2), 45.0), busy=False)
    assert (board.verdicts[-1].level, board.verdicts[-1].sensors) == ("critical", {})


def test_a_lie_below_a_shutdown_ends_too() -> None:
    """Where the pause begins far below a trip that switches off, standing still there is proof as well."""
    board = Watched(critical_c=10.0)
    lie = Vitals(zones=(Zone("soc", 102.0, SHUTDOWN),))
    for _ in range(round(STUCK_S / 2) + 60):
        board.read(lie, busy=False)
    verdict = board.verdicts[-1]
    assert (verdict.sensors, verdict.level) == ({"soc": "stuck"}, "warm")


def test_still_is_not_stuck() -> None:
    """An idle board may show the same temperature for hours."""
    board = Watched()
    assert board.hold(3 * STUCK_S, 40.0, 40.0, busy=False).sensors == {}


@given(
    st.lists(
        st.lists(st.none() | st.floats(-40.0, 150.0), min_size=2, max_size=2),
        min_size=1,
        max_size=80,
    )
)
def test_garbage(readings: list[list[float | None]]) -> None:
    """Whatever sensors say, there is a verdict with sane numbers."""
    board = Watched(dwell_s=0.0)
    for temps in readings:
        verdict = board.read(vitals(*temps))
        assert 0.0 < verdict.effort <= TABLE[verdict.level].effort
        assert 0 <= verdict.retry_after_ms <= 600_000
        assert verdict.reason
        assert verdict.trip_in_s is None or verdict.trip_in_s >= 0


# supply and clocks ----------------------------------------------------------------------------------------


def test_under_voltage() -> None:
    """A dip of the supply is an edge, makes the board warm and halves the effort for a minute."""
    board = Watched(dwell_s=0.0)
    before = board.hold(4, 40.0).reason
    verdict = board.read(vitals(40.0, under_voltage=True))
    assert (verdict.under_voltage, verdict.under_voltages, verdict.level) == (True, 1, "warm")
    assert verdict.reason == f"{before}; the supply's voltage was too low"
    assert verdict.effort <= UNDER_VOLTAGE_EFFORT
    verdict = board.read(vitals(40.0, under_voltage=True))
    assert (verdict.under_voltage, verdict.under_voltages) == (None, 1)
    verdict = board.read(vitals(40.0, under_voltage=False))
    assert verdict.under_voltage is False
    assert board.hold(UNDER_VOLTAGE_S + 4, 40.0).level == "cool"


def test_throttles_are_counted_by_their_beginnings() -> None:
    """Edges count, not readings."""
    board = Watched(dwell_s=0.0)
    edges = [board.read(vitals(60.0, throttled=on)).throttled for on in (False, True, True, False, True)]
    assert edges == [None, True, None, False, True]
    assert board.verdicts[-1].throttles == 2


def test_what_keeps_coming_back_is_told_once() -> None:
    """A weak supply, or a kernel that holds a trip, changes its word by the second: no line for each."""
    board = Watched()
    for turn in range(3000):
        board.read(vitals(60.0, throttled=turn % 3 == 0, under_voltage=turn % 7 == 0))
    assert (board.verdicts[-1].throttles, board.verdicts[-1].under_voltages) == (1000, 429)
    board.hold(60, 60.0)
    told = [(verdict.throttled, verdict.under_voltage) for verdict in board.verdicts]
    assert [edge for edge, _ in told if edge is not None] == [True, False]
    assert [edge for _, edge in told if edge is not None] == [True, False]


def test_a_word_that_is_missing_is_no_edge() -> None:
    """Throttling, or a low supply, that cannot be read for a moment has neither ended nor begun anew."""
    board = Watched()
    for told in (True, None, True):
        board.read(Vitals(throttled=told, under_voltage=told))
    assert (board.verdicts[-1].throttles, board.verdicts[-1].under_voltages) == (1, 1)
    for _ in range(round(UNDER_VOLTAGE_S / 2) + 60):
        board.read(Vitals())
    assert board.verdicts[-1].level == "cool"


def test_counts_of_one_boot_go_on_after_a_restart() -> None:
    """The next daemon counts on, and what holds since before its start is no second beginning."""
    before = Edges.after("", "boot-1")
    assert before.line() == ""
    for now, throttled, low in ((0.0, True, False), (2.0, False, True), (4.0, True, False)):
        before.step(vitals(60.0, throttled=throttled, under_voltage=low), now, 30.0)
    after = Edges.after(before.line(), "boot-1")
    assert after == before
    assert after.step(vitals(60.0, throttled=True), 6.0, 30.0) == (None, None)
    assert after.step(vitals(60.0, throttled=True, under_voltage=False), 36.0, 30.0) == (None, False)
    assert (after.throttling.count, after.supply.count) == (2, 1)


@pytest.mark.parametrize(
    "line",
    [
        *("", "boot-1", "boot-1 2 1 1", "boot-1 2 x 1 0", "boot-1 -2 1 1 0", "boot-2 2 1 1 0"),
        *("boot-1 2 1 1 0 0", "boot-1 2 1 1 0 x", f"boot-1 {'9' * 5000} 1 1 0"),
    ],
)
def test_counts_begin_anew(line: str) -> None:
    """After another boot, or where the line is damaged."""
    assert Edges.after(line, "boot-1") == Edges("boot-1")
    assert Edges.after("boot-1 2 1 1 0", None) == Edges()


# trips that the kernel does not tell --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("board", "trip_c", "expected"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", None, 80.0),
        ("Raspberry Pi 5 Model B Rev 1.0", 70.0, 70.0),
        ("Some Board", None, 105.0),
        (None, 90.0, 90.0),
    ],
)
def test_known_trips(board: str | None, trip_c: float | None, expected: float) -> None:
    """A Raspberry Pi throttles at 80 C though its kernel only tells 110 C; the operator's word comes first."""
    zones = with_known_trips((Zone("cpu-thermal", 60.0, SHUTDOWN),), board, trip_c)
    near = nearest(zones, 5.0)
    assert near is not None
    assert near.trip_c == expected


def test_a_zone_that_tells_keeps_its_word() -> None:
    """A passive trip in the kernel is not overruled."""
    zones = (Zone("cpu-thermal", 60.0, PASSIVE),)
    assert with_known_trips(zones, "Raspberry Pi 9", 60.0) == zones


def test_known_once_is_known() -> None:
    """What is shown to people has the added trips, and judging that again adds none."""
    heat = Heat(Margins(), "Raspberry Pi 5 Model B Rev 1.0")
    shown = heat.known(Vitals(zones=(Zone("cpu-thermal", 60.0, SHUTDOWN),)))
    assert [trip.temp_c for trip in shown.zones[0].trips] == [110.0, 80.0, 85.0]
    assert heat.known(shown) == shown


# when to come back --------------------------------------------------------------------------------------------


def test_retry_after_follows_the_cooling() -> None:
    """The hotter, the later; a board that is seen cooling fast is believed; a cool one promises nothing."""
    waits: list[int] = []
    for temp_c in (83.6, 84.5, 90.0):
        board = Watched()
        board.hold(10, 40.0)
        waits.append(board.hold(30, temp_c).retry_after_ms)
    assert waits == sorted(waits)
    assert waits[0] >= 30_000
    falling, still = Watched(), Watched()
    for n in range(12):
        falling.read(vitals(106.5 - 2.0 * n))
    still.hold(4, 90.0)
    still.hold(30, 84.5)
    assert falling.verdicts[-1].retry_after_ms < still.verdicts[-1].retry_after_ms
    assert Watched().read(vitals(40.0)).retry_after_ms == 0


def replay(heat: Heat, temps: Iterable[float]) -> list[str]:
    """Levels of a recorded curve."""
    return [heat.step(vitals(temp_c), 2.0 * n, busy=True).level for n, temp_c in enumerate(temps)]


def test_same_readings_same_verdicts() -> None:
    """Nothing but the readings and their times decides."""
    temps = [50 + 0.5 * n for n in range(80)]
    first, second = (replay(Heat(Margins()), temps) for _ in range(2))
    assert first == second
    assert first[-1] == "critical"
