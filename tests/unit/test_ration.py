"""A few lines about each device that is refused in a loop, some more about all, and a count of the rest."""

from __future__ import annotations

from edged.core.ration import EACH, TOGETHER, WINDOW_S, Ration, worth_a_line


def test_one_in_a_loop() -> None:
    """The first ones are written, then none until the window is over; that line says how many were not."""
    ration = Ration()
    said = [ration.takes("d1", at / 100) for at in range(1000)]
    assert said == [0] * EACH + [None] * (1000 - EACH)
    assert ration.takes("d2", 10.0) == 1000 - EACH
    assert ration.takes("d1", WINDOW_S - 0.1) is None
    assert ration.takes("d1", WINDOW_S) == 1


def test_a_new_name_for_each_message() -> None:
    """Names cost nothing where the broker has no accounts: neither lines nor memory grow with them."""
    ration = Ration()
    said = [ration.takes(f"d{number}", 0.0) for number in range(10 * TOGETHER)]
    assert said == [0] * TOGETHER + [None] * (9 * TOGETHER)
    assert len(ration.written) == TOGETHER
    assert ration.takes("d1", WINDOW_S) == 9 * TOGETHER
    assert len(ration.written) == 1


def test_what_nobody_mends() -> None:
    """It is told of one by one at first, then ever more seldom, and for ever, each so many times."""
    told = [times for times in range(1, 50) if worth_a_line(times, first=3, then_each=16)]
    assert told == [1, 2, 3, 4, 8, 16, 32, 48]
