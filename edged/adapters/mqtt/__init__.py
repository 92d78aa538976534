"""The broker connection: `Link` says where it is, `Mqtt` keeps it. In the daemon paho-mqtt is named here alone."""

from .connection import Mqtt
from .link import Link, Tls

__all__ = ["Link", "Mqtt", "Tls"]
