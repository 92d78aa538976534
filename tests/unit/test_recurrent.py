"""A model with recurrent layers: a state goes on from all of its tokens, and from no part of them.

LFM2's, Granite 4 H's and Mamba's are such models. The one here is LFM2's shape with random weights and a vocabulary
of bytes: layers with a short convolution, and some with attention.
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

CONVOLUTION = 3
KV_HEADS = [0, 2, 0, 2]
"""Of each layer; none in those that are recurrent."""
TOKENS = [3 + 7 * at % 250 for at in range(100)]


def write_model(path: Path) -> Path:
    """Write the model; returns its path."""
    head = WIDTH // HEADS
    writer = tiny_gguf.begin(path, "lfm2", layers=len(KV_HEADS), kv_heads=KV_HEADS)
    writer.add_shortconv_l_cache(CONVOLUTION)
    writer.add_vocab_size(VOCABULARY)
    shapes: tiny_gguf.Shapes = {"token_embd": (VOCABULARY, WIDTH), "token_embd_norm": (WIDTH,)}
    for layer, kv_heads in enumerate(KV_HEADS):
        own = f"blk.{layer}."
        shapes |= tiny_gguf.block(layer)
        if kv_heads:
            shapes |= {f"{own}{name}": (head,) for name in ("attn_q_norm", "attn_k_norm")}
            shapes |= {f"{own}{name}": (kv_heads * head, WIDTH) for name in ("attn_k", "attn_v")}
            shapes |= {f"{own}{name}": (WIDTH, WIDTH) for name in ("attn_q", "attn_output")}
        else:
            shapes |= {
                f"{own}shortconv.conv": (WIDTH, CONVOLUTION),
                f"{own}shortconv.in_proj": (3 * WIDTH, WIDTH),
            }
            shapes |= {f"{own}shortconv.out_proj": (WIDTH, WIDTH)}
    tiny_gguf.finish(writer, shapes)
    return path


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama.Context]:
    """A cache of three streams."""
    llama.start(lambda _level, _line: None)
    model = llama.Model(write_model(tmp_path_factory.mktemp("recurrent") / "recurrent.gguf"))
    made = llama.Context(model, sequences=3, context=256, batch_tokens=128, threads=1, kv_type="f16")
    yield made
    made.close()
    model.close()


@pytest.mark.parametrize("keep", [50, len(TOKENS) - 1, len(TOKENS)])
@pytest.mark.parametrize("way", ["own", "copied", "loaded"])
def test_a_stream_goes_on_from_all_it_holds(context: llama.Context, way: str, keep: int) -> None:
    """What follows is as if all had been read; cut anywhere else it says that it is empty."""
    assert not context.rewinds
    for stream in range(3):
        context.forget(stream)
    logits(context, 0, TOKENS, 0)
    stream = 0 if way == "own" else 1
    if way == "copied":
        context.copy(0, stream)
    if way == "loaded":
        assert context.load(stream, context.save(0))
    whole = context.forget(stream, keep)
    assert whole == (keep >= context.least(len(TOKENS)))
    begin = keep if whole else 0
    prompt = [*TOKENS[:keep], 9]
    found = logits(context, stream, prompt[begin:], begin)
    assert np.allclose(found, logits(context, 2, prompt, 0), atol=0.01)


def test_a_conversation_outlives_a_stranger_that_begins_alike(context: llama.Context) -> None:
    """It was emptied for a question that could use none of it, beside an empty stream."""
    for stream in range(3):
        context.forget(stream)
    slots = Slots(context, 3)
    for prompt in (TOKENS, [*TOKENS[:80], 9]):
        index, keep = slots.take([*prompt, 1], reuse=True, talk=prompt is TOKENS)
        assert keep == 0
        logits(context, index, prompt, 0)
        slots.extend(index, prompt)
        slots.passed()
        slots.release(index)
    assert slots.take([*TOKENS, 5, 6], reuse=True, talk=True) == (0, len(TOKENS))
