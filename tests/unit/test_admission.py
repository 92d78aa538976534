"""Who comes in: a table of loads and what each is answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.admission import MODEL_RETRY_MS, RETRY_MIN_MS, Bound, Load, Shed, refuse, retry_after_ms
from edged.core.fairness import RANK
from edged.core.question import Priority

BOUND = Bound(jobs=10, size_bytes=1000, client_jobs=4)


def load(**changes: Any) -> Load:
    """An idle node, but for what is changed."""
    idle: dict[str, Any] = {
        "jobs": 0,
        "size_bytes": 0,
        "client_jobs": 0,
        "service_s": 10.0,
        "slots": 2,
        "engine": "ready",
    }
    return Load(**(idle | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"engine": "starting"},
        {"jobs": 9},
        {"client_jobs": 3, "jobs": 3},
        {"size_bytes": 900},
        {"service_s": 0.0},
    ],
)
def test_comes_in(changes: dict[str, Any]) -> None:
    """Below every bound a question comes in, also while the model is being loaded."""
    assert refuse(load(**changes), BOUND, 100) is None


@pytest.mark.parametrize(
    ("changes", "code", "words", "retry"),
    [
        ({"draining": True}, "draining", "another", True),
        ({"engine": "failed", "reason": "x.gguf: gone"}, "loading", "x.gguf: gone", True),
        ({"engine": "broken", "reason": "signal 11"}, "internal", "signal 11", True),
        ({"client_jobs": 4, "jobs": 4}, "busy", "4 of your questions", True),
        ({"jobs": 10}, "busy", "full with 10", True),
        ({"jobs": 3, "size_bytes": 901}, "busy", "901 bytes", True),
        ({"draining": True, "engine": "failed", "jobs": 10}, "draining", "", True),
        ({"engine": "failed", "jobs": 10}, "loading", "", True),
        ({"client_jobs": 4, "jobs": 10}, "busy", "of your questions", True),
    ],
)
def test_turned_away(changes: dict[str, Any], code: str, words: str, retry: bool) -> None:  # noqa: FBT001 - a table
    """Each bound has its code and sentence; what waiting helps against says how long."""
    refusal = refuse(load(**changes), BOUND, 100)
    assert refusal is not None
    assert refusal.code == code
    assert words in refusal.message
    assert (refusal.retry_after_ms is not None) is retry


def test_own_share_is_told_with_its_limit() -> None:
    """A client that has its share learns both numbers."""
    refusal = refuse(load(client_jobs=4, jobs=4), BOUND, 1)
    assert refusal is not None
    assert refusal.details == {"waiting": 4, "limit": 4}


def test_a_queue_full_of_bytes_is_told_in_bytes() -> None:
    """Three long questions fill it as well as many short ones, and who asks learns which bound it was."""
    refusal = refuse(load(jobs=3, size_bytes=901), BOUND, 100)
    assert refusal is not None
    assert "for 100 more" in refusal.message
    assert refusal.details == {"bytes": 1001, "limit": 1000}


def test_model_failures_are_asked_again_late() -> None:
    """A model file that a person must mend is asked for again after a while."""
    refusal = refuse(load(engine="failed"), BOUND, 1)
    assert refusal is not None
    assert refusal.retry_after_ms == MODEL_RETRY_MS


@pytest.mark.parametrize(
    ("service_s", "slots", "of", "expected"),
    [(10.0, 2, 0, 5000), (10.0, 2, 10, 10_000), (10.0, 0, 0, 10_000), (0.0, 1, 10, RETRY_MIN_MS)],
)
def test_retry(service_s: float, slots: int, of: int, expected: int) -> None:
    """The hint is a slot's turn and a tenth of the line on top, never nothing."""
    assert retry_after_ms(load(service_s=service_s, slots=slots), of=of) == expected


@given(st.integers(0, 20), st.integers(0, 2000), st.integers(0, 8), st.integers(0, 2000))
def test_bounds_hold(jobs: int, size: int, own: int, question: int) -> None:
    """Nothing that comes in puts the node above a bound, and a longer line never shortens the hint."""
    refusal = refuse(load(jobs=jobs, size_bytes=size, client_jobs=own), BOUND, question)
    if refusal is None:
        assert jobs < BOUND.jobs
        assert own < BOUND.client_jobs
        assert size + question <= BOUND.size_bytes
    assert retry_after_ms(load(), of=jobs) <= retry_after_ms(load(), of=jobs + 1)


@pytest.mark.parametrize("priority", RANK)
def test_heat_keeps_out_by_priority(priority: Priority) -> None:
    """A hot board takes what it still admits and refuses the rest with a time, and says what would come in."""
    hot = load(shed=Shed("hot", ("interactive",), 42_000, "zone is at 84.0 C"))
    refusal = refuse(hot, BOUND, 100, priority)
    if priority == "interactive":
        assert refusal is None
        return
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_ms) == ("hot", 42_000)
    assert "interactive" in refusal.message
    assert refusal.details == {"level": "hot", "admits": ["interactive"], "reason": "zone is at 84.0 C"}


@pytest.mark.parametrize("priority", RANK)
def test_a_critical_board_takes_nothing(priority: Priority) -> None:
    """Then no priority helps, and none is offered."""
    refusal = refuse(load(shed=Shed("critical", (), 5000)), BOUND, 100, priority)
    assert refusal is not None
    assert refusal.code == "hot"
    assert "mark it" not in refusal.message
