"""`calibration.json` in the state folder: read with care, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edged import whole_file
from edged.core import calibration
from edged.core.calibration import Calibration, Key

NAME = "calibration.json"


class UnusableError(Exception):
    """The file is there and cannot be used; the text says why."""


def read(state: Path) -> Calibration | None:
    """What the folder holds; None where there is no such file.

    Raises:
        UnusableError: it cannot be read, is damaged or of another version.
    """
    try:
        descriptor = os.open(state / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
            content = file.read(calibration.FILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnusableError(f"it cannot be read: {error.strerror}") from error
    try:
        return calibration.decode(content or b"")
    except ValueError as error:
        raise UnusableError(str(error)) from error


def try_folder(state: Path) -> None:
    """Make the folder, and see whether `write` may write into it: one that measures takes minutes until then.

    Raises:
        OSError: it may not.
    """
    state.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=state).close()


def write(state: Path, made: Calibration) -> Path:
    """Put it into the folder, so that after a power cut there is the old one or the new one; returns its path.

    It may be read by all: a daemon under another account uses what an operator measured.

    Raises:
        OSError: the folder cannot be written.
    """
    state.mkdir(parents=True, exist_ok=True)
    path, part = state / NAME, state / f"{NAME}.{os.getpid()}.part"
    whole_file.write(path, calibration.encode(made), part=part, mode=0o644)
    return path


def key(
    model: Path, sha256: str | None, board: str | None, cores: tuple[int, ...], gpu_layers: int
) -> Key | None:
    """What a calibration must have been made with to hold now; None where the model cannot be seen."""
    try:
        status = model.stat()
    except OSError:
        return None
    if status.st_size == 0:
        return None
    return Key(
        model_bytes=status.st_size,
        model_mtime_ns=status.st_mtime_ns,
        model_sha256=sha256,
        board=None if board is None else board[:256],
        cores=cores,
        llama_cpp=llama_cpp_version(),
        gpu_layers=gpu_layers,
    )


def llama_cpp_version() -> str:
    """Version of the installed bindings; importing them would load llama.cpp."""
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return "none"


def fitting(state: Path, now: Key) -> tuple[Calibration | None, str | None]:
    """The calibration in the folder if it holds, and otherwise why it does not; two Nones where there is none."""
    try:
        found = read(state)
    except UnusableError as error:
        return None, str(error)
    if found is None:
        return None, None
    reason = calibration.misfit(found.key, now)
    return (found, None) if reason is None else (None, reason)
