"""The section for Home Assistant. As in `tree`, the docstring under a field is its one description."""

from .scalars import Flag, Section, TopicPrefix


class HomeAssistant(Section):
    """Being found by Home Assistant."""

    enabled: Flag = False
    """Show this board to Home Assistant as a device; switched off again it is taken away there."""
    discovery_prefix: TopicPrefix = "homeassistant"
    """First levels of the topic of the discovery message, as Home Assistant's MQTT integration has it."""
    birth_topic: TopicPrefix = "homeassistant/status"
    """Where Home Assistant says that it has started; the message is sent again then."""
