"""The model's file as a file: its head, its size, its hash. llama.cpp is not asked.

Runs in the command line's process. What the head says of the model is `edged.core.model_shape`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edged.core import gguf, model_shape
from edged.errors import ModelError

HEAD_BYTES = (1 << 20, 1 << 24, 1 << 27)
"""How much of a file is read to find its head whole: vocabularies take 2 to 30 MiB."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that can be read.

    Attributes:
        path, bytes: the file.
        shape: what its head says.
        missing_bytes: how much of it was cut off; 0 for a whole file.
    """

    path: Path
    bytes: int
    shape: model_shape.Shape
    missing_bytes: int


def read(path: Path) -> ModelFile:
    """Read the head of a model file.

    Raises:
        ModelError: it is not there, or no model; one sentence that says what to do.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for ever
        with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path}: this is no regular file; set model.path to a model in GGUF")
            header = _header(lambda size: (file.seek(0), file.read(size))[1])
        shape = model_shape.shape(header)
    except OSError as error:
        raise ModelError.unread(path, error) from error
    except gguf.GgufError as error:
        raise ModelError(
            f"{path}: {error}; set model.path to a whole model in GGUF, or copy this one again"
        ) from error
    missing = max(0, header.file_bytes_needed - status.st_size)
    return ModelFile(path, status.st_size, shape, missing)


def _header(beginning: Callable[[int], bytes]) -> gguf.Header:
    for size in HEAD_BYTES[:-1]:
        try:
            return gguf.parse(beginning(size))
        except gguf.TooShortError:
            continue
    return gguf.parse(beginning(HEAD_BYTES[-1]))


def sha256(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Hash a file; `progress` is told the bytes done.

    Raises:
        ModelError: it cannot be read.
    """
    digest = hashlib.sha256()
    done = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                progress(done)
    except OSError as error:
        raise ModelError.unread(path, error) from error
    return digest.hexdigest()
