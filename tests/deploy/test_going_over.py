"""The role goes over on this machine, in a namespace with folders of its own; its releases are shell scripts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_rig import Ended, inventory, run

ISOLATED = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
SPACE = """
for place in /etc /usr/local; do
    mkdir -p "{folder}/work$place" "{folder}/board$place"
    mount -t overlay none -o "lowerdir=$place,upperdir={folder}/board$place,workdir={folder}/work$place" "$place"
done
export PLAY=$$
exec "$@"
"""
SYSTEMCTL = """#!/bin/sh
case "$*" in
*show*) [ -e {runs} ] && is=active || is=inactive; printf "LoadState=loaded\\nActiveState=$is\\n" ;;
*stop*) rm {runs} ;;
*start*) readlink -f "$(sed -n s/^ExecStart=//p /etc/systemd/system/edged.service)" >{runs} ;;
esac
"""
RELEASE = """#!/bin/sh
[ "$1" = ask ] || exit 0
if grep -q interrupt /etc/edged/edged.toml; then kill -INT $PLAY; sleep 2; fi
grep -q good /etc/edged/edged.toml && echo Paris
"""
"""Answers by settings that hold the word `good`; by others that hold `interrupt` the operator presses Ctrl-C."""


SETTINGS = '[model]\npath = "{home}/models/before.gguf"\nname = "{word}"\n'


class Going:
    """A board with releases 0.1.0, in use, and 0.2.0. It is this machine; what the role writes lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "opt"
        self.etc = folder / "board/etc"
        for version in ("0.1.0", "0.2.0"):
            release = self.home / "releases" / version
            (release / "bin").mkdir(parents=True)
            (release / f"lib/python{sys.version_info.major}.{sys.version_info.minor}").mkdir(parents=True)
            (release / ".complete").write_text("sum\n")
            (release / "edged.service").write_text(f"[Service]\nExecStart={self.home}/current/bin/edged\n")
            (release / "bin/edged").write_text(RELEASE)
            (release / "bin/edged").chmod(0o755)
        self.link(current="0.1.0")
        for place in ("etc/edged", "etc/credstore", "etc/systemd/system", "usr/local/bin"):
            (folder / "board" / place).mkdir(parents=True)
        shutil.copy(self.home / "current/edged.service", self.etc / "systemd/system")
        (folder / "runs").write_text(f"{self.home}/releases/0.1.0/bin/edged\n")
        (self.etc / "edged/edged.toml").write_text(self.settings("good"))
        (self.etc / "credstore/edged.mqtt_password").write_text("first")
        (folder / "board/usr/local/bin/edged").symlink_to(self.home / "current/bin/edged")
        (self.home / "models").mkdir()
        programs = folder / "bin"
        programs.mkdir()
        (programs / "systemctl").write_text(SYSTEMCTL.format(runs=folder / "runs"))
        (programs / "systemctl").chmod(0o755)
        (programs / "python3").symlink_to(sys.executable)

    def go(self, version: str, word: str, *, tasks: str = "apply", **values: Any) -> Ended:
        """Go over to a release with settings that hold this word."""
        everywhere: dict[str, Any] = {
            "edged_version": version,
            "edged_home": str(self.home),
            "edged_model": self.model("m.gguf"),
            "edged_bound_journal": False,
            "edged_gate_tries": 1,
            "edged_settings": {"model": {"name": word}},
            **values,
        }
        steps = [{"ansible.builtin.include_role": {"name": "edged", "tasks_from": tasks}}]
        playbook = self.folder / "going.json"
        playbook.write_text(json.dumps([{"hosts": "edged", "gather_facts": False, "tasks": steps}]))
        script = SPACE.format(folder=self.folder)
        program = shutil.which("ansible-playbook")
        assert program is not None
        path = f"PATH={self.folder / 'bin'}:{os.environ['PATH']}"
        hosts = str(inventory(self.folder, {"press-7": {}}, **everywhere))
        return run(
            self.folder, *ISOLATED, "sh", "-ec", script, "sh", "env", path, program, "-i", hosts,
            str(playbook),
        )  # fmt: skip

    def settings(self, word: str) -> str:
        """A settings file that holds this word."""
        return SETTINGS.format(home=self.home, word=word)

    def link(self, **links: str) -> None:
        """Have the links name these releases."""
        for name, version in links.items():
            (self.home / name).unlink(missing_ok=True)
            (self.home / name).symlink_to(f"releases/{version}")

    def is_as_before(self, previous: str = "") -> bool:
        """Whether it has the release, settings and secrets that it began with."""
        return (self.links(), self.word(), self.secrets(), (self.home / "unfinished").exists()) == (
            ("0.1.0", previous),
            "good",
            {"mqtt_password": "first"},
            False,
        )

    def links(self) -> tuple[str, str]:
        """The releases in use and before."""
        current, previous = self.home / "current", self.home / "previous"
        return current.resolve().name, previous.resolve().name if previous.is_symlink() else ""

    def secrets(self) -> dict[str, str]:
        """Those in use."""
        files = (self.etc / "credstore").glob("edged.*")
        return {
            path.name.removeprefix("edged."): path.read_text() for path in files if path.suffix != ".before"
        }

    def model(self, file: str) -> dict[str, str]:
        """A model of the inventory."""
        return {
            "file": file,
            "sha256": hashlib.sha256(file.encode()).hexdigest(),
            "url": "http://127.0.0.1:9/m",
        }

    def bring(self, file: str) -> None:
        """Put a model there as edged_model does."""
        path = self.home / "models" / file
        path.write_text(file)
        stat = path.stat()
        told = [self.model(file)["sha256"], stat.st_size, stat.st_mtime_ns, stat.st_ino]
        path.with_name(f".{file}.verified").write_text(json.dumps(told))

    def word(self) -> str:
        """Of the settings in use."""
        return (self.etc / "edged/edged.toml").read_text().split('name = "')[1].split('"')[0]


