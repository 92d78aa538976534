"""Who is next: priority, then the client that had least, then who came first."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.fairness import RANK, TokenLedger, Waiting, choose
from edged.core.question import Priority

PRIORITIES: st.SearchStrategy[Priority] = st.sampled_from(["interactive", "normal", "background"])
LINE = st.lists(st.tuples(st.sampled_from("abcd"), PRIORITIES), min_size=1, max_size=12).map(
    lambda line: [Waiting(number, client, priority) for number, (client, priority) in enumerate(line)]
)
SERVED = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1e6))


def test_nobody() -> None:
    """Nobody waits, nobody is next."""
    assert choose([], {}) is None


@pytest.mark.parametrize(
    ("line", "served", "number"),
    [
        ([Waiting(1, "a", "normal"), Waiting(2, "b", "interactive")], {"b": 1e6}, 2),
        ([Waiting(1, "a", "background"), Waiting(2, "b", "normal")], {}, 2),
        ([Waiting(1, "a", "normal"), Waiting(2, "b", "normal")], {"a": 5.0}, 2),
        ([Waiting(1, "a", "normal"), Waiting(2, "b", "normal")], {"a": 5.0, "b": 5.0}, 1),
        ([Waiting(7, "a", "normal"), Waiting(2, "a", "normal")], {"a": 5.0}, 2),
    ],
)
def test_order(line: list[Waiting], served: dict[str, float], number: int) -> None:
    """Priority decides first, then who was served least, then who came first."""
    chosen = choose(line, served)
    assert chosen is not None
    assert chosen.number == number


@given(LINE, SERVED)
def test_rules(line: list[Waiting], served: Mapping[str, float]) -> None:
    """Nobody of a higher class waits, and nobody of the same class and client came earlier."""
    chosen = choose(line, served)
    assert chosen is not None
    for other in line:
        assert RANK[chosen.priority] <= RANK[other.priority]
        if other.priority == chosen.priority:
            assert served.get(chosen.client, 0) <= served.get(other.client, 0)
            if other.client == chosen.client:
                assert chosen.number <= other.number


@given(LINE, SERVED)
def test_order_of_the_line_is_nothing(line: list[Waiting], served: Mapping[str, float]) -> None:
    """How the waiting are listed does not matter."""
    assert choose(line, served) == choose(line[::-1], served)


def test_fair_by_tokens() -> None:
    """A client with long answers gets fewer of them: shares are even in tokens, not in questions."""
    ledger, length = TokenLedger(half_life_tokens=10**9), {"long": 300, "short": 100}
    turns = {"long": 0, "short": 0}
    for number in range(0, 400, 2):
        line = [Waiting(number, "long", "normal"), Waiting(number + 1, "short", "normal")]
        chosen = choose(line, ledger.served)
        assert chosen is not None
        turns[chosen.client] += 1
        ledger.add(chosen.client, length[chosen.client])
    assert abs(ledger.served["long"] - ledger.served["short"]) <= 300
    assert turns["short"] == pytest.approx(3 * turns["long"], abs=3)


def test_a_flood_does_not_hold_up_others() -> None:
    """One client's hundred questions do not stand before another one's single question for long."""
    ledger = TokenLedger()
    line = [Waiting(number, "flood", "normal") for number in range(100)] + [Waiting(100, "calm", "normal")]
    for turn in range(3):
        chosen = choose(line, ledger.served)
        assert chosen is not None
        if chosen.client == "calm":
            assert turn == 1
            return
        line.remove(chosen)
        ledger.add(chosen.client, 50)
    pytest.fail("the single question was not served")


def test_what_was_had_while_nobody_waited_is_no_debt() -> None:
    """A node's only client all day stood behind 190 questions of whoever came in the evening."""
    ledger = TokenLedger()
    ledger.comes("calm", "normal", first=True)
    for _ in range(500):
        ledger.begins("calm", "normal")
        ledger.add("calm", 100)
    ledger.comes("flood", "normal", first=False)
    ledger.begins("flood", "normal")
    ledger.add("flood", 150)
    line = [Waiting(number, "flood", "normal") for number in range(9)] + [Waiting(9, "calm", "normal")]
    chosen = choose(line, ledger.served)
    assert chosen is not None
    assert chosen.client == "calm"


def test_who_comes_back_while_others_wait_has_had_what_it_had() -> None:
    """Asking one question at a time is no way past the others; an engine without a question forgets all."""
    ledger = TokenLedger()
    ledger.comes("quick", "normal", first=True)
    ledger.begins("quick", "normal")
    ledger.comes("calm", "normal", first=False)
    ledger.add("quick", 3000)
    ledger.comes("quick", "normal", first=False)
    assert ledger.served == {"quick": 3000, "calm": 0}
    ledger.comes("quick", "normal", first=True)
    ledger.comes("calm", "normal", first=False)
    assert ledger.served.get("quick", 0) == ledger.served["calm"] == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3000), st.booleans()), max_size=60))
def test_who_comes_waits_for_one_question_of_each_other(history: list[tuple[str, int, bool]]) -> None:
    """At most, whatever was before, and however fast the others ask; and does the same for them."""
    ledger, here = TokenLedger(half_life_tokens=5000), set[str]()
    for client, tokens, stays in history:
        if client not in here:
            ledger.comes(client, "normal", first=not here)
        here.add(client)
        served = min(here, key=lambda one: (ledger.served.get(one, 0.0), one))
        ledger.begins(served, "normal")
        ledger.add(served, tokens)
        if not stays:
            here.remove(served)
    ledger.comes("new", "normal", first=not here)
    line = [Waiting(number, client, "normal") for number, client in enumerate([*sorted(here), "new"])]
    turns = list[str]()
    while len(turns) < 8:
        chosen = choose(line, ledger.served)
        assert chosen is not None
        turns.append(chosen.client)
        ledger.begins(chosen.client, "normal")
        ledger.add(chosen.client, 3000)
    before = turns[: turns.index("new")]
    assert len(set(before)) == len(before)
    assert turns.count("new") <= 5 or not here


def test_old_use_is_forgotten() -> None:
    """After its half life a count weighs half, and small ones are dropped, so names do not pile up."""
    ledger = TokenLedger(half_life_tokens=100)
    ledger.add("a", 60)
    ledger.add("b", 1)
    ledger.begins("a", "normal")
    ledger.add("a", 39)
    assert ledger.served == {"a": 49.5}
    assert ledger.standing("new", "normal") == 30
    ledger.add("a", 99)
    assert ledger.served == {"a": 148.5}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 500)), max_size=300))
def test_names_do_not_pile_up(uses: list[tuple[int, int]]) -> None:
    """However many clients come and go, those that are remembered are bounded by the half life."""
    ledger = TokenLedger(half_life_tokens=100)
    for client, tokens in uses:
        ledger.add(str(client), tokens)
        assert all(count > 0 for count in ledger.served.values())
        assert sum(ledger.served.values()) <= 2 * (100 + 500)
