"""`edged chat`: what goes wrong with one line does not end the conversation."""

from __future__ import annotations

import io
import sys

import pytest
from broker import Mosquitto

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
