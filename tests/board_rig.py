"""The emulated board that the tests under `board/` share: releases for it, playbooks against it, questions to it.

What boots it is a program outside this repository, named by EDGED_BOARD, with the commands `build`, `up`, `down`,
`status` (which names `mqtt HOST:PORT`), `ssh COMMAND`, `push FILE PLACE`, `temp MILLIDEGREES` and `inventory` (an
Ansible inventory with one host). With EDGED_BOARD_KEEP set, a board that is there (running, or its disk) is taken
as it is and left running in the end, so that a file or a test can be run again without an hour of waiting.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_rig import ROOT, Ended, run
from device import Device

FOLDER = ROOT / ".cache" / "board"
KEPT = bool(os.environ.get("EDGED_BOARD_KEEP"))
FIRST, NEXT, BROKEN = "0.2.0", "0.3.0", "0.3.1"
CONTEXT_MAX = 1024
PLAY_S = 3000.0
ANSWER_S = 600.0
FILES_URL = "http://127.0.0.1:8099"
SETTINGS: dict[str, Any] = {
    "engine": {
        "slots": 2,
        "context_max": CONTEXT_MAX,
        "context_min": 512,
        "batch_tokens": 32,
        "hang_s": 600,
    },
    "health": {"interval_s": 2},
}
CUT_BYTES = 40_000_000
"""The board's file server ends its first transfer after so many."""


def output(*command: str, timeout_s: float = PLAY_S, cwd: Path = ROOT) -> str:
    """Run a command; returns what it printed.

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
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def ends_at_once(command: str) -> str:
    """The text of `edged/cli/run.py`, changed so that the daemon ends when it is started."""
    started = "    sys.exit(daemon.run("
    assert started in command, "edged run starts the daemon in another way: look here again"
    return command.replace(started, f"    sys.exit(1)\n{started}")


def release(version: str, *, broken: bool = False) -> None:
    """Pack this commit as another version; a broken one can be installed, but ends when the daemon is started."""
    if KEPT and archive(version).exists():
        return  # the board may have it: a second archive of the same version would be refused
    source = FOLDER / f"source-{version}"
    shutil.rmtree(source, ignore_errors=True)
    packed = FOLDER / "source.tar"
    output("git", "archive", "-o", str(packed), "HEAD")
    with tarfile.open(packed) as tree:
        tree.extractall(source, filter="data")
    about = source / "edged/__init__.py"
    about.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', about.read_text()))
    if broken:
        command = source / "edged/cli/run.py"
        command.write_text(ends_at_once(command.read_text()))
    made = output("bash", "deploy/wheels/build", cwd=source).strip().splitlines()[-1]
    shutil.copy(made, archive(version))
    shutil.rmtree(source)


def archive(version: str) -> Path:
    """Where the release's archive lies."""
    return FOLDER / f"edged-{version}-aarch64.tar"


