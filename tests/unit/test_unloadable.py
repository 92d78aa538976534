"""A build of llama.cpp that lacks a library, as one for Vulkan lacks libvulkan.so.1: told with what to install."""

from __future__ import annotations

import importlib.util
import queue
import shutil
from pathlib import Path

import pytest
from configured import configured

from edged.core.board import Board
from edged.core.checks import board as board_checks
from edged.core.checks.board import Library
from edged.core.unloadable import why
from edged.engine.client import EngineClient, EngineGone, EngineSaid
from edged.engine.messages import LoadFailed
from edged.engine.trial_client import describe
from edged.errors import EngineError

VULKAN = "libvulkan.so.1: cannot open shared object file: No such file or directory"


@pytest.fixture
def incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed llama.cpp without libggml, for processes that start from now on."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    (tmp_path / "llama_cpp" / "lib").mkdir(parents=True)
    for file in package.glob("*.py"):
        (tmp_path / "llama_cpp" / file.name).symlink_to(file)
    shutil.copyfile(package / "lib" / "libllama.so", tmp_path / "llama_cpp" / "lib" / "libllama.so")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (VULKAN, "libvulkan.so.1 is missing; sudo apt-get install libvulkan1, then start edged again"),
        (VULKAN.replace("vulkan", "cuda"), "libcuda.so.1 is missing; install the package that holds it"),
        ("/x/libllama.so: undefined symbol: f", "/x/libllama.so: undefined symbol: f; compile it"),
    ],
)
def test_words(said: str, told: str) -> None:
    """What is missing, then what to do."""
    assert why(said).startswith(told)


def test_the_doctor() -> None:
    """It names the package in place of another build."""
    reason = f"llama.cpp cannot be loaded: {why(VULKAN)}"
    verdict = board_checks.instructions(Board(), Library(None, reason))
    assert (verdict.state, verdict.words) == ("failure", "it cannot be loaded: libvulkan.so.1 is missing")
    assert verdict.mend == "sudo apt-get install libvulkan1, then start edged again"
    verdict = board_checks.instructions(Board(), Library(None, "no such module"))
    assert (verdict.words, verdict.mend) == (
        "it cannot be loaded: no such module",
        board_checks.INSTALL_AGAIN,
    )


@pytest.mark.usefixtures("incomplete")
def test_the_engine_says_so() -> None:
    """In place of a traceback and an exit code, once and not at each of many starts."""
    told: queue.SimpleQueue[EngineSaid | EngineGone] = queue.SimpleQueue()
    client = EngineClient(told.put)
    client.start(configured(batch_tokens=16))
    said, gone = told.get(timeout=60), told.get(timeout=60)
    client.stop(10.0)
    assert isinstance(said, EngineSaid)
    assert isinstance(said.report, LoadFailed)
    assert said.report.reason.startswith("llama.cpp cannot be loaded: libggml.so is missing; install")
    assert isinstance(gone, EngineGone)
    assert gone.code == 0


@pytest.mark.usefixtures("incomplete")
def test_the_measuring_process_says_so() -> None:
    """The same to calibrate, bench and the doctor."""
    with pytest.raises(EngineError, match=r"^llama\.cpp cannot be loaded: libggml\.so is missing; "):
        describe()
