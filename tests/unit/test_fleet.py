"""What nodes say of themselves as a person sees it: views, order, table, keys."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edged.cli.ask import note
from edged.cli.events import line
from edged.cli.fleet_table import NARROW, ORDERS, UNCUT, FleetTable, closer, ordered, paper, temperature
from edged.cli.top import Watching
from edged.client.fleet import Happened, NodeView, happened, views
from edged.core.news import Board, Health, Trip, Zone

INFO = {
    "node": "a",
    "version": "1.2",
    "contract": 1,
    "board": "Rock 5B",
    "engine": "ready",
    "pools": ["hall"],
}
MODEL = {"name": "R1", "architecture": "qwen2", "quantisation": "Q4_0"}


def said(name: str, **what: object) -> dict[str, bytes]:
    """Retained messages of one node."""
    return {
        f"edged/v1/node/{name}/{key}": value if isinstance(value, bytes) else json.dumps(value).encode()
        for key, value in what.items()
    }


def view(name: str, level: str = "cool", room_c: float | None = None, queue: int = 0) -> NodeView:
    """A node that is online."""
    return NodeView(
        name,
        "online",
        None,
        Health(level=level, queue=queue, board=Board(headroom_c=room_c)),  # type: ignore[arg-type] # a level
    )


def text(thing: object, width: int = 120) -> str:
    """As it stands on a terminal without colours, a wide one unless told otherwise."""
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(thing)
        return console.export_text()


def test_the_words_of_a_node_are_no_markup() -> None:
    """Brackets in them are shown; one that closed nothing ended `edged top` with a traceback."""
    odd = "odd [/rev2] [draft]"
    health = {"level": "cool", "reason": odd, "board": {"zones": {odd: {"temp_c": 40.0}}}}
    info = {**INFO, "board": odd, "model": {**MODEL, "name": odd}}
    [one] = views("edged", said("a", status=b"online", info=info, health=health), {}, 0.0)
    assert text(closer(one)).count(odd) == 4
    assert odd in text(FleetTable([one]))


def test_views_gather_what_each_node_said() -> None:
    """Status, info and health of one node make one view; other topics and other prefixes none."""
    latest = {
        **said("a", status=b"online", info={**INFO, "model": MODEL}, health={"level": "warm", "queue": 2}),
        **said("b", status=b"offline"),
        **said("b", event={"event": "x"}),
        "other/v1/node/c/status": b"online",
    }
    first, second = views("edged", latest, {"edged/v1/node/a/health": 4.0}, 10.0)
    assert (first.name, first.status, first.health_age_s) == ("a", "online", 6.0)
    assert first.info is not None
    assert first.info.model is not None
    assert first.info.model.name == "R1"
    assert first.health is not None
    assert (first.health.level, first.health.queue) == ("warm", 2)
    assert (second.name, second.status, second.health) == ("b", "offline", None)
    assert first.as_json()["health"]["queue"] == 2
    assert second.as_json() == {"node": "b", "status": "offline"}


@given(st.binary(max_size=60), st.sampled_from(["status", "info", "health", "event"]))
def test_nothing_that_a_topic_holds_breaks_the_view(payload: bytes, what: str) -> None:
    """A stranger's payload is a node that said nothing, never an error."""
    topic = f"edged/v1/node/a/{what}"
    for each in views("edged", {topic: payload}, {}, 0.0):
        assert text(FleetTable([each]))
    happened("edged", topic, payload)


@pytest.mark.parametrize("what", ["info", "health"])
@pytest.mark.parametrize("odd", [b'"\xff"', b"1e999", b"1" * 5000, b"[" * 40_000 + b"]" * 40_000])
def test_what_no_shape_names_breaks_no_view(what: str, odd: bytes) -> None:
    """A field that is not known here and cannot be read ended `edged nodes` and `edged top` for the whole fleet."""
    latest = said("a", status=b"online", info=INFO, health={"level": "warm"})
    topic = f"edged/v1/node/a/{what}"
    latest[topic] = latest[topic][:-1] + b', "later": ' + odd + b"}"
    [one] = views("edged", latest, {}, 0.0)
    assert "online" in text(FleetTable([one]))
    assert getattr(one, what) is None
    assert what not in json.loads(msgspec.json.encode(one.as_json()))


def test_a_word_of_a_newer_node_is_there_for_programs() -> None:
    """With a level that is not known here nothing of its health was told, though not a field of it was lost."""
    health, info = {"level": "mild", "queue": 2}, {**INFO, "engine": "warming"}
    [one] = views("edged", said("a", status=b"online", info=info, health=health), {}, 0.0)
    assert one.as_json() == {"node": "a", "status": "online", "info": info, "health": health}
    assert (one.info, one.health) == (None, None)
    assert "online" in text(FleetTable([one]))
    assert "cool" not in text(FleetTable([one]))


