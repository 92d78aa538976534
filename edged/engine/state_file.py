"""One state of a KV stream as a file: whose it is, the tokens in it, the state, and a hash over all of them.

llama.cpp trusts a state blindly, so nothing reaches it that is not, byte for byte, what it gave us. A file
appears whole or not at all, and is its owner's alone (0600): a state could be turned back into its prompt.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from edged import whole_file
from edged.errors import DECODE_ERRORS

SUFFIX, UNFINISHED = ".kv", ".tmp"

_HEAD = struct.Struct("<8sI")
_MAGIC = b"edgedkv1"
_HEADER_BYTES_MAX = 1 << 20  # 131072 tokens of 4 bytes, and some


class UnfitError(Exception):
    """The file is none of ours, or damaged; the text says which."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the state: whose it is, its tokens (4 bytes each, little endian), its size and hash."""

    key: str
    packed: bytes
    size: int
    sha256: bytes

    @property
    def tokens(self) -> list[int]:
        """The tokens in the stream."""
        return list(struct.unpack(f"<{len(self.packed) // 4}I", self.packed))


def name_of(tokens: Sequence[int]) -> str:
    """The file's name: the same tokens, the same file."""
    return hashlib.sha256(_packed(tokens)).hexdigest()[:32] + SUFFIX


def look(path: Path) -> tuple[Header, int]:
    """The header of a file, and the size of it all; its state is not looked at.

    Raises:
        UnfitError: it is no whole file of ours.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _header(file), os.fstat(file.fileno()).st_size


def read(path: Path, key: str, tokens: Sequence[int]) -> bytearray:
    """The state in a file, which is to be of this model and these tokens.

    Raises:
        UnfitError, OSError: as `look`.
    """
    with path.open("rb") as file:
        header = _header(file)
        if (header.key, header.packed) != (key, _packed(tokens)):
            raise UnfitError("it is another one by now")
        state = bytearray(header.size)
        if file.readinto(state) != header.size or _digest(header, state) != header.sha256:
            raise UnfitError("it is damaged")
    return state


def write(path: Path, key: str, tokens: Sequence[int], state: bytearray) -> int:
    """Write a file; returns its size. OSError: the disk does not take it, and nothing is left of it."""
    header = Header(key, _packed(tokens), len(state), b"")
    head = msgspec.msgpack.encode(msgspec.structs.replace(header, sha256=_digest(header, state)))
    place(path, _HEAD.pack(_MAGIC, len(head)), head, state)
    return _HEAD.size + len(head) + len(state)


def place(path: Path, *parts: bytes | bytearray) -> None:
    """Make a file with these contents appear whole, or not at all."""
    whole_file.write(path, *parts, part=path.with_suffix(UNFINISHED))


def _header(file: BinaryIO) -> Header:
    head = file.read(_HEAD.size)
    magic, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0)
    if magic != _MAGIC or size > _HEADER_BYTES_MAX:
        raise UnfitError("it is no file of ours")
    try:
        header = msgspec.msgpack.decode(file.read(size), type=Header)
    except DECODE_ERRORS as error:
        raise UnfitError("it is damaged") from error
    if len(header.packed) % 4 or os.fstat(file.fileno()).st_size != file.tell() + header.size:
        raise UnfitError("it is damaged")
    return header


def _packed(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}I", *tokens)


def _digest(header: Header, state: bytearray) -> bytes:
    digest = hashlib.sha256(header.key.encode())
    digest.update(header.packed)
    digest.update(state)
    return digest.digest()
