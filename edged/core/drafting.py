"""Speculation: what an answer may go on with, looked up in the text before it, and whether trying it pays. Pure.

A pass of four rows costs little more than one of a single row, see `edged.core.padding`: so the next tokens are
guessed and computed beside the one that is due, and those that the model then chooses are won. Text that is copied,
JSON with the same keys again and again, a calculation's numbers come two to four tokens a pass. What a pass with a
draft costs, and how many of its tokens come true, is learned while it runs; where it does not pay, none is made.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from edged.core.padding import GROUP

DRAFT_MAX = GROUP - 1
"""Tokens that fill a lone answer's pass up to a group."""
ENDINGS = (4, 3, 2)
"""Lengths of the endings that are looked up, longest first; llama.cpp's lookup example tries 4 to 1."""
TRIALS = 5
"""Passes with a draft and without, in turn, before their costs are compared; the last nine of each count."""
KEPT = 9
LUCK_WEIGHT, SHARED_WEIGHT = 0.2, 0.05
"""Share of the newest draft in what is expected of an answer's next, and of the next answer's first."""
HOPE, HOPE_WEIGHT = 1.0, 0.01
"""Tokens expected to come true of the very first drafts; and how fast that comes back where none is tried."""
GAIN_MIN = 0.03
"""Share of its time that a draft must be expected to save."""
ASK_AGAIN = 32
"""After so many passes one way, one goes the other way: a cost or an answer may have changed."""


def drafted_of(answers: int, most: int = DRAFT_MAX) -> int:
    """Tokens to draft for each of `answers` that run together, so that their rows fill a group; 0 from three on."""
    return max(0, min(most, GROUP // answers - 1))


class Lookup:
    """Finds what followed the latest earlier occurrence of a text's ending."""

    def __init__(self) -> None:
        # From an ending's hash to where it ended: hashes take less room, and one that collides drafts nonsense.
        self._follows: dict[int, int] = {}
        self._known = 0

    def follow(self, tokens: Sequence[int], count: int) -> tuple[int, list[int]]:
        """What may come next.

        Args:
            tokens: the text, which only grows from call to call.
            count: tokens wanted, at least 1.

        Returns:
            Length of the ending that was found, and `count` tokens; 0 and none where there is none.
        """
        for at in range(self._known, len(tokens)):
            for size in ENDINGS:
                if at >= size:
                    self._follows[hash(tuple(tokens[at - size : at]))] = at
        self._known = len(tokens)
        for size in ENDINGS:
            start = self._follows.get(hash(tuple(tokens[-size:])))
            if start is not None and len(tokens) > size:
                text = list(tokens[start : start + count])
                while len(text) < count:  # it runs into the text's end: what repeats goes on repeating
                    text.append(text[len(text) - (len(tokens) - start)])
                return size, text
        return 0, []


Kind = tuple[int, int]
"""Length of the ending that was found, and of the draft."""


@dataclass(slots=True)
class Luck:
    """How many tokens of a draft come true, by its kind.

    Attributes:
        shared: that of all answers, which a new one begins with.
    """

    shared: Luck | None = None
    known: dict[Kind, float] = field(default_factory=dict)

    def expected(self, kind: Kind) -> float:
        """Tokens that a draft of this kind wins."""
        found = self.known.get(kind)
        if found is not None:
            return found
        return min(HOPE, kind[1]) if self.shared is None else self.shared.expected(kind)

    def came_true(self, kind: Kind, tokens: int) -> None:
        """Count a draft."""
        self._learn(kind, tokens, SHARED_WEIGHT if self.shared is None else LUCK_WEIGHT)
        if self.shared is not None:
            self.shared.came_true(kind, tokens)

    def passed_over(self, kind: Kind) -> None:
        """Count one that was not tried: the hope comes back, little by little, or it never would be again."""
        self._learn(kind, min(HOPE, kind[1]), HOPE_WEIGHT)
        if self.shared is not None:
            self.shared.passed_over(kind)

    def _learn(self, kind: Kind, tokens: float, weight: float) -> None:
        before = self.expected(kind)
        self.known[kind] = before + weight * (tokens - before)


@dataclass(slots=True)
class Guesses:
    """What one answer's drafts are made of, and what came of them."""

    luck: Luck
    lookup: Lookup = field(default_factory=Lookup)


@dataclass(slots=True)
class _Cost:
    plain_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    drafted_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    one_way: int = 0
    drafted: bool = False


class Drafting:
    """Decides pass by pass whether to draft, and learns what it costs."""

    def __init__(self) -> None:
        self._luck = Luck()
        self._costs: dict[tuple[int, int], _Cost] = {}

    def new_luck(self) -> Luck:
        """For an answer that begins."""
        return Luck(self._luck)

    def pays(self, won: Sequence[float], threads: int) -> bool:
        """Whether the next pass shall have drafts.

        Args:
            won: for each answer in the pass, tokens that its draft is expected to win.
            threads: that compute it.
        """
        cost = self._costs.setdefault((len(won), threads), _Cost())
        if len(cost.plain_s) < TRIALS or len(cost.drafted_s) < TRIALS:
            return len(cost.drafted_s) < len(cost.plain_s)
        better = 1 + sum(won) / len(won) > (1 + GAIN_MIN) * self.cost(len(won), threads)
        return better != (cost.one_way >= ASK_AGAIN and cost.drafted == better)

    def cost(self, answers: int, threads: int) -> float:
        """What a pass with drafts takes, in passes without: at least 1.0, which it is before both were seen."""
        cost = self._costs.get((answers, threads))
        if cost is None or not cost.plain_s or not cost.drafted_s:
            return 1.0
        # A speed that has just changed shows in one kind of pass first: more rows are never faster for that.
        return max(1.0, statistics.median(cost.drafted_s) / max(1e-9, statistics.median(cost.plain_s)))

    def passed(self, answers: int, threads: int, *, drafted: bool, seconds: float) -> None:
        """Count a pass of as many answers, each with a draft or none with one."""
        cost = self._costs.setdefault((answers, threads), _Cost())
        (cost.drafted_s if drafted else cost.plain_s).append(seconds)
        cost.one_way = cost.one_way + 1 if drafted == cost.drafted else 1
        cost.drafted = drafted
