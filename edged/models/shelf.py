"""The shelf: model files in one folder, each with its SHA-256 beside it, and the link that says which is in use.

A file stands on the shelf whole and verified or not at all; a name is only ever replaced in one step.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edged import whole_file
from edged.adapters import model_file
from edged.core.model_shape import Shape
from edged.errors import ModelError
from edged.models.fetch import PAUSE_S, Progress, discard, fetch, need
from edged.models.quantising import quantise
from edged.small_file import mark

CURRENT = "current.gguf"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,126}\.gguf")
MADE_BYTES_MAX = 6.5625 / 8
"""Of a parameter, in a file made into Q4_0: the largest tensor of it that llama.cpp makes is of Q6_K."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Model:
    """A model on the shelf.

    Attributes:
        sha256: as recorded when it came; None where nothing was.
        shape: what the file's head says; None where it cannot be read, and `fault` says why.
        in_use: the link points to it.
    """

    name: str
    bytes: int
    sha256: str | None
    shape: Shape | None
    fault: str | None
    in_use: bool


class Shelf:
    """The models of one folder.

    Args:
        folder: made when the first model is added.
        pause_s: see `fetch`.
    """

    def __init__(self, folder: Path, pause_s: float = PAUSE_S) -> None:
        self.folder = folder
        self._pause_s = pause_s

    def models(self) -> list[Model]:
        """All models, by name.

        Raises:
            ModelError: the folder cannot be read.
        """
        try:
            # Not by glob, which from Python 3.13 on passes over what it may not read.
            paths = [
                path for path in self.folder.iterdir() if path.suffix == ".gguf" and not path.is_symlink()
            ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ModelError(f"{self.folder}: {error.strerror}") from error
        return [self._model(path.name) for path in sorted(paths)]

    def add(
        self,
        source: str,
        progress: Progress,
        *,
        name: str | None = None,
        sha256: str | None = None,
        to_q4_0: bool = False,
        waits: Callable[[], None] = lambda: None,
    ) -> Model:
        """Bring a model, verify it, put it on the shelf.

        Args:
            source: URL or path.
            progress: told as it goes.
            name: file name on the shelf; the source's own without it.
            sha256: what the source must hash to.
            to_q4_0: quantise to Q4_0; the source is not kept.
            waits: called where another model is being added, which comes first.

        Raises:
            ModelError: it cannot be had, is not what it should be, or the name is taken.
        """
        name = _name(name or source.rpartition("/")[2].partition("?")[0])
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise ModelError(f"{sha256!r} is no SHA-256: give 64 hexadecimal digits, small letters")
        target, part = self.folder / name, self.folder / f".{name}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(waits):
                if target.exists():
                    discard(part)
                    raise ModelError(f"{name} stands on the shelf already; remove it first, or give a --name")
                digest = fetch(source, part, progress, pause_s=self._pause_s)
                if sha256 is not None and digest != sha256:
                    discard(part)
                    raise ModelError(f"{source}: its SHA-256 is {digest}, {sha256} was asked for: not kept")
                shape = _check_whole(source, part)
                finished = part
                if to_q4_0:  # beside the part: an interruption from here on must find that as it was brought
                    need(self.folder, int(shape.parameters * MADE_BYTES_MAX))
                    finished, digest = _quantise(part)
                _sync(finished)
                # The hash first: a model without its own beside it would look unverified.
                record = self._record(name)
                new = record.with_name(f".{record.name}.new")
                whole_file.write(record, f"{digest}  {name}\n".encode(), part=new, mode=0o644)
                finished.replace(target)
                discard(part)
        except OSError as error:
            raise ModelError(f"{error.filename or self.folder}: {error.strerror}") from error
        return self._model(name)

    def verify(self, name: str) -> bool:
        """Whether a model still hashes to what was recorded.

        Raises:
            ModelError: there is no such model, or no record.
        """
        model = self.model(name)
        if model.sha256 is None:
            raise ModelError(f"{name}: no hash was recorded; add it again with edged model add")
        return model_file.sha256(self.folder / name) == model.sha256

    def use(self, name: str) -> None:
        """Point the link at a model, after verifying it.

        Raises:
            ModelError: there is no such model, or it is damaged.
        """
        path, link = self.folder / name, self.folder / f".{CURRENT}.new"
        try:
            before = mark(path)
            if not self.verify(name):
                raise ModelError(
                    f"{name}: the file has changed since it was added; remove it and add it again"
                )
            with self._choice():
                if mark(path) != before:
                    raise ModelError(f"{name} was removed or replaced meanwhile: see edged model list")
                link.unlink(missing_ok=True)
                link.symlink_to(name)
                link.replace(self.folder / CURRENT)
        except OSError as error:
            raise ModelError(f"{self.folder}: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Take a model off the shelf.

        Raises:
            ModelError: there is no such model, or it is in use.
        """
        self.model(name)
        try:
            with self._choice():
                if self.model(name).in_use:
                    raise ModelError(f"{name} is in use; choose another one with edged model use first")
                (self.folder / name).unlink()
                self._record(name).unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"{error.filename}: {error.strerror}") from error

    def model(self, name: str) -> Model:
        """One model.

        Raises:
            ModelError: there is none of that name.
        """
        found = [each for each in self.models() if each.name == name]
        if not found:
            names = ", ".join(each.name for each in self.models()) or "none"
            raise ModelError(f"no model {name} in {self.folder}; there are: {names}")
        return found[0]

    def _model(self, name: str) -> Model:
        path = self.folder / name
        shape, fault = None, None
        try:
            read = model_file.read(path)
            shape = read.shape
            fault = f"{read.missing_bytes} bytes are missing at its end" if read.missing_bytes else None
        except ModelError as error:
            fault = str(error)
        try:
            words = self._record(name).read_text("utf-8", "replace").split()
        except OSError:
            words = []
        known = words[0] if words and _SHA256.fullmatch(words[0]) else None
        link = self.folder / CURRENT
        in_use = link.is_symlink() and link.readlink().name == name
        return Model(name, path.stat().st_size, known, shape, fault, in_use)

    def _record(self, name: str) -> Path:
        """As `sha256sum --check` reads it."""
        return self.folder / f"{name}.sha256"

    @contextmanager
    def _lock(self, waits: Callable[[], None]) -> Iterator[None]:
        """One model is added at a time."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.folder / ".lock", flags, 0o644), "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _choice(self) -> Iterator[None]:
        """What is in use, and is there to be used, does not change meanwhile: the folder itself is locked."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _name(name: str) -> str:
    if not _NAME.fullmatch(name) or name == CURRENT:
        raise ModelError(f"{name!r} is no name for a model: give a --name of letters, digits, _.+- and .gguf")
    return name


def _check_whole(source: str, part: Path) -> Shape:
    try:
        found = model_file.read(part)
    except ModelError as error:
        discard(part)
        raise ModelError(f"{source} is no model in GGUF: {str(error).removeprefix(f'{part}: ')}") from error
    if found.missing_bytes:
        discard(part)
        raise ModelError(
            f"{source}: {found.missing_bytes} bytes are missing at its end; it was cut where it comes from"
        )
    return found.shape


def _quantise(part: Path) -> tuple[Path, str]:
    """Make Q4_0 of the part; returns the new file and its hash."""
    made = part.with_name(f"{part.name}.q4_0")
    quantise(part, made)
    return made, model_file.sha256(made)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
