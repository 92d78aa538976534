"""What a question is told of its time: as tables. How the scheduler fills them in is in test_scheduler."""

from __future__ import annotations

import pytest

from edged.core.outlook import Capacity, Left
from edged.core.rates import Rates

RATES = Rates()
RATES.expect(0.1, 0.01)  # answers of 128 tokens on average, as nothing was answered yet


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        (Left(100, 1000), 1.0 + 12.8),
        (Left(100, 10), 1.0 + 1.0),
        (Left(0, 1000, written=100), 2.8),
        (Left(0, 10, written=100), 1.0),  # its room is what it may still write
        (Left(0, 1000, written=500), 0.1),  # longer than most: over soon
        (Left(-1, 1), 0.1),
    ],
)
def test_work(left: Left, seconds: float) -> None:
    """Reading, and an average answer, or as much of one as there is room for."""
    assert left.read_s(RATES) + left.write_s(RATES) == pytest.approx(seconds)


def test_eta() -> None:
    """Those ahead run side by side, the question itself at the end; rests make all of it longer."""
    ahead = [Left(0, 10)] * 4
    assert Capacity(RATES, 2, 1.0).eta_s(ahead, Left(100, 10)) == pytest.approx(4.0 / 2 + 2.0)
    assert Capacity(RATES, 2, 0.5).eta_s(ahead, Left(100, 10)) == pytest.approx(8.0)


def test_prompts_are_read_one_after_the_other() -> None:
    """However many slots there are: of four slots with prompts to read, a fourth of the time was told."""
    ahead = [Left(300, 10)] * 4
    assert Capacity(RATES, 4, 1.0).eta_s(ahead, Left(300, 10)) == pytest.approx(5 * 3.0 + 1.0 + 1.0)


@pytest.mark.parametrize(
    ("ahead", "read", "left_s", "code"),
    [
        (0, 100, 10.0, None),
        (0, 100, 0.6, None),  # by half: rates may be off
        (0, 100, 0.5, "expired"),
        (4, 100, 2.0, None),
        (4, 100, 1.5, "busy"),
        (4, 100, 0.5, "expired"),  # waiting would not help
    ],
)
def test_refusal(ahead: int, read: int, left_s: float, code: str | None) -> None:
    """Refused is what would miss its first token by more than twice its time: for its prompt, or for the line."""
    refusal = Capacity(RATES, 2, 1.0).refusal([Left(0, 10)] * ahead, Left(read, 10), read, left_s)
    assert (refusal and refusal.code) == code
    half = Capacity(RATES, 2, 0.5).refusal([Left(0, 10)] * ahead, Left(read, 10), read, 2 * left_s)
    assert (half and half.code) == code  # a board that rests for half of the time needs twice of it
    if refusal is not None:
        assert refusal.retry_after_ms == (2000 if code == "busy" else None)
        assert refusal.details == {"deadline_ms": round(1000 * left_s)}
