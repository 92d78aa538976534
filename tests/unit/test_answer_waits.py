"""Waiting for an answer: what is said when none came."""

from __future__ import annotations

import time
from typing import cast

import pytest

from edged.client.answer import Answer, AnswerTimeoutError, Asker


class Silent:
    """A connection on which nothing comes."""

    def give_up(self, answer: Answer) -> bool:
        """Expect no more."""
        return answer.terminal is None

    def connected(self) -> bool:
        """It stands."""
        return True

    def crowded(self) -> bool:
        """Alone."""
        return False


@pytest.mark.parametrize(
    ("timeout_s", "words"), [(0.2, "0.2 s"), (900.0, "900 s"), (3600, "3600 s"), (86_400.0, "86400 s")]
)
def test_how_long_is_said_in_seconds(timeout_s: float, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of an hour or a day, which were told as 3.6e+03 and 8.64e+04."""
    answer = Answer(cast("Asker", Silent()), "j", "n1", lambda: None, timeout_s)
    later = time.monotonic() + 100_000.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with pytest.raises(AnswerTimeoutError, match=rf"^no answer within {words}; ask again with more time$"):
        answer.text()
