"""`umqtt.simple` as far as the example uses it, made of paho: the same names and manners, MQTT 3.1.1.

Like the original it takes topics as bytes and hands bytes to the callback, from within `check_msg` only.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

WAIT_S = 30.0


class MQTTClient:
    """A connection."""

    def __init__(  # noqa: PLR0917 - as the original has them
        self,
        client_id: str,
        server: str,
        port: int = 0,
        user: str | None = None,
        password: str | None = None,
        keepalive: int = 0,
    ) -> None:
        self._server, self._port, self._keepalive = server, port or 1883, keepalive or 60
        self._heard: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._done = threading.Event()
        self._callback: Callable[[bytes, bytes], None] | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311)
        if user is not None:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda *_: self._done.set()
        self._client.on_subscribe = lambda *_: self._done.set()
        self._client.on_message = lambda _client, _data, message: self._heard.put(
            (message.topic.encode(), bytes(message.payload))
        )

    def set_callback(self, callback: Callable[[bytes, bytes], None]) -> None:
        """Who gets the messages."""
        self._callback = callback

    def connect(self) -> None:
        """Connect, and wait for the broker's word."""
        self._client.connect(self._server, self._port, self._keepalive)
        self._client.loop_start()
        self._wait()

    def subscribe(self, topic: bytes, qos: int = 0) -> None:
        """Subscribe, and wait for the broker's word."""
        assert self._callback is not None, "Subscribe callback is not set"
        self._client.subscribe(topic.decode(), qos)
        self._wait()

    def publish(self, topic: bytes, message: bytes, *, retain: bool = False, qos: int = 0) -> None:
        """Publish; with QoS 1 wait for the broker's word."""
        sent = self._client.publish(topic.decode(), message, qos, retain)
        if qos:
            sent.wait_for_publish(WAIT_S)

    def check_msg(self) -> None:
        """Hand over one message that has come."""
        try:
            topic, message = self._heard.get_nowait()
        except queue.Empty:
            return
        assert self._callback is not None
        self._callback(topic, message)

    def ping(self) -> None:
        """Paho does it by itself."""

    def disconnect(self) -> None:
        """End."""
        self._client.disconnect()
        self._client.loop_stop()

    def _wait(self) -> None:
        assert self._done.wait(WAIT_S), "the broker does not answer"
        self._done.clear()
