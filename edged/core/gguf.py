"""The head of a GGUF file: its metadata and tensors, read from bytes that somebody else made.

Nothing in the file is believed: each length is held against what is left before anything is made of it, counts
have limits, and a wrong file is a `GgufError` with the place; llama.cpp's own parser has been broken that way more
than once (CVE-2025-49847, CVE-2026-27940, CVE-2026-33298). What the head says of the model is `model_shape`'s to
tell. Pure functions over bytes; opening the file is the adapter's.

The form: ggml, docs/gguf.md, versions 2 and 3 (1 had other lengths), little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

KEYS_MAX = 4096
KEY_BYTES_MAX = 256
"""Known keys stay below 80 bytes; the format allows 65535."""
TEXT_BYTES_MAX = 1 << 20
"""Of a single text: chat templates are the longest, a few KiB."""
TEXT_KEPT = 128
TENSORS_MAX = 100_000
ITEMS_MAX = 4_000_000
"""Items of an array: the largest vocabularies have 262 thousand tokens and 500 thousand merges."""
DIMENSIONS_MAX = 4
SIZE_MAX = 1 << 46
ALIGNMENT_DEFAULT, ALIGNMENT_MAX = 32, 1 << 16

MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NUMBERS_KEPT = 512
"""Arrays of numbers are kept up to this length: heads of each layer."""

TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""ggml_type: name, weights in a block, bytes of a block (ggml.h, ggml-common.h)."""

Scalar = int | float | bool | str


def readable(text: str) -> str:
    """A text of the file as it may be shown and sent on: 128 characters, none that steers a terminal."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text[:TEXT_KEPT])


class GgufError(Exception):
    """The bytes are no GGUF file that can be used; the text says what is wrong."""


class TooShortError(GgufError):
    """What was read ends inside the head: with more of the file it may be read."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: its name, dimensions (the first is the row), type as in `TYPES` and place behind the head."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        _, block, block_bytes = TYPES[self.kind]
        return self.weights // block * block_bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a file.

    Attributes:
        metadata: single values; texts as `readable` leaves them.
        numbers: short arrays of numbers.
        tensors: in the file's order.
        data_start: where the tensors' data begins.
    """

    metadata: Mapping[str, Scalar]
    numbers: Mapping[str, tuple[float, ...]]
    tensors: tuple[Tensor, ...]
    data_start: int

    @property
    def file_bytes_needed(self) -> int:
        """Size that the file must have at least: shorter ones were cut."""
        return self.data_start + max((one.offset + one.size_bytes for one in self.tensors), default=0)


class _Bytes:
    """Reads forward through what is there of a file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, size: int) -> int:
        """Step over `size` bytes and return where they begin."""
        if size > len(self.content) - self.at:
            raise TooShortError(f"the file ends inside its head, at byte {len(self.content)}")
        begin, self.at = self.at, self.at + size
        return begin

    def number(self, code: str) -> int | float | bool:
        """A little-endian number."""
        form = struct.Struct(f"<{code}")
        value: int | float | bool = form.unpack_from(self.content, self.take(form.size))[0]
        return value

    def count(self, what: str, limit: int) -> int:
        """An unsigned 64-bit number of things, at most `limit`."""
        found = int(self.number("Q"))
        if found > limit:
            raise GgufError(f"it claims {found} {what}; at most {limit} are believed")
        return found

    def text(self, what: str, limit: int) -> bytes:
        """A text: its length, then its bytes."""
        size = self.count(f"bytes of {what}", limit)
        begin = self.take(size)
        return self.content[begin : begin + size]


def parse(content: bytes) -> Header:
    """Read the head of a file.

    Args:
        content: the file's beginning, as long as one likes.

    Raises:
        TooShortError: the head goes on behind `content`.
        GgufError: it is no GGUF, or claims what cannot be.
    """
    source = _Bytes(content)
    if content[:4] != MAGIC:
        raise GgufError(f"it begins with {content[:4].decode('latin-1')!a}, not with 'GGUF'")
    source.take(4)
    version = int(source.number("I"))
    if version not in (2, 3):
        raise GgufError(f"its version is {version}; 2 and 3 are known (or it is big-endian)")
    tensor_count = source.count("tensors", TENSORS_MAX)
    key_count = source.count("keys", KEYS_MAX)
    metadata: dict[str, Scalar] = {}
    numbers: dict[str, tuple[float, ...]] = {}
    for _ in range(key_count):
        key = source.text("a key", KEY_BYTES_MAX).decode("utf-8", "replace")
        if key in metadata or key in numbers:
            raise GgufError(f"the key {key[:80]!r} stands in it twice")
        _value(source, key, metadata, numbers)
    tensors = tuple(_tensor(source) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", ALIGNMENT_DEFAULT)
    if not isinstance(alignment, int) or not 0 < alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
        raise GgufError(f"its alignment is {alignment!r}, which is no power of two up to {ALIGNMENT_MAX}")
    return Header(metadata, numbers, tensors, -(-source.at // alignment) * alignment)


def _value(
    source: _Bytes, key: str, metadata: dict[str, Scalar], numbers: dict[str, tuple[float, ...]]
) -> None:
    kind = int(source.number("I"))
    if kind == _STRING:
        raw = source.text(key[:80], TEXT_BYTES_MAX)
        metadata[key] = readable(raw[: 4 * TEXT_KEPT].decode("utf-8", "replace"))
    elif kind == _ARRAY:
        _array(source, key, numbers)
    elif kind in _SCALARS:
        metadata[key] = source.number(_SCALARS[kind])
    else:
        raise GgufError(f"the value of {key[:80]!r} has the unknown type {kind}")


def _array(source: _Bytes, key: str, numbers: dict[str, tuple[float, ...]]) -> None:
    kind = int(source.number("I"))
    count = source.count(f"items of {key[:80]!r}", ITEMS_MAX)
    if kind == _STRING:
        for _ in range(count):
            source.take(source.count(f"bytes of an item of {key[:80]!r}", TEXT_BYTES_MAX))
    elif kind in _SCALARS:
        form = struct.Struct(f"<{count}{_SCALARS[kind]}")
        begin = source.take(form.size)
        if count <= _NUMBERS_KEPT:
            numbers[key] = form.unpack_from(source.content, begin)
    else:
        raise GgufError(f"the array {key[:80]!r} holds values of type {kind}; numbers and texts are known")


def _tensor(source: _Bytes) -> Tensor:
    name = source.text("a tensor's name", KEY_BYTES_MAX).decode("utf-8", "replace")
    dimensions = int(source.number("I"))
    if dimensions > DIMENSIONS_MAX:
        raise GgufError(
            f"the tensor {name[:80]!r} claims {dimensions} dimensions; {DIMENSIONS_MAX} are possible"
        )
    shape = tuple(source.count(f"rows of {name[:80]!r}", SIZE_MAX) for _ in range(dimensions))
    kind = int(source.number("I"))
    if kind not in TYPES:
        raise GgufError(f"the tensor {name[:80]!r} has the type {kind}, which is not known here")
    tensor = Tensor(name, shape, kind, source.count(f"bytes before {name[:80]!r}", SIZE_MAX))
    if tensor.weights > SIZE_MAX or (shape and shape[0] % TYPES[kind][1]):
        raise GgufError(f"the tensor {name[:80]!r} claims the impossible shape {shape}")
    return tensor
