"""How long the connection waits between two tries."""

from __future__ import annotations

import pytest

from edged.adapters.mqtt.tries import RETRY_MAX_S, longest_wait_s


@pytest.mark.parametrize(
    ("failures", "wait_s"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, RETRY_MAX_S), (1024, RETRY_MAX_S), (10**6, RETRY_MAX_S)],
)
def test_longest_wait(failures: int, wait_s: float) -> None:
    """It doubles up to its bound, and stays there for as long as the broker is away: an hour, a year."""
    assert longest_wait_s(failures) == wait_s
