"""The role and the playbooks: clean by ansible-lint, and refusing what is wrong before a board is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_rig import ANSIBLE, ROLE, Ended, groups, inventory, run
from certificates import Authority

from edged.settings import load

PLAYBOOKS = ("site.yml", "update.yml", "rollback.yml", "drain.yml", "broker.yml")
WITH_TLS: dict[str, Any] = {
    "edged_settings": {"mqtt": {"host": "tls.lan", "port": 8883, "tls": {"ca": "mqtt_ca"}}},
    "edged_secrets": {"mqtt_ca": "PEM"},
}
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override", "--")
"""setpriv(1): takes root's right to write everything from a program."""
MODEL = {"file": "small.gguf", "sha256": "0" * 64, "url": "http://127.0.0.1:9/small.gguf"}


def test_ansible_lint(tmp_path: Path) -> None:
    """Profile `production`, no exceptions but those written in the files."""
    ended = run(tmp_path, "ansible-lint", "--offline", "--profile", "production", "--nocolor")
    assert ended.code == 0, ended.text


def test_syntax(tmp_path: Path) -> None:
    """Ansible itself can read all playbooks and the example inventory."""
    ended = run(tmp_path, "ansible-playbook", "-i", "inventory/example.yml", "--syntax-check", *PLAYBOOKS)
    assert ended.code == 0, ended.text


def test_the_example_inventory(tmp_path: Path) -> None:
    """With the files beside it that its head tells of it holds all: the first thing missing is the release."""
    shutil.copy(ANSIBLE / "inventory" / "example.yml", tmp_path / "yours.yml")
    (tmp_path / "ca.pem").write_text("PEM")
    (tmp_path / "group_vars").mkdir()
    passwords = dict.fromkeys(("press-7", "line-3", "operator", "esp32-kitchen"), "secret")
    (tmp_path / "group_vars" / "all.yml").write_text(json.dumps({"vault_passwords": passwords}))
    nothing = ("-e", f"edged_archive={tmp_path / 'none.tar'}")
    ended = run(tmp_path, "ansible-playbook", "-i", str(tmp_path / "yours.yml"), "site.yml", *nothing)
    refused(
        ended,
        tmp_path,
        dict.fromkeys(("press-7", "line-3"), "there is no .*none.tar; run deploy/wheels/build"),
    )


def test_debians_python_runs_the_modules(tmp_path: Path) -> None:
    """Not a newer one that stands on a board as well, of which Ansible would warn at each run."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3.13").write_text("#!/bin/sh\necho 'python3.13: not in this folder' >&2; exit 127\n")
    (programs / "python3.13").chmod(0o755)
    hosts = tmp_path / "hosts.ini"
    hosts.write_text("[edged]\npress-7 ansible_connection=local\n")
    ping = ("ansible", "-i", str(hosts), "edged", "--module-name", "ping")
    ended = run(tmp_path, "env", f"PATH={programs}:{os.environ['PATH']}", *ping)
    assert ended.code == 0, ended.text
    assert "WARNING" not in ended.text


def test_a_board_that_falls_silent(tmp_path: Path) -> None:
    """Ssh asks whether it is there while a long task says nothing; without that the play waited for ever."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    (programs / "ssh").chmod(0o755)
    hosts = tmp_path / "hosts.ini"
    hosts.write_text("[edged]\npress-7 ansible_host=192.0.2.17\n")
    ask = ("ansible", "-i", str(hosts), "edged", "--module-name", "raw", "--args", "true")
    ended = run(tmp_path, "env", f"PATH={programs}:{os.environ['PATH']}", *ask)
    assert ended.code == 0, ended.text
    assert "ServerAliveInterval=15 " in calls.read_text()


