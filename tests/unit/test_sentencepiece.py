"""A vocabulary of SentencePiece's kind, as Llama 2's, TinyLlama's and Phi-3's, before which llama.cpp puts a space.

The model here is Llama's shape with random weights and a vocabulary of bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_gguf
from real_rig import RealRig, ask
from tiny_gguf import HEADS, VOCABULARY, WIDTH

from edged.core.question import Message
from edged.core.tools import Tool
from edged.engine.chat import ChatTemplate, to_tokens
from edged.engine.messages import Ended

LAYERS = 2
LAMP = Tool(
    "set_lamp",
    "Switch a lamp.",
    '{"type":"object","properties":{"on":{"type":"boolean"}},"required":["on"],"additionalProperties":false}',
)


def write_model(path: Path) -> Path:
    """Write the model; returns its path."""
    writer = tiny_gguf.begin(path, "llama", layers=LAYERS, kv_heads=HEADS)
    shapes: tiny_gguf.Shapes = {"token_embd": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= tiny_gguf.block(layer)
        shapes |= {f"blk.{layer}.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    tiny_gguf.finish(writer, shapes)
    return path


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> RealRig:
    """An engine with the model."""
    return RealRig(write_model(tmp_path_factory.mktemp("pieces") / "pieces.gguf"), slots=2)


def read(rig: RealRig, template: str) -> str:
    """What a model is given of two turns."""
    spans = ChatTemplate(template, bos="<s>", eos="</s>").render(
        [Message("user", "U"), Message("assistant", "A"), Message("user", "V")]
    )
    return b"".join(map(rig.vocabulary.piece, to_tokens(spans, rig.vocabulary))).decode()


@pytest.mark.parametrize("text", ["Hello", " Hello", "\nHello", "\x01", "a\x00b", "<s>", "é", ""])
def test_text_arrives_whole(rig: RealRig, text: str) -> None:
    """A text in the midst of a prompt is read as it is, with nothing in front."""
    read = rig.vocabulary.tokenize(text, special=False)
    assert b"".join(map(rig.vocabulary.piece, read)).decode() == text


def test_space_behind_control_tokens_alone(rig: RealRig) -> None:
    """As llama.cpp writes a whole prompt: a message gets a space where a control token stands before it."""
    turns = "{% for m in messages %}USER\n{{ m.content + eos_token }}{% endfor %}ASSISTANT"
    assert read(rig, turns) == "<s> USER\nU</s> USER\nA</s> USER\nV</s> ASSISTANT"
    turns = "{% for m in messages %}{{ bos_token + m.content + eos_token }}{% endfor %}"
    assert read(rig, turns) == "<s> U</s><s> A</s><s> V</s>"


def test_calls(rig: RealRig) -> None:
    """A call is written as it will be read."""
    for number in range(1, 5):
        rig.submit(ask(number, "Light!", tools=(LAMP,), tool_mode="required"))
    for ended in rig.run().values():
        assert isinstance(ended, Ended)
        assert ended.outcome == "tool_calls"
        assert {call.name for call in ended.calls} == {"set_lamp"}
        assert all(json.loads(call.arguments).keys() == {"on"} for call in ended.calls)
