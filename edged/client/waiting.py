"""Which answers are waited for, by the ids of their questions. No paho here.

Askers' threads put in and take out, the network thread looks up; one lock guards the changes.
"""

from __future__ import annotations

import threading

from edged.client.answer import Answer

LEFT_MAX = 256
"""Questions of pools, given up before a board took them, that are remembered."""
LOOK_MIN = 64
"""So many open answers at least, and twice as many as stayed last time, until it is looked whose time is over."""
LATE_S = 60.0
"""So long after its time an answer may still come to who reads it later."""


class Waiting:
    """The open answers of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[Answer, ...]] = {}  # of one id several, where it was asked twice
        self._left: dict[str, None] = {}
        self._look_at = LOOK_MIN

    def add(self, answer: Answer) -> list[Answer]:
        """Wait for it; no more for those that are returned: their time is over, nobody reads them."""
        with self._lock:
            late = self._late() if len(self._answers) >= self._look_at else []
            self._answers[answer.id] = (*self._answers.get(answer.id, ()), answer)
            self._left.pop(answer.id, None)
        return late

    def of(self, job_id: str) -> tuple[Answer, ...]:
        """Those that wait for this question."""
        return self._answers.get(job_id, ())

    def all(self) -> list[Answer]:
        """Every one."""
        with self._lock:
            return [answer for answers in self._answers.values() for answer in answers]

    def remove(self, answer: Answer) -> bool:
        """Wait for it no more; False if nobody did."""
        with self._lock:
            return self._taken_out(answer)

    def give_up(self, answer: Answer) -> tuple[bool, bool]:
        """Wait for it no more: whether somebody did, and whether nobody else waits for the same question.

        One to a pool that no board has accepted yet is remembered, see `left`.
        """
        with self._lock:
            waited = self._taken_out(answer)
            alone = answer.id not in self._answers
            if waited and alone and answer.node is None:
                self._left[answer.id] = None
                for oldest in list(self._left)[:-LEFT_MAX]:
                    del self._left[oldest]
        return waited, alone

    def left(self, job_id: str) -> bool:
        """Whether the question was given up before it was known who has it; told once."""
        with self._lock:
            return self._left.pop(job_id, False) is None

    def _late(self) -> list[Answer]:
        late = [one for answers in self._answers.values() for one in answers if one.over(LATE_S)]
        for one in late:
            self._taken_out(one)
        self._look_at = max(LOOK_MIN, 2 * len(self._answers))
        return late

    def _taken_out(self, answer: Answer) -> bool:
        before = self._answers.pop(answer.id, ())
        if others := tuple(one for one in before if one is not answer):
            self._answers[answer.id] = others
        return len(others) < len(before)
