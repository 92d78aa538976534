"""What Home Assistant is told so that a node appears there as a device with its entities. Pure.

Device discovery: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload (Home Assistant 2024.12
and newer). The entities read their states from the topics that the node publishes anyway; a template that finds
nothing there says `None`, which Home Assistant shows as unknown.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from edged.core.news import Phase
from edged.core.topics import Topics
from edged.core.vitals import LEVELS

Json = dict[str, Any]

HOTTEST = """\
{% set read = ((value_json.board | default({})).zones | default({})).values() \
| map(attribute='temp_c') | select('number') | list %}{{ read | max if read else None }}"""
"""The highest temperature of all zones that tell one."""


def topic(prefix: str, node: str) -> str:
    """Where a node's discovery stands. Home Assistant takes letters, digits, _ and - there: a dot becomes _."""
    return f"{prefix}/device/{re.sub('[^A-Za-z0-9_-]', '_', node)}/config"


def discovery(topics: Topics, about: Json, *, admin: bool) -> Json:
    """The discovery message.

    Args:
        topics: of the node.
        about: its info, as far as it is known.
        admin: whether the node listens to operators; only then there are buttons, else those of before go.
    """
    components = {key: {**part, "state_topic": topics.health} for key, part in _STATES.items()}
    components["model"]["state_topic"] = topics.info
    if admin:
        components |= {key: _button(topics, key, part) for key, part in _BUTTONS.items()}
    for key, part in components.items():
        part["unique_id"] = f"edged_{topics.node}_{key}"
    if not admin:  # left out they would stay: a component with nothing but its platform is one to take away
        components |= {key: {"platform": "button"} for key in _BUTTONS}
    device = {
        "identifiers": [f"edged_{topics.node}"],
        "name": f"edged {topics.node}",
        "manufacturer": "edged",
        "model": about.get("board"),
        "sw_version": about.get("version"),
    }
    return {
        "device": {name: value for name, value in device.items() if value},
        "origin": {"name": "edged", "sw_version": str(about.get("version", ""))},
        "availability_topic": topics.status,
        "payload_available": "online",
        "payload_not_available": "offline",
        "components": components,
    }


def _value(path: str) -> str:
    """A template for a field of the payload; `None` where it is absent, or what holds it is."""
    *above, last = path.split(".")
    holder = "value_json"
    for name in above:
        holder = f"({holder}.{name} | default({{}}))"
    return f"{{{{ {holder}.{last} | default(None) }}}}"


def _truth(path: str) -> str:
    """A template for a field that is true or false: `ON`, `OFF`, or `None` where it is absent."""
    value = _value(path).strip("{} ")
    return f"{{% set told = {value} %}}{{{{ None if told is none else ('ON' if told else 'OFF') }}}}"


def _number(name: str, template: str, unit: str, **more: object) -> Json:
    return {
        "platform": "sensor",
        "name": name,
        "value_template": template,
        "unit_of_measurement": unit,
        "state_class": "measurement",
        **more,
    }


def _word(name: str, path: str, words: tuple[str, ...], **more: object) -> Json:
    return {
        "platform": "sensor",
        "name": name,
        "value_template": _value(path),
        "device_class": "enum",
        "options": list(words),
        **more,
    }


def _problem(name: str, path: str) -> Json:
    return {
        "platform": "binary_sensor",
        "name": name,
        "value_template": _truth(path),
        "device_class": "problem",
        "entity_category": "diagnostic",
    }


def _button(topics: Topics, op: str, part: Json) -> Json:
    return {
        "platform": "button",
        "command_topic": topics.admin(op),
        "payload_press": '{"transaction": "homeassistant"}',
        "entity_category": "config",
        "qos": 1,
        **part,
    }


_STATES: dict[str, Json] = {
    "temperature": _number(
        "Temperature", HOTTEST, "°C", device_class="temperature", suggested_display_precision=1
    ),
    "level": _word("Heat level", "level", LEVELS, icon="mdi:thermometer-alert"),
    "tokens_per_s": _number(
        "Speed",
        _value("decode_tokens_per_s"),
        "tokens/s",
        icon="mdi:speedometer",
        suggested_display_precision=1,
    ),
    "queue": _number("Questions waiting", _value("queue"), "questions", icon="mdi:tray-full"),
    "active": _number("Questions running", _value("active"), "questions", icon="mdi:head-question"),
    "answers": _number(
        "Answers", _value("counts.done"), "answers", icon="mdi:message-check", state_class="total_increasing"
    ),
    "context": _number(
        "Context limit", _value("context"), "tokens", icon="mdi:text-long", entity_category="diagnostic"
    ),
    "engine": _word("Engine", "engine", get_args(Phase), icon="mdi:engine", entity_category="diagnostic"),
    "throttled": _problem("Throttled", "board.throttled"),
    "under_voltage": _problem("Under-voltage", "board.under_voltage"),
    "model": {
        "platform": "sensor",
        "name": "Model",
        "value_template": _value("model.name"),
        "icon": "mdi:brain",
        "entity_category": "diagnostic",
    },
}
_BUTTONS: dict[str, Json] = {
    "drain": {"name": "Drain", "icon": "mdi:water-off"},
    "undrain": {"name": "Take questions again", "icon": "mdi:water"},
    "restart": {"name": "Restart", "device_class": "restart"},
}
