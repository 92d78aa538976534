"""Home Assistant's side of a real node: found, shown, said again, forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import Listener
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edged.node.homeassistant import AGAIN_S

ON = {"homeassistant": {"enabled": True}}
TOPIC = "homeassistant/device/n1/config"


@pytest.fixture
def home(broker: Mosquitto) -> Iterator[Listener]:
    """Home Assistant, as far as it listens."""
    listener = Listener(broker.host, broker.port, ("homeassistant/#", "hall/#"), name="home").start()
    yield listener
    listener.stop()


def retained(broker: Mosquitto, topic: str) -> bytes:
    """What a newcomer is told on a topic; empty for nothing. A second message marks the end."""
    newcomer = Listener(broker.host, broker.port, (topic, "end/of/retained"), name="newcomer").start()
    newcomer.publish("end/of/retained", b"x")
    newcomer.wait_for("end/of/retained")
    newcomer.stop()
    return next((heard.payload for heard in newcomer.heard if heard.topic == topic), b"")


def test_a_node_is_found_and_shown(broker: Mosquitto, daemon: MakeDaemon, home: Listener) -> None:
    """The message is retained, and its templates make states of what the node really says."""
    node = daemon(broker, ON, scripted=True).start()
    told = home.wait_for(TOPIC).json
    assert home.wait_for(TOPIC).qos == 1
    assert retained(broker, TOPIC)
    health = node.wait_health(lambda h: h["engine"] == "ready" and "context" in h)
    said = {told["availability_topic"]: b"online"}
    assert node.watcher.wait_for(told["availability_topic"]).payload == said[told["availability_topic"]]

    def shown(key: str, payload: Any) -> str:
        template = told["components"][key]["value_template"]
        return ImmutableSandboxedEnvironment().from_string(template).render(value_json=payload)

    assert shown("level", health) in told["components"]["level"]["options"]
    assert shown("engine", health) == "ready"
    assert shown("queue", health) == "0"
    assert shown("context", health) == str(health["context"])
    assert shown("model", node.wait_info(lambda info: "model" in info)) == "scripted"
    for key, part in told["components"].items():
        assert part["platform"] == "button" or shown(key, health) != "", key


def test_it_is_said_again_to_a_home_assistant_that_starts(
    broker: Mosquitto, daemon: MakeDaemon, home: Listener
) -> None:
    """Its birth message, retained or not, is answered; its last will is not."""
    node = daemon(broker, ON, scripted=True).start()
    home.wait_for(TOPIC)
    for retain in (False, True):
        time.sleep(AGAIN_S)
        since = home.mark
        home.publish("homeassistant/status", b"offline", retain=retain)
        home.publish("homeassistant/status", b"online", retain=retain)
        home.wait_for(TOPIC, since=since)
        time.sleep(AGAIN_S)
        again = home.mark
        home.publish("homeassistant/status", b"offline", retain=retain)
        home.publish("homeassistant/status", b"online", retain=retain)
        home.wait_for(TOPIC, since=again)
        assert len([h for h in home.heard[since:] if h.topic == TOPIC]) == 2
    health = node.wait_health(since=node.watcher.mark)
    assert health["counts"]["dropped"] == health["counts"]["retained_ignored"] == 0


def test_one_that_starts_in_a_loop(broker: Mosquitto, daemon: MakeDaemon, home: Listener) -> None:
    """Each `online` was answered with kilobytes: 20 s of a flood of them took 400 MB, and held questions up."""
    node = daemon(broker, ON, scripted=True).start()
    home.wait_for(TOPIC)
    since, began = home.mark, time.monotonic()
    for _ in range(300):
        home.publish("homeassistant/status", b"online")
    node.wait_health(since=node.watcher.mark)
    took_s = time.monotonic() - began
    assert len([h for h in home.heard[since:] if h.topic == TOPIC]) <= 1 + took_s / AGAIN_S


def test_it_is_forgotten_when_that_is_no_longer_wanted(
    broker: Mosquitto, daemon: MakeDaemon, home: Listener
) -> None:
    """Another prefix moves the device; switched off, it is gone; and then nothing is said any more."""
    node = daemon(broker, ON, scripted=True).start()
    home.wait_for(TOPIC)
    assert node.terminate() == 0
    config = node.config.read_text()
    node.config.write_text(
        config.replace("[homeassistant]\n", '[homeassistant]\ndiscovery_prefix = "hall"\n')
    )
    since = home.mark
    node.start()
    home.wait_for("hall/device/n1/config", since=since)
    assert home.wait_for(TOPIC, since=since).payload == b""
    assert node.terminate() == 0
    node.config.write_text(config.replace("enabled = true", "enabled = false"))
    since = home.mark
    node.start()
    assert home.wait_for("hall/device/n1/config", since=since).payload == b""
    assert node.terminate() == 0
    since = home.mark
    node.start()
    assert node.terminate() == 0
    assert retained(broker, TOPIC) == retained(broker, "hall/device/n1/config") == b""
    assert home.heard[since:] == []


def test_it_is_off_unless_asked_for(broker: Mosquitto, daemon: MakeDaemon, home: Listener) -> None:
    """A node says nothing under other people's prefixes by itself."""
    node = daemon(broker, scripted=True).start()
    home.publish("homeassistant/status", b"online")
    node.wait_health(since=node.watcher.mark)
    assert [h for h in home.heard if h.topic != "homeassistant/status"] == []