def test_events_are_told_by_name_and_fields() -> None:
    """The event's name and its fields stand apart; a retained word or a broken one is no event."""
    event = happened("edged", "edged/v1/node/a/event", b'{"event":"level_changed","node":"a","level":"hot"}')
    assert event is not None
    assert (event.node, event.event, event.fields) == ("a", "level_changed", {"level": "hot"})
    assert line(event, "12:00:00").plain == "12:00:00 a            level_changed  level=hot"
    forged = b'{"event":"x\\n12:00:01 b","node":"a","k\\n":"two words","v":"\\n12:00:01 b engine_gone","n":1}'
    event = happened("edged", "edged/v1/node/a/event", forged)
    assert event is not None
    told = r'"x\n12:00:01 b"  "k\n"="two words"  v="\n12:00:01 b engine_gone"  n=1'
    assert line(event, "12:00:00").plain == f"12:00:00 a            {told}"
    assert happened("edged", "edged/v1/node/a/status", b"online") is None
    assert happened("edged", "edged/v1/node/a/event", b"[") is None


def test_the_most_remarkable_node_comes_first() -> None:
    """By heat: the level, then the room to the trip; by queue: the longest; a silent node last."""
    nodes = [view("a", "warm", 9.0), view("b", "hot", 2.0), view("c", "warm", 4.0), NodeView("d")]
    assert [each.name for each in ordered(nodes, "heat")] == ["b", "c", "a", "d"]
    assert [each.name for each in ordered(nodes, "name")] == ["a", "b", "c", "d"]
    lines = [view("a", queue=1), view("b", queue=3), NodeView("c")]
    assert [each.name for each in ordered(lines, "queue")] == ["b", "a", "c"]


def test_temperature_is_that_of_the_zone_nearest_to_its_trip() -> None:
    """A cooler zone with a lower trip counts more than a hotter one far from its own."""
    zones = {
        "soc": Zone(temp_c=70.0, trips=[Trip(kind="passive", temp_c=75.0)]),
        "gpu": Zone(temp_c=80.0, trips=[Trip(kind="passive", temp_c=95.0)]),
        "bare": Zone(temp_c=99.0),
    }
    assert temperature(NodeView("a", "online", None, Health(board=Board(zones=zones)))) == "70/75 C"
    assert (
        temperature(NodeView("a", "online", None, Health(board=Board(zones={"x": Zone(temp_c=41.0)}))))
        == "41 C"
    )
    assert temperature(NodeView("a", "online", None, Health())) == ""


def test_table_shows_one_line_a_node() -> None:
    """Level, queue, model and version stand beside the name; an offline node shows no stale figures."""
    latest = {
        **said("attic", status=b"online", info={**INFO, "model": MODEL}, health={"level": "hot", "queue": 7}),
        **said("shed", status=b"offline", info=INFO, health={"level": "cool", "queue": 5}),
    }
    shown = text(FleetTable(views("edged", latest, {}, 0.0)))
    attic, shed = (row for row in shown.splitlines() if row.startswith(("attic", "shed")))
    assert "hot" in attic
    assert " 7 " in attic
    assert "R1" in attic
    assert "offline" in shed
    assert " 5 " not in shed


@pytest.mark.parametrize("width", [66, 80, 100, 120])
def test_a_narrow_terminal_shortens_the_model_alone(width: int) -> None:
    """Where a long model name does not fit it is cut; what changes stays whole, in one line a node."""
    model = {"name": "DeepSeek R1 Distill Qwen 1.5B " * 4, "architecture": "qwen2", "quantisation": "Q4_0"}
    health = {"level": "critical", "queue": 12, "active": 4, "decode_tokens_per_s": 123.4}
    latest = said("press-hall", status=b"online", info={**INFO, "model": model}, health=health)
    head, row = text(FleetTable(views("edged", latest, {}, 0.0)), width).splitlines()
    assert head.split()[:6] == ["node", "level", "temp", "queue", "active", "tokens/s"]
    assert row.split()[:6] == ["press-hall", "online", "critical", "12", "4", "123.4"]
    assert "…" in row
    assert len(row) <= width
    assert ("version" in head) == (width >= 100)


