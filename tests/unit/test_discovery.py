"""The discovery message: what Home Assistant requires of it, and templates that survive whatever health lacks.

Home Assistant's own schemas and template engine are asked by tests/homeassistant_schema.py, by hand.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edged.core import homeassistant
from edged.core.topics import Topics

TOPICS = Topics("edged", "shed.1")
ABOUT = {"version": "1.0", "board": "Radxa ROCK 5B"}
FULL: dict[str, Any] = {
    "level": "hot",
    "queue": 3,
    "active": 2,
    "engine": "ready",
    "counts": {"done": 6},
    "context": 2048,
    "decode_tokens_per_s": 12.5,
    "model": {"name": "R1-Distill"},
    "board": {
        "zones": {"big": {"temp_c": 81.25, "trips": []}, "npu": {"trips": []}, "gpu": {"temp_c": 60.0}},
        "throttled": True,
        "under_voltage": False,
    },
}
SHOWN = {
    "temperature": "81.25",
    "level": "hot",
    "tokens_per_s": "12.5",
    "queue": "3",
    "active": "2",
    "answers": "6",
    "context": "2048",
    "engine": "ready",
    "throttled": "ON",
    "under_voltage": "OFF",
    "model": "R1-Distill",
}


def message(*, admin: bool = True) -> dict[str, Any]:
    """The message of such a node, as it goes over the wire."""
    told = homeassistant.discovery(TOPICS, ABOUT, admin=admin)
    parsed = json.loads(json.dumps(told))
    assert isinstance(parsed, dict)
    return parsed


def shown(key: str, payload: dict[str, Any]) -> str:
    """What an entity shows for a payload: templates run in a sandbox, as in Home Assistant."""
    template = message()["components"][key]["value_template"]
    return ImmutableSandboxedEnvironment().from_string(template).render(value_json=payload)


@pytest.mark.parametrize("key", SHOWN)
def test_states(key: str) -> None:
    """Each entity shows its field; without it, or without what holds it, it is unknown."""
    assert shown(key, FULL) == SHOWN[key]
    assert shown(key, {}) == "None"
    assert shown(key, {"board": {}, "counts": {}, "model": {}}) == "None"


def test_every_entity_with_a_state_is_tested() -> None:
    """The table above leaves none out."""
    states = {key for key, part in message()["components"].items() if part["platform"] != "button"}
    assert states == set(SHOWN)


@given(st.sets(st.sampled_from(sorted({*FULL, "board.zones", "board.throttled", "board.under_voltage"}))))
def test_any_field_may_be_absent(absent: set[str]) -> None:
    """Whatever else is missing, what is there is shown, and no template fails."""
    payload = {key: value for key, value in FULL.items() if key not in absent}
    if "board" in payload:
        payload["board"] = {k: v for k, v in FULL["board"].items() if f"board.{k}" not in absent}
    for key, value in SHOWN.items():
        assert shown(key, payload) in {value, "None"}
    assert shown("queue", payload) == ("None" if "queue" in absent else "3")


def test_a_cold_board_is_not_unknown() -> None:
    """Zero degrees and zero questions are values."""
    assert shown("temperature", {"board": {"zones": {"a": {"temp_c": 0.0}, "b": {"temp_c": -7.5}}}}) == "0.0"
    assert shown("queue", {"queue": 0}) == "0"
    assert shown("throttled", {"board": {"throttled": False}}) == "OFF"


def test_what_home_assistant_requires() -> None:
    """Device discovery: device with identifiers, origin with name, platform and unique id in each component."""
    told = message()
    assert told["device"]["identifiers"] == ["edged_shed.1"]
    assert told["device"]["model"] == "Radxa ROCK 5B"
    assert told["origin"]["name"] == "edged"
    assert told["availability_topic"] == "edged/v1/node/shed.1/status"
    ids = [part["unique_id"] for part in told["components"].values()]
    assert len(set(ids)) == len(ids)
    for key, part in told["components"].items():
        assert part["platform"] in {"sensor", "binary_sensor", "button"}
        if part["platform"] == "button":
            assert re.fullmatch(r"edged/v1/node/shed.1/admin/[a-z_]+", part["command_topic"])
            assert isinstance(json.loads(part["payload_press"])["transaction"], str)
        else:
            assert part["state_topic"] == (TOPICS.info if key == "model" else TOPICS.health)
        if part.get("device_class") == "enum":
            assert "unit_of_measurement" not in part
            assert "state_class" not in part


def test_buttons_only_where_somebody_listens() -> None:
    """Without the admin topics a button would do nothing; those of before go, named by their platform alone."""
    parts = message(admin=False)["components"]
    assert set(parts) == set(message()["components"])
    buttons = [part for part in parts.values() if part["platform"] == "button"]
    assert buttons == [{"platform": "button"}] * 3
    assert "button" not in [part["platform"] for part in list(parts.values())[: -len(buttons)]]


def test_two_messages_do_not_share_anything() -> None:
    """A second node in one process (tests, fleets of simulations) has topics of its own."""
    first = homeassistant.discovery(TOPICS, ABOUT, admin=True)
    homeassistant.discovery(Topics("other", "n2"), {}, admin=True)
    assert first == homeassistant.discovery(TOPICS, ABOUT, admin=True)


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True))
def test_the_topic_is_one_that_home_assistant_takes(node: str) -> None:
    """Its matcher: component, optional node id, object id, `config`."""
    matcher = re.compile(r"\w+/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")
    assert matcher.fullmatch(homeassistant.topic("homeassistant", node).removeprefix("homeassistant/"))


def test_the_topic_of_an_ordinary_name() -> None:
    """As the contract has it."""
    assert homeassistant.topic("homeassistant", "shed-1") == "homeassistant/device/shed-1/config"
