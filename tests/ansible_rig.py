"""Runs Ansible on this machine: no ssh, no root, nothing outside the test's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ANSIBLE = ROOT / "deploy" / "ansible"
ROLE = ANSIBLE / "roles" / "edged"
LIMIT_S = 240.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and all that it said, in lines as long as they come."""

    code: int
    text: str


def run(folder: Path, *command: str, limit_s: float = LIMIT_S) -> Ended:
    """Run one of Ansible's commands, with what it keeps in `folder`."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "EDGED_"))},
        "HOME": str(folder),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "COLUMNS": "1000",
        "LC_ALL": "C.UTF-8",
    }
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=limit_s, cwd=ANSIBLE, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Ended(ended.returncode, ended.stdout + ended.stderr)


def inventory(folder: Path, hosts: dict[str, dict[str, Any]], **everywhere: Any) -> Path:
    """An inventory of this machine under several names (JSON is YAML)."""
    return groups(folder, edged={"hosts": hosts, "vars": everywhere})


def groups(folder: Path, **named: dict[str, Any]) -> Path:
    """The same with several groups."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    path = folder / "hosts.json"
    path.write_text(json.dumps({"all": {"vars": here, "children": named}}))
    return path


def module(folder: Path, name: str, **arguments: Any) -> dict[str, Any]:
    """Run one of the role's modules on this machine; returns its result."""
    command = ["ansible", "localhost", "--module-path", str(ROLE / "library"), "--module-name", name]
    command += [
        "--args",
        json.dumps(arguments),
        "--extra-vars",
        f"ansible_python_interpreter={sys.executable}",
    ]
    ended = run(folder, *command)
    told = ended.text[ended.text.index("=> ") + 3 :]
    result: dict[str, Any] = json.JSONDecoder().raw_decode(told)[0]
    return result