def play(
    folder: Path,
    hosts: dict[str, dict[str, Any]],
    *more: str,
    path: str | None = None,
    playbook: str = "site.yml",
    wrapper: Sequence[str] = (),
) -> Ended:
    """Run a playbook on this machine under these names; what the boards would get lies in `folder`.

    Args:
        folder: existing.
        hosts: variables of each.
        more: arguments of ansible-playbook.
        playbook: which one.
        path: PATH of the boards, where it shall be another.
        wrapper: a program that starts Ansible, with arguments.
    """
    archive = folder / "edged-0.1.0.tar"
    with tarfile.open(archive, "w") as packed:
        packed.addfile(tarfile.TarInfo("edged-0.1.0-aarch64/VERSION"))
    everywhere: dict[str, Any] = {
        "edged_version": "0.1.0",
        "edged_archive": str(archive),
        "edged_model": MODEL,
        "edged_home": str(folder / "opt"),
        "edged_architectures": ["aarch64", "x86_64"],
        "edged_pythons": ["3.11", "3.12", "3.13", "3.14"],
        "edged_memory_min_mb": 1,
        "edged_disk_min_mb": 1,
        "edged_sys": str(folder),
    }
    program = shutil.which("ansible-playbook")
    assert program is not None
    if path is not None:
        wrapper = ("env", f"PATH={path}")
    return run(folder, *wrapper, program, "-i", str(inventory(folder, hosts, **everywhere)), playbook, *more)


def refused(ended: Ended, folder: Path, said: dict[str, str]) -> None:
    """Each host failed with its sentence, and nothing was changed."""
    assert ended.code != 0
    for host, words in said.items():
        assert re.search(rf"{host}: [^\n]*{words}", ended.text), f"{host}: {words}\n{ended.text}"
        assert re.search(rf"^{host} +: ok=\d+ +changed=0 ", ended.text, re.MULTILINE), ended.text
    assert not (folder / "opt").exists()
    assert "Traceback" not in ended.text
    assert "DEPRECATION" not in ended.text


def test_wrong_values_of_the_inventory(tmp_path: Path) -> None:
    """One sentence each, that says what to write instead; no board was asked anything."""
    hosts: dict[str, dict[str, Any]] = {
        "version": {"edged_version": "newest!"},
        "short-sum": {"edged_model": MODEL | {"sha256": "abc"}},
        "folder-in-name": {"edged_model": MODEL | {"file": "../small.gguf"}},
        "two-sources": {"edged_model": MODEL | {"src": "small.gguf"}},
        "no-source": {"edged_model": {"file": "small.gguf", "sha256": "0" * 64}},
        "ftp": {"edged_model": MODEL | {"url": "ftp://files/small.gguf"}},
        "node-name": {"edged_settings": {"node": {"id": "hall 2/line 3"}}},
        "number-sum": {"edged_model": MODEL | {"sha256": int("1" * 64)}},
        "home": {"edged_home": "opt/edged of mine"},
        "hidden-home": {"edged_home": "/home/pi/edged"},
        "tries": {"edged_gate_tries": 0},
        "half-a-pair": {"edged_gate": {"cert": "/etc/ssl/certs/operator.pem"}},
        "no-account": {"edged_gate": {"password": "the-password"}},
        "shares": {"edged_serial": [1, "a quarter"]},
    }
    said = {
        "version": "give a version such as 0.1.0",
        "short-sum": "take what `sha256sum FILE` prints",
        "folder-in-name": "without a folder",
        "two-sources": "exactly one of url .* and src",
        "no-source": "exactly one of url .* and src",
        "ftp": "give an http or https address",
        "node-name": "give 1 to 64 of A-Z a-z 0-9",
        "number-sum": "in quotes; take what `sha256sum FILE` prints",
        "home": "give a whole path such as /opt/edged",
        "hidden-home": "and neither in /home nor in /root, which the service does not see",
        "tries": "edged_gate_tries is 0 .*give 1 or more",
        "half-a-pair": "give both, or neither",
        "no-account": "give the account that it belongs to",
        "shares": r"give how many boards go over together, such as \[1, '25%'\]",
    }
    refused(play(tmp_path, hosts), tmp_path, said)


