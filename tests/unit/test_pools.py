"""Membership: in the pools exactly while no reason stands, whatever the broker's answers are late for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edged.core.link import Subscribed, Unsubscribed
from edged.core.topics import Topics
from edged.node.pools import FULL, LOADING, Membership

TOPICS = Topics("edged", "n1")
HALL, LAB = TOPICS.pool("hall"), TOPICS.pool("lab")


class Broker:
    """Remembers who is subscribed; answers when it is told to, and only to the latest wish for a filter."""

    def __init__(self) -> None:
        self.wishes: list[tuple[str, bool]] = []
        self.subscribed: set[str] = set()
        self.told: list[tuple[str, list[str]]] = []

    def subscribe(self, topic: str) -> None:
        """A wish."""
        self.wishes.append((topic, True))

    def unsubscribe(self, topic: str) -> None:
        """A wish."""
        self.wishes.append((topic, False))

    def tell(self, event: str, *, pools: list[str], **_fields: Any) -> None:
        """An event."""
        self.told.append((event, pools))

    @property
    def events(self) -> list[str]:
        """The names of the events."""
        return [event for event, _ in self.told]

    def answer(self, membership: Membership) -> None:
        """Carry out all wishes, and answer those that were not changed again."""
        wishes, self.wishes = self.wishes, []
        last = dict(wishes)
        for topic, wanted in wishes:
            (self.subscribed.add if wanted else self.subscribed.discard)(topic)
        for topic, wanted in last.items():
            if wanted:
                membership.subscribed(Subscribed(topic))
            else:
                membership.unsubscribed(Unsubscribed(topic))


def make(*pools: str) -> tuple[Broker, Membership]:
    """A membership at its start, with the engine still loading."""
    broker = Broker()
    return broker, Membership(TOPICS, broker, pools, broker.tell)


def test_starts_outside_and_gives_up_what_the_broker_remembers() -> None:
    """Until the engine is ready the node is out, also of what an earlier life had subscribed."""
    broker, membership = make("hall")
    assert broker.wishes == [(HALL, False)]
    assert not membership.out
    broker.answer(membership)
    assert membership.out
    membership.rejoin(LOADING)
    broker.answer(membership)
    assert membership.as_json() == {"in": ["hall"], "out": []}
    assert broker.events == ["pools_joined"]


def test_several_reasons() -> None:
    """It comes back when the last reason is gone; a reason is asked of the broker once."""
    broker, membership = make("hall", "lab")
    membership.rejoin(LOADING)
    broker.answer(membership)
    membership.leave("hot")
    membership.leave("hot")
    membership.leave("draining")
    assert broker.wishes == [(HALL, False), (LAB, False)]
    assert not membership.out  # not before the broker has said so
    broker.answer(membership)
    assert membership.out
    assert membership.as_json() == {"in": [], "out": ["hall", "lab"], "reasons": ["hot", "draining"]}
    membership.rejoin("hot")
    membership.rejoin("never stood")
    assert broker.wishes == []
    membership.rejoin("draining")
    broker.answer(membership)
    assert membership.reasons == ()
    assert broker.events == ["pools_joined", "pools_left", "pools_joined"]


def test_pools_taken_up_and_given_up_by_the_settings_are_told() -> None:
    """Each pool that is left or joined is an event, and none that the node was not in."""
    broker, membership = make("hall")
    membership.rejoin(LOADING)
    broker.answer(membership)
    membership.set_pools(["hall", "lab"])
    broker.answer(membership)
    membership.set_pools(["lab"])
    broker.answer(membership)
    assert broker.told == [("pools_joined", ["hall"]), ("pools_joined", ["lab"]), ("pools_left", ["hall"])]
    broker.told.clear()
    membership.set_pools([])
    broker.answer(membership)
    membership.leave("draining")
    membership.set_pools(["yard"])
    broker.answer(membership)
    assert broker.told == [("pools_left", ["lab"])]
    membership.rejoin("draining")
    broker.answer(membership)
    assert broker.told[1:] == [("pools_joined", ["yard"])]


def test_full_has_hysteresis() -> None:
    """It leaves at seven eighths and comes back at half."""
    broker, membership = make("hall")
    membership.rejoin(LOADING)
    for filling, reasons in [(0.87, ()), (0.875, (FULL,)), (0.6, (FULL,)), (0.5, ()), (0.8, ())]:
        membership.look(filling)
        assert membership.reasons == reasons
    broker.answer(membership)
    assert broker.subscribed == {HALL}


def test_a_refused_pool_is_told_and_counts_as_out() -> None:
    """A broker that does not let us share says so; there is nothing to leave then."""
    _broker, membership = make("hall")
    membership.rejoin(LOADING)
    assert membership.subscribed(Subscribed(HALL, refused="Not authorized"))
    assert not membership.subscribed(Subscribed(HALL, refused="Not authorized"))
    assert membership.as_json() == {"in": [], "out": ["hall"]}


def test_a_node_without_pools_is_out_as_soon_as_a_reason_stands() -> None:
    """There is nobody to ask."""
    _, membership = make()
    assert membership.out
    membership.rejoin(LOADING)
    assert not membership.out


def test_a_lost_connection_makes_it_uncertain() -> None:
    """Out is out again only when the next connection has said so."""
    broker, membership = make("hall")
    broker.answer(membership)
    membership.disconnected()
    assert not membership.out
    assert membership.unsubscribed(Unsubscribed(HALL))
    assert membership.out


def test_foreign_pool_is_given_up_once() -> None:
    """A pool that the settings do not name is left at its first question."""
    broker, membership = make("hall")
    broker.wishes.clear()
    membership.dealt("hall")
    membership.dealt("old")
    membership.dealt("old")
    assert broker.wishes == [(TOPICS.pool("old"), False)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["leave", "rejoin"]), st.sampled_from(["hot", "full", "draining"]))
    | st.tuples(st.just("pools"), st.sets(st.sampled_from(["a", "b", "c"]), max_size=3))
    | st.tuples(st.sampled_from(["answer", "disconnect"]), st.none()),
    max_size=30,
)


@given(STEPS)
def test_the_broker_ends_where_we_want_to_be(steps: list[tuple[str, Any]]) -> None:
    """Whatever happens, once the broker has answered all: in every pool without a reason, in none with one."""
    broker, membership = make("a")
    membership.rejoin(LOADING)
    reasons: set[str] = set()
    pools = {"a"}
    for step, value in steps:
        match step:
            case "leave":
                membership.leave(value)
                reasons.add(value)
            case "rejoin":
                membership.rejoin(value)
                reasons.discard(value)
            case "pools":
                membership.set_pools(sorted(value))
                pools = set(value)
            case "answer":
                broker.answer(membership)
                if not reasons:
                    assert broker.subscribed == {TOPICS.pool(pool) for pool in pools}
            case "disconnect":
                membership.disconnected()
        if membership.out:
            assert not broker.subscribed & {TOPICS.pool(pool) for pool in pools}
    broker.answer(membership)
    assert broker.subscribed == (set() if reasons else {TOPICS.pool(pool) for pool in pools})
    assert set(membership.reasons) == reasons
