"""The demo's broker: rumqttd out of the wheel `iotcore`, in a process of its own, on loopback alone.

Run as `python -m edged.demo.broker FOLDER PORT`. It speaks MQTT 5 alone here (3.1.1 would need a port of its
own) and keeps everything in memory. Tried with iotcore 0.4.0: retained messages, last will, shared subscriptions,
Response Topic, Correlation Data, Message Expiry, messages of 1 MiB, and queued QoS 1 messages for a persistent
session while the broker lives. Not so: "Retain Handling" and the maximum QoS of a subscription are not honoured,
and PUBACK never says that nobody listens. For anything that lasts use Mosquitto.
"""

import logging
import signal
import sys
from pathlib import Path

from edged.child import end_with_parent

CONFIG = """\
id = 0

[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 4

[v5.1]
name = "loopback"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = 1048576
max_inflight_count = 200
dynamic_filters = true
"""


def main(folder: Path, port: int) -> None:
    """Serve until the process is ended."""
    end_with_parent(signal.SIGTERM)
    try:
        from iotcore.iotcore import IotCoreBroker  # noqa: PLC0415 - an extra: its absence has a remedy
    except ImportError:
        sys.exit("the demo's broker is not installed; pip install 'edged[demo]'")
    logging.basicConfig(level=logging.CRITICAL)  # rumqttd logs a line for every packet
    config = folder / "broker.toml"
    config.write_text(CONFIG.format(port=port))
    IotCoreBroker(config_path=str(config)).run_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
