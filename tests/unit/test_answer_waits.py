"""Waiting for an answer: what is said when none came, and when it is asked for once more."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from edged.client.answer import NO_SUBSCRIBER, Answer, AnswerTimeoutError, Asker, UnreachableError
from edged.client.waiting import LATE_S, LOOK_MIN, Waiting


class Silent:
    """A connection on which nothing comes."""

    def give_up(self, answer: Answer) -> bool:
        """Expect no more."""
        return answer.terminal is None

    def forget(self, answer: Answer) -> None:
        """The same."""

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


def test_what_ended_it_is_told_each_time() -> None:
    """A program that tries the same answer again waited all its time for what could not come."""
    answer = Answer(cast("Asker", Silent()), "j", "n1", lambda: None, 5.0)
    answer.ask()
    answer.acknowledged(NO_SUBSCRIBER, "No matching subscribers")

    async def read() -> None:
        async for _reply in answer:
            pass

    for _ in range(2):
        with pytest.raises(UnreachableError, match="nobody listens there"):
            answer.text()
        with pytest.raises(UnreachableError, match="nobody listens there"):
            asyncio.run(read())


def test_answers_that_nobody_reads_do_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that never come, as a `reply_to` leads elsewhere: a program of months kept all of them in memory."""
    waiting, now = Waiting(), time.monotonic()

    def ask(number: int, timeout_s: float | None) -> None:
        waiting.add(Answer(cast("Asker", Silent()), f"j{number}", "n1", lambda: None, timeout_s))

    ask(-1, None)
    for number in range(50 * LOOK_MIN):
        later = now + number
        monkeypatch.setattr(time, "monotonic", lambda later=later: later)
        ask(number, 10.0)
    assert len(waiting.all()) <= 4 * (LATE_S + LOOK_MIN)
    assert {"j-1", f"j{50 * LOOK_MIN - 1}"} <= {answer.id for answer in waiting.all()}
