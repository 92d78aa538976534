"""What the head of a GGUF file says of its model: whether it can answer, its quantisation, what it takes of memory.

Pure; the head itself is read by `edged.core.gguf`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edged.core.gguf import TYPES, GgufError, Header, Scalar

KV_BITS: Mapping[str, float] = {"f16": 16.0, "q8_0": 8.5}
"""Bits of one number in the KV cache: q8_0 has a scale for each 32 (ggml-common.h)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The figures of a model that matter for memory and speed.

    Attributes:
        name: the file's own, or "".
        architecture: `qwen2`, `llama`, ...
        quantisation: type of most of the weights by bytes, embeddings left out; `Q4_0`.
        parameters: weights.
        weight_bytes: of all tensors.
        bytes_per_token: read from memory to compute one token: all weights but the rows of an embedding table
            that is not the output matrix too; of mixtures the experts that are used.
        kv_bytes_per_token: of an f16 KV cache.
        context_trained: tokens; None where the file does not say.
        has_template: whether it brings a chat template.
    """

    name: str
    architecture: str
    quantisation: str
    parameters: int
    weight_bytes: int
    bytes_per_token: int
    kv_bytes_per_token: int
    context_trained: int | None
    has_template: bool

    def kv_bytes(self, tokens: int, kv_type: str) -> int:
        """Bytes of a KV cache for so many tokens."""
        return int(self.kv_bytes_per_token * tokens * KV_BITS[kv_type] / KV_BITS["f16"])


def why_unfit(metadata: Mapping[str, Scalar]) -> str:
    """Why a file answers no question by itself, whole as it may be; "" where nothing speaks against it.

    Args:
        metadata: single values, as here or as llama.cpp writes them out.
    """

    def said(key: str) -> str:
        return str(metadata.get(key, "")).lower()

    kind, parts, own = said("general.type"), said("split.count"), said("general.architecture")
    if kind not in {"", "model"}:  # gguf-py's GGUFType: adapter, imatrix, mmproj
        return f"its type is {kind[:20]!a}, not 'model'"
    if parts not in {"", "0", "1"}:
        return (
            f"it is one of {parts[:20]} parts of a model, and only a single file can be verified: join them "
            "(llama-gguf-split --merge), or take a model in one file"
        )
    if said(f"{own}.attention.causal") == "false" or said(f"{own}.pooling_type") not in {"", "0"}:
        return "it is made for embeddings and writes no text"
    return ""


def shape(header: Header) -> Shape:
    """What a head says of memory and speed.

    Raises:
        GgufError: it describes no language model.
    """
    if unfit := why_unfit(header.metadata):
        raise GgufError(unfit)
    architecture = header.metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise GgufError("it names no architecture (general.architecture)")
    layers = _figure(header, f"{architecture}.block_count", 1 << 12)
    embedding = _figure(header, f"{architecture}.embedding_length", 1 << 20)
    heads = _figure(header, f"{architecture}.attention.head_count", 1 << 12)
    if not layers or not embedding or not heads or not header.tensors:
        raise GgufError("it lacks the figures of a language model (layers, embedding, heads, tensors)")
    per_head = embedding // heads
    key = _figure(header, f"{architecture}.attention.key_length", 1 << 16) or per_head
    value = _figure(header, f"{architecture}.attention.value_length", 1 << 16) or per_head
    weights = [one for one in header.tensors if len(one.shape) > 1]
    by_kind = Counter[int]()
    for one in weights:
        if not one.name.startswith(("token_embd.", "output.")):
            by_kind[one.kind] += one.size_bytes
    most = max(by_kind, key=by_kind.__getitem__, default=weights[0].kind if weights else 0)
    trained = _figure(header, f"{architecture}.context_length", 1 << 30)
    return Shape(
        name=str(header.metadata.get("general.name", "")),
        architecture=architecture,
        quantisation=TYPES[most][0],
        parameters=sum(one.weights for one in header.tensors),
        weight_bytes=sum(one.size_bytes for one in header.tensors),
        bytes_per_token=_bytes_per_token(header, architecture),
        kv_bytes_per_token=2 * (key + value) * _kv_heads(header, architecture, layers, heads),
        context_trained=trained or None,
        has_template=bool(header.metadata.get("tokenizer.chat_template")),
    )


def _bytes_per_token(header: Header, architecture: str) -> int:
    tied = all(one.name != "output.weight" for one in header.tensors)
    experts = _figure(header, f"{architecture}.expert_count", 1 << 12)
    used = _figure(header, f"{architecture}.expert_used_count", 1 << 12)
    total = 0
    for one in header.tensors:
        if one.name == "token_embd.weight" and not tied:
            total += one.size_bytes // max((1, *one.shape[-1:]))  # one row of it
        elif "_exps." in one.name and 0 < used <= experts:
            total += one.size_bytes * used // experts
        else:
            total += one.size_bytes
    return total


def _kv_heads(header: Header, architecture: str, layers: int, heads: int) -> int:
    """Key-value heads of all layers together; some models name a number for each."""
    name = f"{architecture}.attention.head_count_kv"
    each = header.numbers.get(name)
    if each is not None:
        return sum(count for count in _whole(each) if 0 <= count <= heads)
    return layers * (_figure(header, name, 1 << 12) or heads)


def _figure(header: Header, name: str, limit: int) -> int:
    """A count in the metadata, the largest where each layer has its own; 0 where there is none within the limit."""
    each = header.numbers.get(name)
    found = header.metadata.get(name, 0) if each is None else max(_whole(each), default=0)
    return found if isinstance(found, int) and 0 < found <= limit else 0


def _whole(numbers: Sequence[float]) -> list[int]:
    """An array's numbers as integers, without those that are infinite or not a number."""
    return [int(number) for number in numbers if math.isfinite(number)]
