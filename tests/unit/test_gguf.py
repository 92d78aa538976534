"""Reading the head of GGUF files: real ones, ones that the `gguf` package writes, and hostile ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf as package
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.adapters import model_file
from edged.core import gguf
from edged.core.gguf import GgufError, TooShortError, parse
from edged.core.model_shape import shape, why_unfit
from edged.errors import ModelError


def text(value: bytes) -> bytes:
    """A text as it stands in the file."""
    return struct.pack("<Q", len(value)) + value


def head(tensors: int = 0, keys: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    """A file's beginning."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body


def tensor(name: bytes, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """A tensor's entry."""
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A model that looks like a very small Qwen2 with an output matrix of its own, one KV head of 2 a layer."""
    path = tmp_path / "small.gguf"
    writer = package.GGUFWriter(path, "qwen2")
    writer.add_name("Tiny")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_context_length(4096)
    writer.add_chat_template("{{ messages }}" * 100)
    writer.add_token_list([f"t{number}" for number in range(100)])
    writer.add_array("qwen2.figures", [1, 2, 3])
    for name, rows in (("token_embd.weight", 100), ("output.weight", 100), ("blk.0.ffn_up.weight", 256)):
        data = np.zeros((rows, 64 // 32 * 18), dtype=np.uint8)
        writer.add_tensor(name, data, raw_dtype=package.GGMLQuantizationType.Q4_0)
    writer.add_tensor("output_norm.weight", np.zeros(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_written_file(written: Path) -> None:
    """Shape, quantisation, bytes a token and KV cache as the figures in the file give them."""
    found = model_file.read(written).shape
    q4_0 = 36  # bytes of a row of 64
    assert (found.name, found.architecture, found.quantisation) == ("Tiny", "qwen2", "Q4_0")
    assert found.parameters == 64 * (100 + 100 + 256) + 64
    assert found.weight_bytes == q4_0 * 456 + 256
    assert found.bytes_per_token == q4_0 * 356 + 256 + q4_0
    assert found.kv_bytes_per_token == 2 * 2 * 32 * 2
    assert found.kv_bytes(1000, "q8_0") == 136_000
    assert found.context_trained == 4096
    assert found.has_template
    assert model_file.read(written).missing_bytes == 0


def test_a_name_that_would_steer_a_terminal() -> None:
    """`edged doctor` and `edged model list` show what the file says of itself."""
    said = b"\x1b]0;it is well\x07"
    body = text(b"general.name") + struct.pack("<I", 8) + text(said)
    assert parse(head(0, 1, body)).metadata["general.name"] == "\ufffd]0;it is well\ufffd"


def test_a_cut_file_says_how_much_is_missing(written: Path) -> None:
    """A copy that ended early is found without reading the weights."""
    os.truncate(written, written.stat().st_size - 1000)
    assert 900 < model_file.read(written).missing_bytes <= 1000


def test_the_small_model(small_model: Path) -> None:
    """The real model's figures, and its recorded hash."""
    found = model_file.read(small_model)
    assert (found.shape.quantisation, found.shape.architecture) == ("Q4_0", "llama")
    assert found.shape.kv_bytes_per_token == 23_040
    assert found.shape.bytes_per_token == found.shape.weight_bytes  # its embeddings are its output matrix too
    assert found.missing_bytes == 0
    recorded = small_model.with_name(f"{small_model.name}.sha256").read_text().split()[0]
    assert model_file.sha256(small_model) == recorded


def test_types_are_those_of_ggml() -> None:
    """Each type that the package knows has its size here."""
    for kind, (block, size) in package.GGML_QUANT_SIZES.items():
        assert gguf.TYPES[int(kind)] == (kind.name, block, size)


HOSTILE = {
    "another format": b"PK\x03\x04" + b"\0" * 60,
    "empty": b"",
    "old version": head(version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "very many tensors": head(tensors=2**63),
    "very many keys": head(keys=2**40),
    "endless key": head(keys=1, body=struct.pack("<Q", 2**64 - 1) + b"x"),
    "endless text": head(keys=1, body=text(b"k") + struct.pack("<IQ", 8, 2**62)),
    "endless array": head(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 4, 2**61)),
    "array of arrays": head(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 64),
    "unknown value": head(keys=1, body=text(b"k") + struct.pack("<I", 77) + b"\0" * 64),
    "twice the same key": head(keys=2, body=2 * (text(b"k") + struct.pack("<II", 4, 1))),
    "alignment 0": head(keys=1, body=text(b"general.alignment") + struct.pack("<II", 4, 0)),
    "alignment 48": head(keys=1, body=text(b"general.alignment") + struct.pack("<II", 4, 48)),
    "alignment in words": head(keys=1, body=text(b"general.alignment") + struct.pack("<I", 8) + text(b"x")),
    "many dimensions": head(tensors=1, body=text(b"t") + struct.pack("<I", 2**31) + b"\0" * 99),
    "huge rows": head(tensors=1, body=tensor(b"t", (2**63, 2))),
    "product overflows": head(tensors=1, body=tensor(b"t", (2**40, 2**40, 2**40, 2**40))),
    "unknown type": head(tensors=1, body=tensor(b"t", (32,), kind=5)),
    "half a block": head(tensors=1, body=tensor(b"t", (33, 2), kind=2)),
    "far away": head(tensors=1, body=tensor(b"t", (32,), offset=2**63)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(content: bytes, tmp_path: Path) -> None:
    """Each is one error, at once, whatever it claims."""
    with pytest.raises(GgufError):
        parse(content)
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"hostile\.gguf: .+; "):
        model_file.read(path)


def test_no_language_model(tmp_path: Path) -> None:
    """A whole GGUF without layers or tensors is no model to run."""
    for content in (
        head(),
        head(keys=1, body=text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")),
    ):
        with pytest.raises(GgufError):
            shape(parse(content))
    path = tmp_path / "empty.gguf"
    path.write_bytes(head())
    with pytest.raises(ModelError, match="architecture"):
        model_file.read(path)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, ""),
        ({"general.type": "model", "split.count": 1, "qwen3.attention.causal": True}, ""),
        ({"general.type": "adapter"}, "its type is 'adapter'"),
        ({"general.type": "mmproj"}, "its type is 'mmproj'"),
        ({"split.count": 2}, "it is one of 2 parts of a model"),
        ({"split.count": "2"}, "it is one of 2 parts of a model"),
        ({"qwen3.attention.causal": False}, "it is made for embeddings"),
        ({"qwen3.attention.causal": "false"}, "it is made for embeddings"),
        ({"qwen3.pooling_type": 3}, "it is made for embeddings"),
    ],
)
def test_files_that_answer_nothing_by_themselves(told: dict[str, str | int], words: str) -> None:
    """Each is a whole GGUF file, and llama.cpp loads some of them; values as read here and as it tells them."""
    assert why_unfit({"general.architecture": "qwen3", **told}).startswith(words)
    assert bool(why_unfit({"general.architecture": "qwen3", **told})) == bool(words)


