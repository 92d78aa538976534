"""Who is next: priorities first, then fairness between clients by tokens, then order of arrival. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edged.core.question import Priority

RANK: Mapping[Priority, int] = {"interactive": 0, "normal": 1, "background": 2}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question in line. `number` grows with the order of arrival."""

    number: int
    client: str
    priority: Priority


def choose(waiting: Sequence[Waiting], served: Mapping[str, float]) -> Waiting | None:
    """The question that runs next, or None when nobody waits.

    Args:
        waiting: in any order.
        served: tokens that each client has had lately; a client that is not in it has had none.

    The class of the priority decides first; inside a class the client that was served least; its questions in
    their order of arrival.
    """
    return min(
        waiting, key=lambda one: (RANK[one.priority], served.get(one.client, 0.0), one.number), default=None
    )


class TokenLedger:
    """How many tokens each client was served, while others wanted some too.

    What a client had before another one came costs that one nothing, and who comes has saved up nothing: a
    newcomer begins where those stand whose turn it is just now (start-time fair queueing, Goyal, Vin and Cheng
    1996). Else who was alone for an hour would wait until whoever comes later has had as much, and a newcomer that
    asks without a pause would keep all others waiting as long. An engine without a question forgets all.

    Args:
        half_life_tokens: after this many tokens served to anybody, old counts weigh half.
    """

    def __init__(self, half_life_tokens: int = 20_000) -> None:
        self._half_life_tokens = half_life_tokens
        self._since_halving = 0
        self._level: dict[Priority, float] = {}
        self.served: dict[str, float] = {}

    def comes(self, client: str, priority: Priority, *, first: bool) -> None:
        """Count a client in that had no question of this class here; `first` where nobody had any."""
        if first:
            self._level, self.served = {}, {}
        else:
            self.served[client] = self.standing(client, priority)

    def standing(self, client: str, priority: Priority) -> float:
        """What a question that comes now is counted to have had; from any thread."""
        return max(self.served.get(client, 0.0), self._level.get(priority, 0.0))

    def begins(self, client: str, priority: Priority) -> None:
        """A question's turn has come, before its tokens are counted."""
        self._level[priority] = max(self._level.get(priority, 0.0), self.served.get(client, 0.0))

    def add(self, client: str, tokens: int) -> None:
        """Count tokens, prompt and answer alike, that were computed for `client`."""
        self.served[client] = self.served.get(client, 0.0) + tokens
        self._since_halving += tokens
        if self._since_halving >= self._half_life_tokens:
            self._since_halving = 0
            self._level = {priority: level / 2 for priority, level in self._level.items()}
            self.served = {name: count / 2 for name, count in self.served.items() if count >= 2}  # noqa: PLR2004 - under two tokens is forgotten
