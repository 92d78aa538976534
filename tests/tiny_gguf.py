"""Tiny models with random weights and a vocabulary of bytes, for the shapes that the small model has not.

The vocabulary is SentencePiece's, as Llama 2's: its space is a token of its own.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, FEED_FORWARD = 64, 4, 128
WORDS = ("<unk>", "<s>", "</s>")
VOCABULARY = len(WORDS) + 256 + 1

Shapes = dict[str, tuple[int, ...]]
"""Of tensors by their names without `.weight`, as numpy has them."""


def begin(path: Path, architecture: str, *, layers: int, kv_heads: int | list[int]) -> gguf.GGUFWriter:
    """A file that has all that these models have in common, but for its tensors."""
    kinds = gguf.TokenType
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*WORDS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, kinds.NORMAL])
    return writer


def block(layer: int) -> Shapes:
    """Norms and feed-forward part of a layer."""
    own = f"blk.{layer}."
    return {
        **{f"{own}{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")},
        **{f"{own}{name}": (FEED_FORWARD, WIDTH) for name in ("ffn_gate", "ffn_up")},
        f"{own}ffn_down": (WIDTH, FEED_FORWARD),
    }


def finish(writer: gguf.GGUFWriter, shapes: Shapes) -> None:
    """Write the file, with the same random numbers each time."""
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        data = np.ones(shape) if len(shape) == 1 else 0.3 * random.standard_normal(shape)
        writer.add_tensor(f"{name}.weight", data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