def key(name: str, kind: int, value: bytes) -> bytes:
    """A key and its value."""
    return text(f"llama.{name}".encode()) + struct.pack("<I", kind) + value


def figure(name: str, value: int) -> bytes:
    """A key with a count."""
    return key(name, 4, struct.pack("<I", value))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_counts_that_are_no_numbers(number: float) -> None:
    """A damaged or hostile file says so in an array of floats; it was a traceback in `edged doctor`."""
    counts = struct.pack("<IIQ2f", 9, 6, 2, 4.0, number)[4:]
    body = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    body += figure("block_count", 2) + figure("embedding_length", 64)
    body += key("attention.head_count", 9, counts) + key("attention.head_count_kv", 9, counts)
    # An embedding table without dimensions, beside an output matrix.
    tensors = tensor(b"token_embd.weight", ()) + tensor(b"output.weight", (64, 4))
    found = shape(parse(head(2, 5, body + tensors)))
    assert found.kv_bytes_per_token == 2 * (16 + 16) * 4


def test_no_file(tmp_path: Path) -> None:
    """A missing file, a folder and a pipe are told apart from models, and none blocks."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("no.gguf", "", "pipe"):
        with pytest.raises(ModelError):
            model_file.read(tmp_path / name)


@given(st.binary(max_size=400))
@example(head(tensors=1, body=tensor(b"t", ())))
def test_any_bytes_behind_a_good_start(content: bytes) -> None:
    """Nothing but `GgufError` comes out, and never more memory than the bytes hold."""
    for whole in (head(3, 3, content), content):
        try:
            shape(parse(whole))
        except GgufError:
            continue


@given(st.data())
def test_cut_and_changed_heads(data: st.DataObject) -> None:
    """A real head, cut anywhere, asks for more; with bytes changed it is read or refused."""
    good = head(
        1,
        2,
        text(b"general.architecture")
        + struct.pack("<I", 8)
        + text(b"llama")
        + text(b"llama.block_count")
        + struct.pack("<II", 4, 2)
        + tensor(b"blk.0.x.weight", (64, 4), kind=2),
    )
    with pytest.raises(TooShortError):
        parse(good[: data.draw(st.integers(4, len(good) - 1))])
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        shape(parse(bytes(changed)))
    except GgufError:
        return
