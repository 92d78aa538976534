"""Checks a discovery message, and its templates on a health message, by Home Assistant's own code.

It is large and pins much, so it wants an environment of its own; `tests/run` does not run this. Device discovery
came with Home Assistant 2024.12, which needs Python 3.13.

    python3.13 -m venv ha && ha/bin/pip install homeassistant paho-mqtt
    mosquitto_sub -h broker -t homeassistant/device/shed/config -C 1 >discovery.json
    mosquitto_sub -h broker -t edged/v1/node/shed/health -C 1 >health.json
    ha/bin/python tests/homeassistant_schema.py discovery.json health.json

Each component is put together as Home Assistant does it (what the device shares, then what the component has) and
goes through the schema of its platform.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from pathlib import Path

from homeassistant.components.mqtt import schemas
from homeassistant.const import __version__
from homeassistant.core import HomeAssistant
from homeassistant.helpers import frame
from homeassistant.helpers.template import Template


async def main(discovery: str, health: str) -> int:
    """Check two JSON texts and print; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        hass = HomeAssistant(folder)
        frame.async_setup(hass)
        told = json.loads(discovery)
        checked = schemas.DEVICE_DISCOVERY_SCHEMA(told)
        shared = {name: value for name, value in told.items() if name in schemas.SHARED_OPTIONS}
        for key, component in checked["components"].items():
            if set(component) == {"platform"}:
                print(f"{component['platform']:14} {key:14} is taken away")
                continue
            platform = importlib.import_module(f"homeassistant.components.mqtt.{component['platform']}")
            platform.DISCOVERY_SCHEMA(
                {**shared, **component, "device": told["device"], "origin": told["origin"]}
            )
            shown = ""
            if component.get("state_topic", "").endswith("/health"):
                template = Template(component["value_template"], hass)
                shown = template.async_render_with_possible_json_value(health, "failed")
            print(f"{component['platform']:14} {key:14} {component['name']:22} {shown}")
        print(f"{len(checked['components'])} components are as Home Assistant {__version__} wants them")
        await hass.async_stop(force=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*(Path(name).read_text() for name in sys.argv[1:3]))))