@pytest.mark.parametrize("limit", [(), ("--limit", "line-3")])
def test_two_boards_of_one_name(tmp_path: Path, limit: tuple[str, ...]) -> None:
    """By node.id, which may also be the other's own name; it counts where the play leaves the other out."""
    hosts: dict[str, dict[str, Any]] = {
        "press-7": {},
        "line-3": {"edged_settings": {"node": {"id": "press-7"}}},
    }
    ended = play(tmp_path, hosts, *limit)
    assert ended.code != 0
    assert "press-7 is the node.id of more than one board" in ended.text, ended.text
    assert "changed=0 " in ended.text
    assert not (tmp_path / "opt").exists()


def test_no_model(tmp_path: Path) -> None:
    """Without a model in the inventory Ansible names what is missing."""
    ended = play(tmp_path, {"board": {}}, "-e", json.dumps({"edged_model": {"file": "small.gguf"}}))
    assert ended.code != 0
    assert "missing required arguments: sha256 found in edged_model" in ended.text, ended.text
    assert not (tmp_path / "opt").exists()


def test_a_board_that_is_not_there(tmp_path: Path) -> None:
    """One board that cannot be reached over ssh ends the play before any other is touched."""
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_user": "pi"}
    ended = play(tmp_path, {"there": {}, "away": away})
    assert ended.code != 0
    assert re.search(
        r"away: cannot be reached \([^\n]*Connection refused[^\n]*until `ssh pi@127.0.0.1 true` works",
        ended.text,
    ), ended.text
    assert re.search(r"^there +: ok=\d+ +changed=0 ", ended.text, re.MULTILINE), ended.text
    assert not (tmp_path / "opt").exists()


@pytest.mark.parametrize(
    ("playbook", "said"),
    [
        ("drain.yml", "there is nothing to drain"),
        ("rollback.yml", "no release before it; install the version"),
    ],
)
def test_a_board_without_edged(tmp_path: Path, playbook: str, said: str) -> None:
    """Nothing to drain, and no way back."""
    refused(play(tmp_path, {"bare": {}}, playbook=playbook), tmp_path, {"bare": said})


def test_draining_the_whole_fleet_is_asked_for(tmp_path: Path) -> None:
    """A forgotten --limit would stop every board at once; `--limit edged` is how one says that all are meant."""
    hosts: dict[str, dict[str, Any]] = {"press-7": {}, "line-3": {}}
    whole = play(tmp_path, hosts, playbook="drain.yml")
    assert whole.code != 0
    assert "2 boards would finish and stop, all at once; name those that are meant" in whole.text, whole.text
    assert "nothing to drain" not in whole.text
    meant = play(tmp_path, hosts, "--limit", "edged", playbook="drain.yml")
    refused(meant, tmp_path, dict.fromkeys(hosts, "there is nothing to drain"))