class Board:
    """The running board.

    Args:
        model: the small model's file.
    """

    def __init__(self, model: Path) -> None:
        self._program = os.environ["EDGED_BOARD"]
        self.model_file = model
        self.model: dict[str, Any] = {
            "file": "small.gguf",
            "url": f"{FILES_URL}/small.gguf",
            "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "size_mb": 100,
        }

    def order(self, *words: str, timeout_s: float = 900.0) -> str:
        """One of the program's commands."""
        return output(self._program, *words, timeout_s=timeout_s)

    def running(self) -> bool:
        """Whether it is up."""
        return subprocess.run([self._program, "status"], check=False, capture_output=True).returncode == 0

    def ssh(self, command: str) -> str:
        """Run a command on the board, as root."""
        return self.order("ssh", command)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Write down how long a step took and whether it went well: a line for `deploy/README.md`."""
        began = time.monotonic()
        how = "failed"
        try:
            yield
            how = "ok"
        finally:
            with (FOLDER / "ran.md").open("a") as ran:
                ran.write(f"| {what} | {time.monotonic() - began:.0f} s | {how} |\n")

    def play(self, playbook: str, version: str, *more: str, **changed: Any) -> Ended:
        """Run a playbook against it; `changed` replaces variables of the inventory."""
        hosts = FOLDER / "hosts.ini"
        told = self.order("inventory")
        hosts.write_text(told.replace("[boards]", "[edged]") + told.replace("[boards]", "[broker]"))
        values: dict[str, Any] = {
            "edged_version": version,
            "edged_archive": str(archive(version)),
            "edged_model": self.model,
            "edged_memory_min_mb": 2500,
            "edged_gate": {"max_tokens": 12},
            "edged_gate_tries": 40,
            "edged_settings": SETTINGS,
        }
        variables = FOLDER / "values.json"
        variables.write_text(json.dumps(values | changed))
        ended = run(
            FOLDER,
            "ansible-playbook",
            "-i",
            str(hosts),
            "-e",
            f"@{variables}",
            playbook,
            *more,
            limit_s=PLAY_S,
        )
        (FOLDER / "last-play.log").write_text(ended.text)
        return ended

    def serve_files(self) -> None:
        """Have the model served on the board itself, which has no way out; the first transfer is cut off."""
        if "small.gguf" not in self.ssh("mkdir -p /srv/files; ls /srv/files"):
            self.order("push", str(self.model_file), "/srv/files/small.gguf")
        self.order("push", str(Path(__file__).parent / "board" / "file_server.py"), "/srv/file_server.py")
        self.ssh("echo other weights > /srv/files/other.gguf; systemctl stop file-server 2>/dev/null; true")
        self.ssh(
            "systemd-run --quiet --unit=file-server --collect"
            f" python3 /srv/file_server.py /srv/files {FILES_URL.rsplit(':', 1)[1]} {CUT_BYTES}"
        )

    def version(self) -> str:
        """Of the release in use; empty without one."""
        return Path(self.ssh("readlink /opt/edged/current || true").strip()).name

    def asked(self, words: str = "Say yes.", *, timeout_s: float = ANSWER_S) -> str:
        """The answer to a question asked on the board, which may still be loading its model."""
        ask = f"/opt/edged/current/bin/edged ask --timeout 300 --max-tokens 12 {json.dumps(words)} 2>&1"
        end = time.monotonic() + timeout_s
        told = ""
        while time.monotonic() < end:
            told = self.ssh(f"{ask}; echo rc=$?")
            if told.rstrip().endswith("rc=0"):
                return told
        raise AssertionError(f"no answer: {told}")

    def health(self) -> dict[str, Any]:
        """What the node says of itself now: the second message, the first may be an old retained one."""
        said = self.ssh("mosquitto_sub -W 60 -t edged/v1/node/+/health -C 2 | tail -n 1")
        return json.loads(said)  # type: ignore[no-any-return]

    def health_when(self, fits: Callable[[dict[str, Any]], bool], limit_s: float = 180.0) -> dict[str, Any]:
        """The first health that fits.

        Raises:
            AssertionError: none came in time; the text has the last one.
        """
        end = time.monotonic() + limit_s
        while not fits(health := self.health()):
            assert time.monotonic() < end, health
        return health

    def cool_down(self) -> None:
        """Set the sensor to 45 C and wait until the node believes it: then nothing is refused any more."""
        self.order("temp", "45000")
        self.health_when(lambda health: health["level"] == "cool" and health["context"] == CONTEXT_MAX)

    def device(self, name: str) -> Device:
        """A device at the board's broker, connected from here."""
        found = re.search(r"mqtt ([\d.]+):(\d+)", self.order("status"))
        assert found is not None, "the program's `status` names no broker"
        node = self.ssh("mosquitto_sub -W 30 -t edged/v1/node/+/status -C 1 -F %t").split("/")[3]
        return Device(found[1], int(found[2]), name, node=node).start()

    def engine_code(self) -> str:
        """Name of the CPU plug-in that the running engine has loaded."""
        maps = self.ssh("cat /proc/$(pgrep -f '[e]dged.engine' | head -n 1)/maps")
        found = set(re.findall(r"libggml-cpu-(\S+)\.so", maps))
        assert len(found) == 1, found
        return str(found.pop())

    def daemon_pid(self) -> int:
        """Of the service; 0 while it is stopped."""
        return int(self.ssh("systemctl show -P MainPID edged"))
