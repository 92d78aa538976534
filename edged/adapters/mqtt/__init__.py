"""The broker connection: `Link` says where it is, `Mqtt` keeps it. paho-mqtt is named in this room alone."""

from .connection import Mqtt
from .link import Link, Tls

__all__ = ["Link", "Mqtt", "Tls"]