def test_an_account_that_may_not_become_root(tmp_path: Path) -> None:
    """Sudo would ask for a password."""
    asks = tmp_path / "asks"
    asks.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    asks.chmod(0o755)
    account = {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": str(asks)}
    said = {"plain": "takes no commands .*; give ansible_user sudo without a password"}
    refused(play(tmp_path, {"plain": account}), tmp_path, said)


def test_a_board_without_python(tmp_path: Path) -> None:
    """Found out without Python, of course."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in Path("/usr/bin").iterdir():
        if not program.name.startswith("python"):
            (programs / program.name).symlink_to(program)
    ended = play(tmp_path, {"bare": {}}, path=str(programs))
    refused(ended, tmp_path, {"bare": "has no Python, .*install python3"})


def test_a_card_that_turned_read_only(tmp_path: Path) -> None:
    """As cards do that fail; the same for an account that may not write there."""
    home = tmp_path / "card"
    home.mkdir(mode=0o555)
    ended = play(tmp_path, {"card": {"edged_home": str(home / "edged")}}, wrapper=WITHOUT_PRIVILEGE)
    refused(ended, tmp_path, {"card": "lets nobody write to .*set ansible_become"})


def test_an_answer_that_could_not_be_looked_through(tmp_path: Path) -> None:
    """No regular expression: found out before the node has gone over, not after."""
    hosts: dict[str, dict[str, Any]] = {"expression": {"edged_gate": {"expect": "Paris("}}}
    refused(play(tmp_path, hosts), tmp_path, {"expression": "give the words that the answer must hold"})


def test_a_model_of_the_same_name(tmp_path: Path) -> None:
    """Another model under the name of the one in use would cut off the way back."""
    settings = tmp_path / "edged.toml"
    settings.write_text(f'[model]\npath = "{tmp_path}/opt/models/small.gguf"\nsha256 = "{"1" * 64}"\n')
    files = json.dumps({"edged_files": {"settings": str(settings), "unit": "none"}})
    ended = play(tmp_path, {"model": {}}, "-e", files)
    refused(ended, tmp_path, {"model": "give the new file a name of its own"})


def test_a_value_of_another_type(tmp_path: Path) -> None:
    """The role's argument_specs name the value and its type."""
    ended = play(tmp_path, {"words": {"edged_memory_min_mb": "lots"}})
    assert ended.code != 0
    assert re.search(r"edged_memory_min_mb.*unable to convert to int", ended.text), ended.text
    assert not (tmp_path / "opt").exists()


def test_what_is_not_there_to_be_sent(tmp_path: Path) -> None:
    """No archive, no model, a model with another SHA-256: said before any board is asked."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"weights")
    here = {"file": "small.gguf", "src": str(model)}
    hosts: dict[str, dict[str, Any]] = {
        "no-archive": {"edged_archive": str(tmp_path / "none.tar")},
        "no-model": {"edged_model": here | {"sha256": "0" * 64, "src": str(tmp_path / "none.gguf")}},
        "other-sum": {"edged_model": here | {"sha256": "0" * 64}},
        "other-release": {"edged_version": "0.2.0"},
    }
    said = {
        "no-archive": "run deploy/wheels/build",
        "no-model": "set edged_model.src to the model's file",
        "other-sum": "another SHA-256 than edged_model.sha256; copy the file again",
        "other-release": "holds no release 0.2.0; let edged_version and edged_archive name the same one",
    }
    refused(play(tmp_path, hosts), tmp_path, said)


def test_boards_that_do_not_do(tmp_path: Path) -> None:
    """Another architecture, too little memory or disk, a wrong clock, too hot, no edged to update."""
    zone = tmp_path / "hot" / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    for name, value in (("type", "soc-thermal"), ("temp", "68000"), ("trip_point_0_type", "passive")):
        (zone / name).write_text(f"{value}\n")
    (zone / "trip_point_0_temp").write_text("75000\n")
    hosts: dict[str, dict[str, Any]] = {
        "other-kind": {"edged_architectures": ["armv9"]},
        "other-python": {"edged_pythons": ["3.8"]},
        "small": {"edged_memory_min_mb": 999_999_999},
        "full": {"edged_disk_min_mb": 999_999_999},
        "wrong-clock": {"edged_clock_max_s": -1},
        "hot": {"edged_sys": str(tmp_path / "hot")},
        "bare": {"edged_must_be_there": True} | WITH_TLS,
        "secret": {"edged_settings": {"mqtt": {"username": "press-7", "password_file": "mqtt_password"}}},
        "no-authority": {"edged_gate": {"cafile": str(tmp_path / "none.pem")}},
        "own-authority": {"edged_settings": {"mqtt": {"tls": {"ca": str(tmp_path / "own.pem")}}}},
    }
    said = {
        "other-kind": "runs a 64-bit .* system; install a 64-bit one",
        "other-python": "the archive holds wheels for 3.8",
        "small": "take a board with more, or a smaller model",
        "full": "make room, or move edged_home",
        "wrong-clock": "set up time synchronisation",
        "hot": "too hot: soc-thermal at 68.0 C, it brakes at 75 C; let it cool down",
        "bare": "site.yml installs it",
        "no-authority": "has no .*none.pem, which the play's own question needs",
        "own-authority": "has no .*own.pem, which the play's own question needs",
        "secret": "name mqtt_password, .*; add mqtt_password to edged_secrets",
    }
    ended = play(tmp_path, hosts)
    refused(ended, tmp_path, said)
    assert "bare: has no" not in ended.text  # the authority comes with the secrets


def test_a_card_that_has_all_of_it(tmp_path: Path) -> None:
    """Release and model are there: a new password needs no room for them, only what is to be brought does."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "opt/releases/0.1.0/lib" / python).mkdir(parents=True)
    (tmp_path / "opt/releases/0.1.0/.complete").touch()
    (tmp_path / "opt/models").mkdir()
    (tmp_path / "opt/models/small.gguf").touch()
    hosts: dict[str, dict[str, Any]] = {
        "all-there": {"edged_disk_min_mb": 999_999_999, "edged_clock_max_s": -1},
        "new-model": {"edged_model": MODEL | {"file": "new.gguf", "size_mb": 999_999_999}},
    }
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    ended = play(tmp_path, hosts, path=f"{programs}:{os.environ['PATH']}")
    assert re.search(r"all-there: [^\n]*set up time synchronisation", ended.text), ended.text
    assert re.search(r"new-model: [^\n]*make room", ended.text), ended.text
    assert not re.search(r"all-there: [^\n]*make room", ended.text), ended.text


def test_check_mode_on_a_bare_board(tmp_path: Path) -> None:
    """It tells all that would be done, and does none of it."""
    before = {
        place: place.exists()
        for place in map(Path, ("/etc/edged", "/etc/systemd/journald.conf.d/edged.conf"))
    }
    as_text = {  # which `-e NAME=VALUE` makes of all values
        "edged_bound_journal": "false",  # journald would have to be there, and is not in a container
        "edged_must_be_there": "false",
        "edged_memory_min_mb": "1",
        "edged_disk_min_mb": "1",
        "edged_clock_max_s": "60",
        "edged_model": MODEL | {"size_mb": "1"},
    }
    ended = play(tmp_path, {"bare": {}}, "--check", "-e", json.dumps(as_text))
    assert ended.code == 0, ended.text
    assert "Switch to the release" in ended.text
    assert not re.search(r"^bare +: .*changed=0 ", ended.text, re.MULTILINE), ended.text
    assert not (tmp_path / "opt").exists()
    assert {place: place.exists() for place in before} == before


def test_check_mode_of_the_brokers_playbook(tmp_path: Path) -> None:
    """The same for broker.yml, whose files are all new."""
    folder = tmp_path / "authority"
    folder.mkdir()
    authority = Authority(folder)
    server = authority.server()
    values: dict[str, Any] = {
        "broker_tls": {
            "ca": authority.pem.read_text(),
            "cert": server.cert.read_text(),
            "key": server.key.read_text(),
        },
        "broker_accounts": {"d1": "the-d1-password"},
        "broker_etc": str(tmp_path / "etc"),
    }
    hosts = groups(tmp_path, edged={"hosts": {"n1": {}}}, broker={"hosts": {"broker.lan": values}})
    ended = run(tmp_path, "ansible-playbook", "-i", str(hosts), "broker.yml", "--check", "--diff")
    assert ended.code == 0, ended.text
    assert re.search(r"^broker.lan +: ok=\d+ +changed=2 ", ended.text, re.MULTILINE), ended.text
    assert "the-d1-password" not in ended.text
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("file", sorted(path.name for path in ANSIBLE.glob("*.yml")))
def test_every_playbook_is_checked(file: str) -> None:
    """None is left out above."""
    assert file in PLAYBOOKS


SETTINGS: dict[str, Any] = {
    "node": {"id": "press-7", "pools": ["hall-2", "all"]},
    "mqtt": {"port": 8883, "username": "press-7", "password_file": "mqtt_password", "tls": {"ca": "mqtt_ca"}},
    "model": {"path": "/opt/edged/models/m.gguf", "system_prompt": 'Say "été" \\ 😀\nthen stop.\t'},
    "engine": {"cores": "4-7", "lock_memory": True},
    "health": {"interval_s": 2.5},
}


def test_settings_become_the_same_toml(tmp_path: Path) -> None:
    """What the inventory says is what edged reads: text of any kind, lists, numbers, tables in tables."""
    out = tmp_path / "edged.toml"
    playbook = tmp_path / "render.json"
    play_ = {
        "hosts": "edged",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.template": {"src": str(ROLE / "templates/edged.toml.j2"), "dest": str(out)},
                "vars": {"edged_settings_whole": SETTINGS},
            }
        ],
    }
    playbook.write_text(json.dumps([play_]))
    ended = run(tmp_path, "ansible-playbook", "-i", str(inventory(tmp_path, {"press-7": {}})), str(playbook))
    assert ended.code == 0, ended.text
    settings = load(out)
    assert settings.model.system_prompt == SETTINGS["model"]["system_prompt"]
    assert settings.node.pools == ("hall-2", "all")
    assert settings.mqtt.tls is not None
    assert settings.mqtt.port == 8883
    assert settings.engine.lock_memory
    assert settings.health.interval_s == 2.5