@pytest.fixture
def board(tmp_path: Path) -> Going:
    """It runs 0.1.0 with settings and a password by which it answers."""
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here: the role would write into this machine's /etc")
    return Going(tmp_path)


def test_the_way_back_outlives_an_interrupted_run(board: Going) -> None:
    """Ctrl-C while the node does not answer; the next run finds what it had before that."""
    ended = board.go("0.2.0", "interrupt", edged_secrets={"mqtt_password": "second"})
    assert "User interrupted" in ended.text, ended.text
    assert (board.links(), board.word(), board.secrets()) == (
        ("0.2.0", "0.1.0"),
        "interrupt",
        {"mqtt_password": "second"},
    )
    ended = board.go("0.2.0", "wrong", edged_secrets={"mqtt_password": "third", "http_key": "new"})
    assert "The node is back at 0.1.0 and answers" in ended.text, ended.text
    assert board.is_as_before()


def test_rollback_after_an_interrupted_run(board: Going) -> None:
    """It goes to what answered last, whatever was before that."""
    for place in ("edged.toml", "edged.toml.0.1.0", "edged.toml.0.0.9"):
        (board.etc / "edged" / place).write_text(board.settings("good" if "1" in place else "wrong"))
    (board.etc / "credstore/edged.mqtt_password.before").write_text("first")
    (board.etc / "credstore/edged.mqtt_password").write_text("second")
    shutil.copytree(board.home / "releases/0.1.0", board.home / "releases/0.0.9")
    board.link(current="0.2.0", previous="0.1.0")
    (board.home / "unfinished").write_text('{"current": "0.1.0", "previous": "0.0.9"}')
    ended = board.go("0.2.0", "wrong", tasks="rollback")
    assert ended.code == 0, ended.text
    assert board.is_as_before(previous="0.0.9")


def test_neither_answers(board: Going) -> None:
    """The release before does not, nor the one that ran: broken by hand. Both are said, and no model goes."""
    board.link(previous="0.2.0")
    (board.etc / "edged/edged.toml.0.2.0").write_text(board.settings("wrong"))
    (board.home / "releases/0.1.0/bin/edged").write_text("#!/bin/sh\n[ $1 != ask ]\n")
    board.bring("old.gguf")
    ended = board.go("0.2.0", "wrong", tasks="rollback")
    assert "0.2.0 did not answer: no answer" in ended.text, ended.text
    assert "Nor does the node at 0.1.0, to which it was put back: no answer" in ended.text
    assert "and answers" not in ended.text
    assert (board.home / "models/old.gguf").exists()


def test_what_nothing_reads_any_more(board: Going) -> None:
    """Models go once the node answers with its new one; the release's before stays, and what others put there.

    So does a program of the operator's own where the command would stand.
    """
    models, command = board.home / "models", board.folder / "board/usr/local/bin/edged"
    command.unlink()
    command.write_text("mine")
    for name in ("before.gguf", "old.gguf", "new.gguf"):
        board.bring(name)
    for name in ("by-hand.gguf", "broke-off.gguf.part", ".of-edged-model.gguf.part"):
        (models / name).touch()
    ended = board.go("0.2.0", "good", edged_model=board.model("new.gguf"))
    assert ended.code == 0, ended.text
    kept = {
        f"{dot}{name}.gguf{end}" for name in ("before", "new") for dot, end in (("", ""), (".", ".verified"))
    }
    assert {path.name for path in models.iterdir()} == kept | {"by-hand.gguf", ".of-edged-model.gguf.part"}
    assert command.read_text() == "mine"
    assert board.links() == ("0.2.0", "0.1.0")


def test_another_home(board: Going) -> None:
    """A larger disk, say: what runs from the old one is ended, or it would answer the play's question."""
    new = board.folder / "disk"
    shutil.copytree(board.home / "releases", new / "releases", symlinks=True)
    unit = new / "releases/0.2.0/edged.service"
    unit.write_text(unit.read_text().replace(str(board.home), str(new)))
    ended = board.go("0.2.0", "wrong", edged_home=str(new))
    assert "run this play with the edged_home of before" in ended.text, ended.text
    ended = board.go("0.2.0", "good", edged_home=str(new))
    assert ended.code == 0, ended.text
    assert (board.folder / "runs").read_text() == f"{new}/releases/0.2.0/bin/edged\n"
