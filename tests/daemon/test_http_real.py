"""The HTTP face over the real small model, asked by openai's and ollama's own clients.

What the scripted model cannot show: schemas that hold, calls that the next round answers, text as a model cuts it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import ollama
import openai
import pytest
from broker import Mosquitto, free_port
from daemon_process import DaemonProcess
from device import WAIT_S

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"hot": {"type": "boolean"}, "celsius": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["hot", "celsius"],
    "additionalProperties": False,
}
LAMP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "set_lamp",
        "description": "Switch a lamp.",
        "parameters": {
            "type": "object",
            "properties": {"lamp": {"enum": ["hall", "yard"]}, "on": {"type": "boolean"}},
            "required": ["lamp", "on"],
        },
    },
}
CAPITAL: dict[str, Any] = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture(scope="module")
def port(
    tmp_path_factory: pytest.TempPathFactory, shared_broker: Mosquitto, small_model: Path
) -> Iterator[int]:
    """Port of a node with the small model, on loopback without a key."""
    number = free_port()
    sections: dict[str, dict[str, Any]] = {
        "node": {"id": "real-http"},
        "http": {"enabled": True, "port": number},
        "model": {"path": str(small_model)},
        "engine": {"slots": 2, "context_max": 1024, "context_min": 512},
    }
    folder = tmp_path_factory.mktemp("real-http")
    node = DaemonProcess(folder, shared_broker.host, shared_broker.port, sections)
    try:
        node.start()
        yield number
        assert node.terminate() == 0
    finally:
        assert node.close() == []


@pytest.fixture
def client(port: int) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=2 * WAIT_S
    ) as made:
        yield made


def chat(client: openai.OpenAI, messages: list[dict[str, Any]], **fields: Any) -> Any:
    """A chat completion that leaves nothing to chance."""
    given: Any = {"model": "edged", "temperature": 0, "max_tokens": 60, "messages": messages, **fields}
    return client.chat.completions.create(**given)


def test_the_stream_is_the_answer(client: openai.OpenAI) -> None:
    """Whole and in pieces it is the same text, and the right one; the second is computed anew."""
    whole = chat(client, [CAPITAL], max_tokens=24)
    assert "Paris" in whole.choices[0].message.content
    assert whole.usage.prompt_tokens > 5
    chunks = list(
        chat(
            client,
            [CAPITAL],
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"cache": "bypass"},
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_schema_holds(client: openai.OpenAI) -> None:
    """`response_format` with a schema, whole and streamed: what comes parses and validates."""
    shape = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
    asked = [{"role": "user", "content": "The bearing has 85 C. Is that hot?"}]
    whole = chat(client, asked, response_format=shape)
    jsonschema.validate(json.loads(whole.choices[0].message.content), SCHEMA)
    chunks = chat(client, asked, response_format=shape, stream=True, temperature=0.9, seed=7)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    jsonschema.validate(json.loads(text), SCHEMA)
    loose = chat(client, asked, response_format={"type": "json_object"}, max_tokens=200)
    assert isinstance(json.loads(loose.choices[0].message.content), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_and_its_answer(client: openai.OpenAI, stream: bool) -> None:  # noqa: FBT001 - a table
    """A required call by its schema; its result, sent back behind it, is answered in words.

    The whole one goes back as OpenAI's client holds it, with all its nulls, and the tool has some as well.
    """
    said: list[dict[str, Any]] = [{"role": "user", "content": "Switch on the hall lamp."}]
    given = {"tools": [LAMP], "tool_choice": "required", "parallel_tool_calls": False, "stream": stream}
    if stream:
        chunks = [chunk.choices[0] for chunk in chat(client, said, **given) if chunk.choices]
        assert chunks[-1].finish_reason == "tool_calls"
        assert not any(chunk.delta.content for chunk in chunks)
        [call] = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    else:
        [choice] = chat(client, said, **given).choices
        assert choice.finish_reason == "tool_calls"
        [call] = choice.message.tool_calls
    assert call.function.name == "set_lamp"
    jsonschema.validate(json.loads(call.function.arguments), LAMP["function"]["parameters"])
    if stream:
        function = {"name": call.function.name, "arguments": call.function.arguments}
        calls = [{"id": call.id, "type": "function", "function": function}]
        said.append({"role": "assistant", "content": None, "tool_calls": calls})
    else:
        said.append(choice.message.model_dump())
    said.append({"role": "tool", "tool_call_id": call.id, "content": "The hall lamp is on."})
    terse = openai.types.shared.FunctionDefinition(name="set_lamp", description=None, strict=None)
    tools = [{"type": "function", "function": terse.model_dump()}]
    [second] = chat(client, said, tools=tools, tool_choice="none").choices
    assert second.message.content.strip()
    assert second.finish_reason in {"stop", "length"}
    assert not second.message.tool_calls


def test_ollama(port: int) -> None:
    """Chat and generate of Ollama's client, with a schema as its `format`; it ends lines where Python does."""
    client = ollama.Client(host=f"http://127.0.0.1:{port}")
    calm = {"temperature": 0, "num_predict": 24}
    try:
        lines = list(client.chat("edged", [CAPITAL], stream=True, options=calm))
        assert "Paris" in "".join(line.message.content or "" for line in lines)
        assert lines[-1].done
        told = client.generate("edged", "Is 85 C hot?", format=SCHEMA, options={**calm, "num_predict": 60})
        jsonschema.validate(json.loads(told.response or ""), SCHEMA)
        lines_apart: Any = {"const": "one\u2028two\u0085three"}
        pieces = client.chat("edged", [CAPITAL], stream=True, format=lines_apart)
        assert json.loads("".join(piece.message.content or "" for piece in pieces)) == lines_apart["const"]
    finally:
        client._client.close()  # noqa: SLF001 - it has no method for that
