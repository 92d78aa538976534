"""The questions inside the engine: about to be submitted, in line, in a slot; and whose turn it is.

Belongs to the model thread. `announce` and `before` are for any thread: the latter reads copies, and may
be a step old. Who goes first is decided in `core.fairness`; what a slot holds is `slots`' to know.
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from edged.core.fairness import RANK, TokenLedger, Waiting, choose
from edged.core.question import Priority
from edged.engine.sequence import Sequence


class Line:
    """Who is where.

    Attributes:
        running: questions in a slot, by number.
        waiting: questions that were submitted and have no slot yet, in order of arrival.
        ledger: what each client was served, by which turns are taken.
    """

    def __init__(self) -> None:
        self._announced: dict[int, Sequence] = {}
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}
        self.ledger = TokenLedger()

    def announce(self, sequence: Sequence) -> None:
        """Count a question that is about to be submitted."""
        self._announced[sequence.number] = sequence

    def submit(self, sequence: Sequence) -> None:
        """Put a measured question in line."""
        self._announced.pop(sequence.number, None)
        self._comes(sequence.order.client, sequence.order.priority)
        self.waiting[sequence.number] = sequence

    def join(self, sequence: Sequence, client: str, priority: Priority) -> None:
        """Give a question the turn of another client that waits for it too, where that one comes sooner."""
        order, ledger = sequence.order, self.ledger
        turn = RANK[order.priority], ledger.served.get(order.client, 0.0)
        if (RANK[priority], ledger.standing(client, priority)) < turn:
            self._comes(client, priority)
            sequence.order = msgspec.structs.replace(order, client=client, priority=priority)

    def _comes(self, client: str, priority: Priority) -> None:
        here = [*self.waiting.values(), *self.running.values()]
        if not any((one.order.client, one.order.priority) == (client, priority) for one in here):
            self.ledger.comes(client, priority, first=not here)

    def find(self, number: int) -> Sequence | None:
        """A question that was submitted and is not over."""
        return self.running.get(number) or self.waiting.get(number)

    def next(self, behind: Container[str]) -> Sequence | None:
        """Whose turn it is, of clients other than these; it stays in line."""
        line = [
            Waiting(one.number, one.order.client, one.order.priority)
            for one in self.waiting.values()
            if one.order.client not in behind
        ]
        chosen = choose(line, self.ledger.served)
        return None if chosen is None else self.waiting[chosen.number]

    def in_turn(self, *, eldest: bool) -> list[Sequence]:
        """What runs, in the order in which prompts are read: as turns are taken, of equals as they began.

        A slot alone is of no use to an alarm, or to a short question, behind a prompt that takes minutes: the
        client of that one was charged for all of it as it began.

        Args:
            eldest: of each class the prompt that began first comes first, or short ones would keep it for ever.
        """
        served, first = self.ledger.served, dict[Priority, Sequence]()
        for one in self.running.values():
            if eldest and not one.answering:
                first.setdefault(one.order.priority, one)

        def turn(one: Sequence) -> tuple[int, bool, float]:
            order = one.order
            return RANK[order.priority], first.get(order.priority) is not one, served.get(order.client, 0.0)

        return sorted(self.running.values(), key=turn)

    def eldest_unread(self) -> Sequence | None:
        """Of the prompts in slots that are not read, and of the highest class there, the one that began first."""
        unread = [one for one in self.running.values() if not one.answering]
        return min(unread, key=lambda one: RANK[one.order.priority], default=None)

    def before(self, sequence: Sequence) -> list[Sequence]:
        """The questions that run already, and those whose turn comes before this one's."""
        line = self._without_slot()
        return [*tuple(self.running.values()), *(one for one in line if self._goes_before(one, sequence))]

    def _without_slot(self) -> tuple[Sequence, ...]:
        return (*tuple(self.waiting.values()), *tuple(self._announced.values()))

    def _goes_before(self, other: Sequence, sequence: Sequence) -> bool:
        """Whether another one's turn comes before that of one which is to be submitted.

        That one may be an old one that comes for its next round: those of its client that came later go behind it.
        """
        rank, own = RANK[other.order.priority], RANK[sequence.order.priority]
        if rank != own:
            return rank < own
        ledger, client = self.ledger, other.order.client
        own_served = ledger.standing(sequence.order.client, sequence.order.priority)
        served = own_served if client == sequence.order.client else ledger.served.get(client, 0.0)
        return (served, other.number) < (own_served, sequence.number)
