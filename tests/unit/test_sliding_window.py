"""A model that attends to its last tokens only: a state holds no more of them, and cannot be cut where it was read.

Gemma's are such models. The one here is Gemma 3's shape with random weights and a vocabulary of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from raw_logits import logits
from tiny_gguf import HEADS, VOCABULARY, WIDTH

from edged.engine import llama
from edged.engine.slots import Slots

WINDOW = 32
HEAD_WIDTH, LAYERS = 32, 6
TOKENS = [3 + 7 * at % 250 for at in range(200)]


def write_model(path: Path) -> Path:
    """Write the model; returns its path."""
    writer = tiny_gguf.begin(path, "gemma3", layers=LAYERS, kv_heads=1)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_sliding_window(WINDOW)
    shapes: tiny_gguf.Shapes = {"token_embd": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        own = f"blk.{layer}."
        shapes |= tiny_gguf.block(layer)
        shapes |= {f"{own}{name}": (WIDTH,) for name in ("post_attention_norm", "post_ffw_norm")}
        shapes |= {f"{own}{name}": (HEAD_WIDTH,) for name in ("attn_q_norm", "attn_k_norm")}
        shapes |= {f"{own}{name}": (HEAD_WIDTH, WIDTH) for name in ("attn_k", "attn_v")}
        shapes |= {
            f"{own}attn_q": (HEADS * HEAD_WIDTH, WIDTH),
            f"{own}attn_output": (WIDTH, HEADS * HEAD_WIDTH),
        }
    tiny_gguf.finish(writer, shapes)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama.Model]:
    """The model."""
    llama.start(lambda _level, _line: None)
    made = llama.Model(write_model(tmp_path_factory.mktemp("window") / "window.gguf"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def context(model: llama.Model) -> Iterator[llama.Context]:
    """A cache of three streams."""
    made = llama.Context(model, sequences=3, context=512, batch_tokens=256, threads=1, kv_type="f16")
    yield made
    made.close()


@pytest.mark.parametrize("keep", [100, len(TOKENS) - 2, len(TOKENS) - 1, len(TOKENS)])
@pytest.mark.parametrize("way", ["own", "copied", "loaded"])
def test_a_stream_goes_on_from_what_it_holds(context: llama.Context, way: str, keep: int) -> None:
    """Wherever a stream is cut, what follows is as if all had been read; or it says that it is empty."""
    for stream in range(3):
        context.forget(stream)
    logits(context, 0, TOKENS, 0)
    stream = 0 if way == "own" else 1
    if way == "copied":
        context.copy(0, stream)
    if way == "loaded":
        assert context.load(stream, context.save(0))
    whole = context.forget(stream, keep)
    assert whole == (way != "loaded" or keep >= context.least(len(TOKENS)))
    begin = keep if whole else 0
    prompt = [*TOKENS[:keep], 9]
    found = logits(context, stream, prompt[begin:], begin)
    assert np.allclose(found, logits(context, 2, prompt, 0), atol=0.1)


def test_a_state_that_was_put_back_is_not_taken_for_a_part_of_it(context: llama.Context) -> None:
    """It lacks what the window left out: a conversation was emptied for a stranger who could use none of it."""
    for stream in range(3):
        context.forget(stream)
    slots = Slots(context, 3)
    index, _ = slots.take([*TOKENS, 1], reuse=True, talk=True)
    logits(context, index, TOKENS, 0)
    slots.extend(index, TOKENS)
    slots.passed()
    slots.release(index)
    assert slots.longest([*TOKENS[:150], 9]) == 150
    assert slots.state(index, 100) is not None
    assert slots.longest([*TOKENS[:150], 9]) == 0
    other, keep = slots.take([*TOKENS[:150], 9], reuse=True)
    assert (other != index, keep) == (True, 0)
    assert slots.take([*TOKENS, 5, 6], reuse=True, talk=True) == (index, len(TOKENS))


def test_size_of_a_token(model: llama.Model, context: llama.Context) -> None:
    """What a token takes in the cache, where a head is wider than its part of the embedding."""
    assert HEAD_WIDTH > WIDTH // HEADS
    for stream in range(3):
        context.forget(stream)
    few = TOKENS[: WINDOW // 2]
    logits(context, 0, few, 0)
    size = model.kv_bytes_per_token("f16")
    assert size * len(few) < len(context.save(0)) < 1.2 * size * len(few)
