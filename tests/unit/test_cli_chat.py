"""`edged chat`: what goes wrong with one line does not end the conversation."""

from __future__ import annotations

import io
import json
import sys

import paho.mqtt.client as paho
import pytest
from broker import Mosquitto
from device import hear, leave

from edged.cli.chat import converse
from edged.client import Client


def test_a_name_that_does_not_fit(
    shared_broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor what nobody hears: it is told, and the next line is read."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n/forget\n/what\n/new\n"))
    with Client(port=shared_broker.port) as client:
        converse(client, "nowhere", "no name", None, 60.0)  # an n1 of other tests may keep its place
    asked, forgotten, *rest = capsys.readouterr().err.splitlines()
    assert asked.startswith("edged chat: nobody listens there")
    assert "'no name'" in forgotten
    assert rest == ["/what: there are /new, /forget and /quit", "a new conversation"]


def test_a_word_that_says_nothing_of_a_session(
    shared_broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The conversation ended with a KeyError where a node gave /forget an answer to something else."""

    def mistake(node: paho.Client, _userdata: object, order: paho.MQTTMessage) -> None:
        name = json.loads(order.payload)["id"]
        word = {"type": "status", "id": name, "seq": 0, "state": "waiting", "node": "liar"}
        node.publish(f"edged/v1/client/c1/answer/{name}", json.dumps(word), qos=1)

    monkeypatch.setattr(sys, "stdin", io.StringIO("/forget\n/new\n"))
    node = hear(shared_broker, "liar", "edged/v1/node/liar/control/c1", mistake)
    try:
        with Client(port=shared_broker.port, name="c1") as client:
            converse(client, "liar", "s1", None, 60.0)
    finally:
        leave(node)
    assert capsys.readouterr().err.splitlines() == [
        "edged chat: liar answers 'waiting', which says nothing of s1",
        "a new conversation",
    ]
