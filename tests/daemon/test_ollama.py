"""Ollama's side of the HTTP face, asked by Ollama's Python client as Home Assistant's integration does."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from broker import Mosquitto, free_port
from daemon_process import DaemonProcess


class Served:
    """A node on loopback, without a key."""

    def __init__(self, node: DaemonProcess, port: int) -> None:
        self.node = node
        self.url = f"http://127.0.0.1:{port}"
        self.client = ollama.Client(host=self.url)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared_broker: Mosquitto) -> Iterator[Served]:
    """A scripted node, started."""
    port = free_port()
    sections: dict[str, dict[str, Any]] = {"http": {"enabled": True, "port": port}, "node": {"id": "hearth"}}
    folder = tmp_path_factory.mktemp("hearth")
    node = DaemonProcess(folder, shared_broker.host, shared_broker.port, sections, scripted=True)
    made = Served(node.start(), port)
    yield made
    made.client._client.close()  # noqa: SLF001 - it has no method for that
    assert node.terminate() == 0
    assert node.close() == []


HOME_ASSISTANT: dict[str, Any] = {
    "model": "scripted:latest",
    "stream": True,
    "keep_alive": "-1s",
    "options": {"num_ctx": 8192},
    "think": False,
    "tools": None,
    "format": None,
}
"""What its conversation agent sends beside the messages (homeassistant/components/ollama/entity.py)."""


def test_as_home_assistant_asks(served: Served) -> None:
    """List the models, then a streamed chat with system prompt and history."""
    [model] = served.client.list().models
    assert model.model == "scripted"
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "w0"},
        {"role": "user", "content": "tokens=20 step_ms=5"},
    ]
    lines = list(served.client.chat(messages=messages, **HOME_ASSISTANT))
    assert "".join(line.message.content or "" for line in lines) == "".join(f"w{n} " for n in range(20))
    assert len(lines) > 3
    assert [line.done for line in lines[-2:]] == [False, True]
    last = lines[-1]
    assert (last.done_reason, last.eval_count) == ("stop", 20)
    assert last.total_duration is not None
    assert served.client.chat(model="edged", messages=[]).done_reason == "load"


def test_whole_answers(served: Served) -> None:
    """Without a stream, by chat and by generate."""
    answer = served.client.chat(
        "edged", [{"role": "user", "content": "x tokens=2"}], options={"num_predict": 1}
    )
    assert (answer.message.content, answer.done_reason) == ("w0 ", "length")
    told = served.client.generate("scripted", "x tokens=2", system="be brief", options={"num_predict": -1})
    assert (told.response, told.prompt_eval_count, told.done) == ("w0 w1 ", 5, True)
    lines = list(served.client.generate("scripted", "x tokens=5", stream=True))
    assert "".join(line.response or "" for line in lines) == "w0 w1 w2 w3 w4 "


def test_what_it_tells_of_itself(served: Served) -> None:
    """Version, details, capabilities; a refusal is an `error` with a status."""
    assert httpx.get(f"{served.url}/").text == "edged is running"
    assert httpx.get(f"{served.url}/api/version").json()["version"]
    shown = served.client.show("scripted")
    assert shown.details is not None
    assert shown.details.format == "gguf"
    assert "completion" in (shown.capabilities or [])
    [listed], [running] = served.client.list().models, served.client.ps().models
    # `ollama list` and `ollama ps` print its first 12, and when the model is unloaded.
    assert listed.digest == running.digest
    assert re.fullmatch("[0-9a-f]{64}", listed.digest or "")
    assert running.expires_at is not None
    assert running.expires_at > datetime.datetime.now(datetime.UTC)
    assert running.context_length == 2048  # the scripted engine's
    for call, status, words in (
        (lambda: served.client.chat("llama3", [{"role": "user", "content": "x"}]), 404, "there is scripted"),
        (lambda: served.client.generate("edged", "x", options={"top_k": 3}), 400, "options.top_k"),
        (lambda: served.client.generate("edged", "x", images=["aGk="]), 400, "images"),
        (lambda: served.client.generate("edged", "word " * 3000), 400, "tokens"),
        (
            lambda: served.client.pull("llama3"),
            404,
            "there is no POST /api/pull here; ask /api/chat, with a model that /api/tags lists",
        ),
    ):
        with pytest.raises(ollama.ResponseError, match=words) as refused:
            call()
        assert refused.value.status_code == status
