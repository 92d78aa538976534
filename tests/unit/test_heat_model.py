"""The real policy on simulated boards: what it must hold in an hour of steady load, whatever the air does."""

from __future__ import annotations

import pytest
from heat_model import COOLINGS, PI_5, ROCK_5B, Board, Edged, NoPolicy, Simulation, Thresholds

from edged.core.heat.margins import Margins

COOL_AND_HOT = [(ROCK_5B, 20.0), (ROCK_5B, 40.0), (PI_5, 20.0), (PI_5, 40.0)]


@pytest.mark.parametrize(("board", "ambient_c"), COOL_AND_HOT, ids=lambda one: getattr(one, "name", str(one)))
def test_steady_load(board: Board, ambient_c: float) -> None:
    """Never at the trip, few changes of level, and more done than by thresholds that stop and go."""
    cooling = COOLINGS[board.name, "no fan"]
    ours = Simulation(board, cooling, Edged(board, 1), ambient_c, 1).run(1.0)
    theirs = Simulation(board, cooling, Thresholds(board.trip_c), ambient_c, 1).run(1.0)
    assert ours.above_trip_s == 0.0
    assert ours.peak_c < board.trip_c
    assert ours.changes_per_hour <= 4
    assert ours.tokens_per_hour >= 1.15 * theirs.tokens_per_hour
    assert ours.tokens_per_hour > 0


@pytest.mark.parametrize("streams", [1, 4])
def test_its_margin_is_all_it_costs(streams: int) -> None:
    """Against a kernel that holds the same temperature nothing is lost: clocks go before threads and time."""
    cooling = COOLINGS[ROCK_5B.name, "no fan"]
    ours = Simulation(ROCK_5B, cooling, Edged(ROCK_5B, streams), 40.0, streams).run(1.0)
    held_c = ROCK_5B.trip_c - Margins().target_c
    theirs = Simulation(ROCK_5B, cooling, NoPolicy(), 40.0, streams, held_c=held_c).run(1.0)
    assert theirs.highest_c == pytest.approx(held_c, abs=0.3)
    assert ours.tokens_per_hour >= 0.97 * theirs.tokens_per_hour


def test_a_cooled_board_is_left_alone() -> None:
    """Where the fan suffices the policy costs nothing."""
    cooling = COOLINGS[ROCK_5B.name, "fan"]
    ours = Simulation(ROCK_5B, cooling, Edged(ROCK_5B, 4), 35.0, 4).run(0.5)
    free = Simulation(ROCK_5B, cooling, NoPolicy(), 35.0, 4).run(0.5)
    assert ours.tokens_per_hour == pytest.approx(free.tokens_per_hour, rel=0.02)


def test_the_model_throttles_as_boards_do() -> None:
    """Without a policy the boards stand at their trips: else nothing here would be shown."""
    for board in (ROCK_5B, PI_5):
        free = Simulation(board, COOLINGS[board.name, "no fan"], NoPolicy(), 40.0, 1).run(0.5)
        assert free.highest_c >= board.trip_c
        assert min(free.clocks_ghz) < max(board.volts)


def test_the_air_grows_hot() -> None:
    """The sun comes out: 20 to 45 C within a quarter of an hour; the trip is not met."""
    cooling = COOLINGS[ROCK_5B.name, "no fan"]
    board = Simulation(ROCK_5B, cooling, Edged(ROCK_5B, 1), lambda t: 20.0 + 25.0 * min(1.0, t / 900.0), 1)
    assert board.run(1.0).peak_c < ROCK_5B.trip_c
