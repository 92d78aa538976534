"""The AsyncAPI document says what is on the wire: made from the types, and held against a running node.

Whether it is good AsyncAPI is for AsyncAPI's own parser to say, which needs Node.js: tests/asyncapi.mjs, by hand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import Device, Heard, Listener, MakeDevice

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCUMENT: dict[str, Any] = yaml.safe_load((DEPLOY / "asyncapi.yaml").read_text())
OPEN = {"Event", "Error"}
"""Schemas whose messages carry more than is named: an event its own fields, an error its details."""


def test_the_document_is_the_one_that_the_code_makes() -> None:
    """Nobody has edited the YAML, or forgotten to make it anew."""
    command = [sys.executable, str(DEPLOY / "specification.py"), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def references(value: Any) -> list[str]:
    """Every reference in the document."""
    if isinstance(value, list):
        return [one for item in value for one in references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if "$ref" in value else []
    return own + [one for item in value.values() for one in references(item)]


def test_every_reference_leads_somewhere() -> None:
    """And every parameter of an address is described."""
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]
    for channel in DOCUMENT["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel["parameters"])


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one(name: str) -> None:
    """JSON Schema, draft 7, which AsyncAPI's own schemas extend; nothing is null, for what is unknown is absent."""
    schema = DOCUMENT["components"]["schemas"][name]
    jsonschema.Draft7Validator.check_schema(schema)
    assert "'null'" not in str(schema)


def strict(value: Any, name: str = "") -> Any:
    """The same schemas, allowing nothing that they do not name."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {key: strict(item, key) for key, item in value.items()}
    if "properties" in value and name not in OPEN:
        closed["additionalProperties"] = False
    return closed


CLOSED = strict(DOCUMENT["components"])


def schema_of(heard: Heard) -> tuple[str, dict[str, Any]]:
    """Name and payload schema of the message that the document has for this topic."""
    for channel in DOCUMENT["channels"].values():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(channel["address"]))
        if re.fullmatch(pattern, heard.topic):
            names = list(channel["messages"])
            break
    else:
        pytest.fail(f"no channel of the document is {heard.topic}")
    if heard.payload[:1] == b"{" and len(names) > 1:
        kind = heard.json.get("type")
        schemas = DOCUMENT["components"]["schemas"]
        names = [
            name
            for name in names
            if name in schemas and kind in schemas[name]["properties"].get("type", {"enum": [None]})["enum"]
        ]
    assert names, f"no message of the document fits {heard.topic}: {heard.payload[:200]!r}"
    return names[-1], DOCUMENT["components"]["messages"][names[-1]]["payload"]


def check(heard: Heard) -> str:
    """Hold a message against the document; returns the name of the message."""
    name, payload = schema_of(heard)
    told = heard.json if heard.payload[:1] == b"{" else heard.payload.decode()
    jsonschema.Draft7Validator({**payload, "components": CLOSED}).validate(told)
    return name


def ask_everything(asking: Device) -> None:
    """Questions of all kinds, well-formed and not."""
    asking.answer(asking.ask("tokens=3", reasoning={"mode": "separate"}))
    asking.answer(asking.ask("tokens=3", reasoning={"mode": "inline"}))
    asking.answer(
        asking.ask("tokens=3", stream=False, priority="interactive", seed=1, stop=["x"], session="s")
    )
    asking.answer(asking.ask())  # neither prompt nor messages
    asking.answer(asking.ask("a " * 3000))  # too long
    asking.ask_text("tokens=2")
    asking.wait(lambda: asking.texts() or None)
    slow = asking.ask("tokens=500 step_ms=20")
    asking.wait_reply(slow, "reasoning")
    asking.control("status", slow)
    asking.wait_reply(slow, "status")
    asking.control("cancel", slow)
    asking.answer(slow)
    asking.control("status", "never-asked")
    asking.wait_reply("never-asked", "status")


def test_messages_of_a_running_node(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Whatever a node and a device say to each other is what the document says, field by field."""
    everything = Listener(broker.host, broker.port, ("edged/#",), name="everything").start()
    asking = device(broker, "d1")
    node = daemon(
        broker, {"node": {"id": "n1", "pools": ["hall"]}}, scripted=True, environment={"SCRIPTED_THINKS": "1"}
    ).start()
    ask_everything(asking)
    asking.publish("edged/v1/pool/hall/ask/d1", json.dumps({"id": "pooled", "prompt": "tokens=2"}).encode())
    asking.answer("pooled")
    asking.answer(asking.ask("crash=SIGKILL"), timeout_s=60.0)
    node.wait_health(lambda h: h["counts"]["done"] >= 4 and "context" in h)
    assert node.terminate() == 0
    everything.wait_for("/status", lambda h: h.payload == b"offline")
    everything.stop()
    seen = {}
    for heard in everything.heard:
        if heard.payload[:1] == b"{" and heard.topic.endswith("/ask/d1"):
            continue  # some are wrong on purpose
        try:
            seen[check(heard)] = heard
        except jsonschema.ValidationError as error:
            pytest.fail(f"{heard.topic}: {error.message} in {heard.payload[:500]!r}")
    assert set(seen) >= {
        *("Accepted", "ReasoningDelta", "Delta", "Done", "Cancelled", "Error", "Status"),
        *("PlainQuestion", "PlainAnswer", "Control", "NodeStatus", "Info", "Health", "Event"),
    }


def test_questions_are_what_the_document_says() -> None:
    """What it allows is what the README's table has; what it forbids is refused by a node, too."""
    validator = jsonschema.Draft7Validator(
        {"$ref": "#/components/schemas/Question", "components": DOCUMENT["components"]}
    )
    validator.validate(
        {
            "id": "a",
            "prompt": "Is 85 C hot?",
            "stop": "x",
            "reasoning": {"mode": "hide", "budget": 5},
            "seed": 1,
        }
    )
    validator.validate({"messages": [{"role": "user", "content": "Is it?"}], "overflow": "trim_history"})
    for wrong in (
        {"promt": "a"},
        {"prompt": 3},
        {"prompt": "a", "priority": "high"},
        {"messages": [{"role": "me"}]},
    ):
        assert not validator.is_valid(wrong), wrong
