"""edged answers the questions of IoT devices on the board beside them: MQTT in, a local model, MQTT out."""

__version__ = "0.1.0"
