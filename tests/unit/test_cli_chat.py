"""`edged chat`: what goes wrong with one line does not end the conversation."""

from __future__ import annotations

from typing import cast

import pytest

from edged.cli import chat
from edged.client import Client


class Refusing:
    """A client that accepts no session's name, as the real one does where it is no name."""

    def ask(self, *_arguments: object, **_options: object) -> None:
        """Refuse."""
        raise ValueError("session: no name")

    def forget_session(self, session: str, node: str) -> str:
        """Refuse."""
        raise ValueError(f"no {session} on {node}")


def test_a_name_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be forgotten is told as what cannot be asked, and the next line is read."""
    lines = iter(["hello", "/forget", "/new"])
    monkeypatch.setattr(chat, "typed", lambda: next(lines, None))
    chat.converse(cast("Client", Refusing()), "n1", "no name", None, 1.0)
    said = capsys.readouterr().err.splitlines()
    assert said == ["edged chat: session: no name", "edged chat: no no name on n1", "a new conversation"]