@pytest.mark.parametrize(("width", "shown"), [(120, "board-of-the-third-hall-12"), (40, "boar…l-12")])
def test_long_names_can_be_told_apart(width: int, shown: str) -> None:
    """Boards of one hall differ at the end of their names: that stays. A very narrow terminal has fewer columns."""
    rows = text(FleetTable([view("board-of-the-third-hall-12", "critical", queue=3)]), width).splitlines()
    assert rows[1].split()[:4] == [shown, "online", "critical", "3"]
    assert max(map(len, rows)) <= width


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """`edged nodes | grep NAME` finds a name of any length; who wants fewer columns says so."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert paper().width == UNCUT
    monkeypatch.setenv("COLUMNS", "70")
    assert paper().width == 70


def test_a_node_that_drains_or_starts_is_told_apart() -> None:
    """Who takes no questions is not called online, and who is about to be not unknown."""
    latest = {
        **said("a", status=b"online", info=INFO, health={"draining": True}),
        **said("b", info={**INFO, "engine": "starting"}, health={}),
    }
    rows = text(FleetTable(views("edged", latest, {}, 0.0))).splitlines()[1:]
    assert rows[0].split()[:2] == ["a", "draining"]
    assert rows[1].split() == ["b", "starting", "starting", "1.2"]


def test_a_closer_look_tells_why_a_node_is_out_of_its_pools() -> None:
    """The reasons stand beside the pools, and cores in the short form."""
    health = {"membership": {"in": [], "out": ["hall"], "reasons": ["hot", "full"]}}
    info = {**INFO, "cores": {"engine": [4, 5, 6, 7], "daemon": [0, 1], "reason": "x", "allowed": "0-7"}}
    (one,) = views("edged", said("a", status=b"online", info=info, health=health), {}, 0.0)
    shown = text(closer(one))
    assert "hall (out of them: hot, full)" in shown
    assert "engine 4-7, daemon 0-1" in shown


def test_top_says_that_the_broker_is_away() -> None:
    """What is drawn then is old, and the screen says so."""
    assert "the broker is away" in text(Watching().draw([view("a")], "12:00:00", connected=False))
    assert "the broker is away" not in text(Watching().draw([view("a")], "12:00:00"))
    assert "another program use this account" in text(Watching().draw([view("a")], "12:00:00", crowded=True))


def test_top_scrolls_to_the_chosen_node() -> None:
    """A fleet of more nodes than rows: the chosen one, what is said of it and the keys stay on the screen."""
    nodes = [view(f"n{number:02}") for number in range(40)]
    state = Watching()
    rows = text(state.draw(nodes, "12:00:00", rows=12)).splitlines()
    assert len(rows) == 12
    assert "1 to 9 shown" in rows[0]
    assert rows[2].startswith("n00")
    for _press in range(30):
        state.press("down", nodes)
    state.press("enter", nodes)
    state.word = "n29: drain is done"
    rows = text(state.draw(nodes, "12:00:00", rows=12)).splitlines()
    assert len(rows) == 12
    assert any(row.startswith("n29 ") for row in rows)
    assert "n29: drain is done" in rows
    assert rows[-1].startswith("arrows choose")


def test_a_closer_look_without_a_choice_is_at_the_first() -> None:
    """Enter does something the first time that it is pressed."""
    state, nodes = Watching(), [view("a"), view("b")]
    state.press("enter", nodes)
    assert (state.selected, state.near) == ("a", True)
    state.press("enter", nodes)
    assert not state.near
    state.press("enter", [])


def test_a_closer_look_names_zones_and_counts() -> None:
    """One node from near: board, zones with trips, what came and went."""
    health = {
        "board": {"zones": {"soc": {"temp_c": 61.5, "trips": [{"kind": "passive", "temp_c": 85.0}]}}},
        "counts": {"accepted": 3},
    }
    (one,) = views("edged", said("a", status=b"online", info=INFO, health=health), {}, 0.0)
    shown = text(closer(one))
    assert "Rock 5B" in shown
    assert "soc: 61.5 C (passive 85)" in shown
    assert "3 accepted" in shown


def test_a_hostile_name_cannot_steer_the_terminal() -> None:
    """Control characters in what nodes say do not reach the screen."""
    latest = said("a\x1b[2J", status=b"online", info={**INFO, "version": "\x1b[31m1"})
    shown = text(FleetTable(views("edged", latest, {}, 0.0)))
    assert "\x1b" not in shown
    assert "\x1b" not in text(Watching(word="a refuses drain: \x1b[2J").draw([view("a")], "12:00:00"))


def test_a_figure_of_many_digits_takes_no_columns_of_others() -> None:
    """It left no room for the names and the levels of all nodes, or ended `edged top` with an OverflowError."""
    many = 10**400
    hot = {"temp_c": 1e300, "trips": [{"kind": "passive", "temp_c": -1e300}]}
    clock = {"cores": [0], "now_hz": many, "hardware_max_hz": many}
    health = {
        "level": "cool",
        "queue": many,
        "active": -many,
        "context": many,
        "decode_tokens_per_s": 1e300,
        "board": {"zones": {"soc": hot}, "clocks": [clock]},
    }
    latest = said("shed", status=b"online", info={**INFO, "model": MODEL}, health=health)
    told = views("edged", latest, {}, 0.0)
    assert told[0].health is not None
    for by in ORDERS:
        shown = text(FleetTable(ordered(told, by)), 80)
        assert all(word in shown for word in ("shed", "online", "cool", ">1000000", "<-1000000")), shown
    assert ">1000000 of >1000000 MHz" in text(closer(told[0]), 80)


@pytest.mark.parametrize("word", ["nan", "inf", "7"])
def test_a_word_is_no_figure(word: str) -> None:
    """A rate that is a text was read as a number: `nan` stood in the table, and the order by speed was none."""
    health = {"level": "cool", "decode_tokens_per_s": word}
    [one] = views("edged", said("a", status=b"online", info=INFO, health=health), {}, 0.0)
    assert one.health is None


@pytest.mark.parametrize("width", [50, 80, 120])
@pytest.mark.parametrize(
    ("status", "info"),
    [
        (b"online" + b"A" * 1000, {"version": "1.0.0"}),
        ("\u706b".encode() * 1000, {"version": "1.0.0"}),
        (b"online", {"version": "V" * 1000}),
        (b"online", {"version": "1.0.0", "board": "B" * 1000, "model": "M" * 1000}),
    ],
)
def test_a_long_word_of_a_node_takes_no_columns_of_others(
    width: int, status: bytes, info: dict[str, str]
) -> None:
    """One node's status or version of some hundred characters left no column for the names of all others."""
    model = {"name": info.pop("model", "Qwen3"), "architecture": "x", "quantisation": "q"}
    latest = said("attic", status=b"online", health={"level": "hot", "queue": 7}) | said(
        "liar", info={"node": "liar", "contract": 1, "model": model, **info}, health={"level": "cool"}
    )
    latest["edged/v1/node/liar/status"] = status
    _, attic, liar = text(FleetTable(views("edged", latest, {}, 0.0)), width).splitlines()
    assert attic.split() == ["attic", "online", "hot", "7", "0"][: 4 if width < NARROW else None]
    assert liar.startswith("liar ")


