"""The whole rollout on an emulated board: slow (about an hour on two cores), so `bash tests/run --board` only.

Needs a program that boots an arm64 Debian, named by EDGED_BOARD, with the commands `build`, `up`, `down`,
`ssh COMMAND`, `temp MILLIDEGREES` and `inventory`; the last prints an Ansible inventory with one host. Each test
goes on with the board as the one before left it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_rig import ANSIBLE, ROOT

pytestmark = [
    pytest.mark.board,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(
        "EDGED_BOARD" not in os.environ, reason="set EDGED_BOARD to the program that boots a board"
    ),
]
PLAY_S = 3000.0
BROKEN = "0.2.1"


def output(*command: str, timeout_s: float = PLAY_S, cwd: Path = ROOT) -> str:
    """Run a command; returns all that it said.

    Raises:
        AssertionError: it failed.
    """
    ended = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


class Board:
    """The running board.

    Args:
        folder: for inventory and releases.
        model: sent to the board.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self._program = os.environ["EDGED_BOARD"]
        self._folder = folder
        self._model = model

    def order(self, *words: str, timeout_s: float = 900.0) -> str:
        """One of the program's commands."""
        return output(self._program, *words, timeout_s=timeout_s)

    def ssh(self, command: str) -> str:
        """Run a command on the board, as root."""
        return self.order("ssh", command)

    def play(
        self, playbook: str, version: str, *more: str, tries: int = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook against it."""
        hosts = self._folder / "hosts.ini"
        hosts.write_text(self.order("inventory").replace("[boards]", "[edged]"))
        model = {"file": "small.gguf", "src": str(self._model), "size_mb": 100}
        model["sha256"] = hashlib.sha256(self._model.read_bytes()).hexdigest()
        values: dict[str, Any] = {
            "edged_version": version,
            "edged_archive": str(self._folder / f"edged-{version}-aarch64.tar"),
            "edged_model": model,
            "edged_memory_min_mb": 2500,
            "edged_gate": {"max_tokens": 24},
            "edged_gate_tries": tries,
            "edged_settings": {
                "engine": {
                    "slots": 2,
                    "context_max": 1024,
                    "context_min": 512,
                    "batch_tokens": 32,
                    "hang_s": 600,
                },
                "health": {"interval_s": 2},
            },
        }
        variables = self._folder / "values.json"
        variables.write_text(json.dumps(values))
        return subprocess.run(
            ["ansible-playbook", "-i", str(hosts), "-e", f"@{variables}", playbook, *more],
            check=False, capture_output=True, text=True, timeout=PLAY_S, cwd=ANSIBLE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def answers(self) -> bool:
        """Whether a question asked on the board is answered."""
        ask = "/opt/edged/current/bin/edged ask --timeout 300 --max-tokens 16 'Say yes.'"
        end = time.monotonic() + 600
        while time.monotonic() < end:
            if "rc=0" in self.ssh(f"{ask} >/dev/null 2>&1; echo rc=$?"):
                return True
        return False


def release(folder: Path, version: str, *, broken: bool = False) -> None:
    """Pack this checkout as another version; a broken one ends when it is started."""
    source = folder / f"source-{version}"
    archive = folder / "source.tar"
    output("git", "archive", "-o", str(archive), "HEAD")
    with tarfile.open(archive) as tree:
        tree.extractall(source, filter="data")
    about = source / "edged/__init__.py"
    about.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', about.read_text()))
    if broken:
        command = source / "edged/cli/run.py"
        command.write_text(command.read_text() + "\n\nraise SystemExit(1)\n")
    made = output("bash", "deploy/wheels/build", cwd=source).strip().splitlines()[-1]
    shutil.copy(made, folder)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Board]:
    """A pristine board, booted, and two releases for it."""
    folder = tmp_path_factory.mktemp("board")
    release(folder, "0.2.0")
    release(folder, BROKEN, broken=True)
    made = Board(folder, small_model)
    made.order("build", timeout_s=1800)
    made.order("up")
    yield made
    made.order("down")


def test_from_bare_to_answering(board: Board) -> None:
    """site.yml installs it; it runs on the right cores with the right code; the play has its answer."""
    ended = board.play("site.yml", "0.2.0")
    assert ended.returncode == 0, ended.stdout
    assert board.ssh("systemctl is-active edged").strip() == "active"
    assert "DOTPROD = 1" in board.ssh("cat /opt/edged/current/cpu.txt")
    engine = board.ssh("taskset -cp $(pgrep -f 'edged.engine' | head -n 1)")
    assert engine.strip().endswith(": 2,3")
    daemon = board.ssh("taskset -cp $(systemctl show -P MainPID edged)")
    assert daemon.strip().endswith(": 0,1")


def test_a_second_run_changes_nothing(board: Board) -> None:
    """Neither does check mode find anything to change."""
    for more in ((), ("--check",)):
        ended = board.play("site.yml", "0.2.0", *more)
        assert ended.returncode == 0, ended.stdout
        assert re.search(r"changed=0 ", ended.stdout)


def test_heat_is_seen(board: Board) -> None:
    """The sensor's temperature stands in health, and the level follows."""
    board.order("temp", "60000", "90000")
    read = "mosquitto_sub -W 60 -t 'edged/v1/node/+/health' -C 3 | tail -n 1"
    hot = board.ssh(read)
    board.order("temp", "45000")
    assert re.search(r'"temp_c":(8[5-9]|90)', hot), hot


def test_kill_and_restart(board: Board) -> None:
    """It comes back by itself from kill -9, and from a restart, and answers."""
    board.ssh("systemctl kill --signal=KILL --kill-whom=main edged")
    assert board.answers()
    board.ssh("systemctl restart edged")
    assert board.answers()


def test_a_broken_release_is_put_back(board: Board) -> None:
    """update.yml fails with a sentence, and the node answers as before."""
    ended = board.play("update.yml", BROKEN, tries=10)
    assert ended.returncode != 0
    assert "The node is back at 0.2.0 and answers" in ended.stdout
    assert board.ssh("readlink /opt/edged/current").strip() == "releases/0.2.0"
    assert board.answers()