ASKED = """#!/bin/sh
echo "$@" >>{calls}
echo "edged ask: no answer within 900 s; ask again with more time" >&2
exit 75
"""
BEFORE = """[node]
id = "old-name"
prefix = "hall"

[mqtt]
host = "old.lan"
port = 8883
tls = {ca = "mqtt_ca"}
"""


def test_whom_the_play_asks(tmp_path: Path) -> None:
    """As the inventory says; a node that was put back by its old name, at the broker that it is back at.

    And one whole wait is enough: sixty of them would keep the node away from its old release for hours.
    """
    program, calls = tmp_path / "opt/current/bin/edged", tmp_path / "calls"
    program.parent.mkdir(parents=True)
    program.write_text(ASKED.format(calls=calls))
    program.chmod(0o755)
    for host in ("new-name", "own-place"):
        (tmp_path / f"{host}.toml").write_text(BEFORE)
    steps = [{"ansible.builtin.include_role": {"name": "edged", "tasks_from": "gate"}}]
    playbook = tmp_path / "gate.json"
    playbook.write_text(json.dumps([{"hosts": "edged", "gather_facts": False, "tasks": steps}]))
    renamed = {
        "edged_settings": {"mqtt": {"host": "new.lan"}},
        "edged_gate": {"host": "new.lan", "cafile": "/etc/ssl/new.pem"},
    }
    own_place = {
        "edged_settings": {"mqtt": {"host": "old.lan", "port": 8884}},
        "edged_gate": {"host": "old.lan", "port": 1883},
    }
    hosts: dict[str, dict[str, Any]] = {
        "mute": {},
        "new-name": renamed,
        "own-place": own_place,
        "with-tls": WITH_TLS,
    }
    files = inventory(tmp_path, hosts, edged_home=str(tmp_path / "opt"), edged_model=MODEL)
    in_use = str(tmp_path / "{{ inventory_hostname }}.toml")
    more = json.dumps({"edged_gate_tries": 2, "edged_files": {"settings": in_use}})
    ended = run(tmp_path, "ansible-playbook", "-f", "1", "-i", str(files), str(playbook), "-e", more)
    assert ended.code != 0
    assert ended.text.count('"msg": "no answer to the question (edged ask: no answer within 900 s') == 4, (
        ended.text
    )
    mute, back, own, with_tls = calls.read_text().splitlines()
    assert "--timeout 900 " in mute
    assert mute.startswith("ask --node mute --host 127.0.0.1 --port 1883 --prefix edged ")
    assert "--cafile" not in mute
    assert back.startswith("ask --node old-name --host old.lan --port 8883 --prefix hall ")
    assert "--cafile /etc/credstore/edged.mqtt_ca " in back
    assert own.startswith("ask --node old-name --host old.lan --port 1883 --prefix hall ")
    assert with_tls.startswith("ask --node with-tls --host tls.lan --port 8883 ")
    assert "--cafile /etc/credstore/edged.mqtt_ca " in with_tls
