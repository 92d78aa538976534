"""The set-up of a machine, with stand-ins for apt-get and sudo: what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
"""setpriv(1): takes root's right to write everything from a program."""
FOREIGN = "#!/bin/sh\nexit 0\n"


def wait_until(holds: Callable[[], bool]) -> None:
    """Look again and again, and give up after a while."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("closed", ["", ".cache/edged", ".cache/edged/wheels", ".cache/edged/models"])
def test_a_home_that_cannot_be_written(closed: str, tmp_path: Path) -> None:
    """The cache is the checkout's then: with root's folders of an earlier run in a home no model could be kept."""
    home, root = tmp_path / "home", tmp_path / "checkout"
    (home / closed).mkdir(parents=True)
    found = [
        "bash",
        "-euc",
        '. "$1/deploy/setup.sh"; find_home; echo "${XDG_CACHE_HOME:-home}"',
        "bash",
        str(ROOT),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "root": str(root)}
    for mode, place in ((0o555, root / ".cache"), (0o755, "home")):
        (home / closed).chmod(mode)
        told = subprocess.check_output([*WITHOUT_PRIVILEGE, *found], env=environment, text=True)
        assert told == f"{place}\n"


class Machine:
    """A machine on which packages can be installed, with a policy-rc.d of its own.

    Args:
        folder: existing, empty.
        install: what its `apt-get install` does, in sh.
    """

    def __init__(self, folder: Path, install: str) -> None:
        self.policy = folder / "policy-rc.d"
        programs = folder / "bin"
        programs.mkdir()
        for name, script in (
            ("apt-get", f'case "$*" in *install*) {install} ;; esac'),
            ("sudo", 'exec "$@"'),
        ):
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        self._environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "root": str(ROOT)}

    def start(self) -> subprocess.Popen[str]:
        """Begin to install a package, as a shell on a terminal would: in a process group of its own."""
        script = 'set -euo pipefail; . "$root/deploy/setup.sh"; policy=$1; install_packages g++'
        command = ["env", "--default-signal=HUP,INT,TERM", "bash", "-c", script, "bash", str(self.policy)]
        return subprocess.Popen(
            command, env=self._environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )


def test_services_stay_off_while_packages_are_installed(tmp_path: Path) -> None:
    """A policy-rc.d forbids it (invoke-rc.d(8): 101), and is gone afterwards."""
    asked = tmp_path / "asked"
    machine = Machine(tmp_path, f"sh {tmp_path}/policy-rc.d || echo $? >{asked}")
    running = machine.start()
    _, said = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0, said
    assert asked.read_text() == "101\n"
    assert not machine.policy.exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_installation(tmp_path: Path, name: str) -> None:
    """Ctrl-C, a closed terminal: what forbids services goes, else no package would start its own from then on."""
    begun = tmp_path / "begun"
    # Without a child: one that dash is about to start while the signal comes does not get it, and would sleep on.
    machine = Machine(tmp_path, f": >{begun}; exec sleep 60")
    running = machine.start()
    try:
        wait_until(begun.exists)
        assert machine.policy.exists()
        os.killpg(running.pid, signal.Signals[name])
        running.communicate(timeout=WAIT_S)
        assert running.returncode != 0
        wait_until(lambda: not machine.policy.exists())  # bash may be gone before the shell that it started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


SLEEPER = """import pathlib, sys, time
pathlib.Path(sys.argv[1]).touch()
try:
    time.sleep(60)
except KeyboardInterrupt:  # as pip does
    sys.exit("ERROR: Operation cancelled by user")
"""


@pytest.mark.parametrize("step", ['quietly "a step" $run', 'wheel="$($run 2>/dev/null)" || exit 1'])
def test_a_set_up_that_is_interrupted(step: str, tmp_path: Path) -> None:
    """Ctrl-C is told as such, whatever the program made of it that ran: it was "this step failed", and code 1."""
    begun, sleeper = tmp_path / "begun", tmp_path / "sleeper.py"
    sleeper.write_text(SLEEPER)
    (tmp_path / ".cache").mkdir()
    script = f"""set -euo pipefail; . "$1/deploy/setup.sh"; run="$python $root/sleeper.py $root/begun"
        missing_packages() {{ packages=(); }}; install_edged() {{ {step}; }}; set_up demo; say done"""
    running = subprocess.Popen(
        ["env", "--default-signal=INT", "bash", "-c", script, "bash", str(ROOT)],
        env=os.environ | {"root": str(tmp_path), "HOME": str(tmp_path), "python": sys.executable},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(begun.exists)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=WAIT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert (running.returncode, said.splitlines()[-1]) == (130, "edged: interrupted")
    assert "failed" not in said


@pytest.mark.parametrize("ours", [False, True])
def test_a_policy_that_is_there(tmp_path: Path, *, ours: bool) -> None:
    """Somebody else's is left alone; our own, left by a power cut, is taken away."""
    machine = Machine(tmp_path, "true")
    machine.policy.write_text(FOREIGN + "# of deploy/setup.sh of edged\n" * ours)
    running = machine.start()
    _, said = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0, said
    assert machine.policy.exists() != ours