def test_what_a_node_says_stays_in_its_line() -> None:
    """A line end in a model's name made a line of another node, and a turned direction moved the columns beside."""
    odd = "R1\n\u202eb online"
    info = {**INFO, "version": odd, "board": odd, "pools": [odd], "model": {**MODEL, "name": odd}}
    [one] = views("edged", said("a", status=odd.encode(), info=info), {}, 0.0)
    table = text(FleetTable([one]))
    assert len(table.splitlines()) == 2
    assert "R1 b online" in table
    assert len(text(closer(one)).strip().splitlines()) == 4
    assert "\u202e" not in text(closer(one)) + table
    assert "\u202e" not in line(Happened("a", "x", {"why": "\u202ey"}), "12:00:00").plain


def test_a_hostile_answer_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Who wrote it is told below it, and the node says who."""
    note("12 tokens \u00b7 by \x1b]0;evil\x07, sent on by n1")
    assert capsys.readouterr().err == "12 tokens \u00b7 by ]0;evil, sent on by n1\n"


@pytest.mark.parametrize(("keys", "selected"), [("", None), ("down", "a"), ("down down", "b"), ("up", "b")])
def test_arrows_choose_a_node(keys: str, selected: str | None) -> None:
    """Down begins at the top, up at the bottom, and both go round."""
    state, nodes = Watching(), [view("a"), view("b")]
    for key in keys.split():
        assert state.press(key, nodes) is None
    assert state.selected == selected


def test_draining_asks_for_a_node_first() -> None:
    """Without a chosen node d does nothing but say so; with one it names the operation."""
    state, nodes = Watching(), [view("a")]
    assert state.press("d", nodes) is None
    assert "choose a node" in state.word
    state.press("down", nodes)
    assert state.press("d", nodes) == "drain"
    assert state.press("u", nodes) == "undrain"
    state.press("s", nodes)
    assert state.by == "heat"
    state.press("enter", nodes)
    assert "a" in text(state.draw(nodes, "12:00:00"))
