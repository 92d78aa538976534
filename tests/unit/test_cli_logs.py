"""`edged logs` asks the journal for the right lines: its arguments, and a real journalctl on real journal files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.cli.logs import arguments, journals

WRITER = "/lib/systemd/systemd-journal-remote"
BOOT = "0f0f0f0f0f0f4f0f8f0f0f0f0f0f0f0f"
FIRST_US = 1_790_000_000_000_000
LINES = (
    ("edged.service", 6, {"EVENT": "question_arrived", "JOB_ID": "press-7-1", "CLIENT": "press-7"}),
    ("edged.service", 6, {"EVENT": "job_finished", "JOB_ID": "press-7-1", "CLIENT": "press-7"}),
    ("edged.service", 6, {"EVENT": "job_finished", "JOB_ID": "line-3-1", "CLIENT": "line-3"}),
    ("edged.service", 4, {"EVENT": "level_changed", "LEVEL": "hot"}),
    ("other.service", 6, {"EVENT": "job_finished", "JOB_ID": "press-7-1", "CLIENT": "press-7"}),
)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a journal of LINES, a second apart, as journald writes them."""
    folder = tmp_path_factory.mktemp("journal")
    entries = []
    for number, (unit, priority, fields) in enumerate(LINES):
        told = {
            "__REALTIME_TIMESTAMP": FIRST_US + number * 1_000_000,
            "__MONOTONIC_TIMESTAMP": number * 1_000_000,
            "_BOOT_ID": BOOT,
            "_MACHINE_ID": BOOT,
            "_SYSTEMD_UNIT": unit,
            "PRIORITY": priority,
            "MESSAGE": f"{number} {fields['EVENT']}",
            **{f"EDGED_{name}": value for name, value in fields.items()},
        }
        entries.append("".join(f"{name}={value}\n" for name, value in told.items()))
    subprocess.run(
        [WRITER, f"--output={folder}/system.journal", "-"],
        input="\n".join(entries) + "\n",
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return folder


def logs(*given: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `edged logs`, in UTC."""
    environment = {**os.environ, "TZ": "UTC"} | ({} if path is None else {"PATH": path})
    command = [sys.executable, "-m", "edged", "logs", *given]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ((), [0, 1, 2, 3]),
        (("--job", "press-7-1"), [0, 1]),
        (("--job", "press-7-1", "--event", "job_finished"), [1]),
        (("--event", "job_finished", "--event", "level_changed"), [1, 2, 3]),
        (("--client", "line-3"), [2]),
        (("--client", "line-3", "--job", "press-7-1"), []),
        (("-p", "warning"), [3]),
        (("--since", "2026-09-21 14:13:22"), [2, 3]),
        (("--job", "press-7-1 OR"), []),
    ],
)
def test_lines(journal: Path, given: tuple[str, ...], numbers: list[int]) -> None:
    """Fields of one name add to each other, fields of different names narrow; another service has no part in it."""
    ended = logs("--directory", str(journal), "--json", *given)
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [int(line["MESSAGE"].split()[0]) for line in told] == numbers


def test_lines_for_people(journal: Path) -> None:
    """As journalctl writes them: a time and the message."""
    ended = logs("--directory", str(journal), "--event", "level_changed")
    assert "14:13:23" in ended.stdout
    assert ended.stdout.rstrip().endswith("3 level_changed")


def test_what_journalctl_does_not_understand(journal: Path) -> None:
    """Its own sentence and code come through."""
    ended = logs("--directory", str(journal), "--since", "the day after")
    assert ended.returncode != 0
    assert "the day after" in ended.stderr


def test_arguments_follow() -> None:
    """A time that begins with a minus stays a value; follow is journalctl's."""
    given = arguments(since="-2h", follow=True, event=["job_finished"])
    assert given == ["--unit=edged", "--since=-2h", "--follow", "EDGED_EVENT=job_finished"]


def test_without_journalctl(tmp_path: Path) -> None:
    """One sentence that says where the log is instead."""
    ended = logs(path=str(tmp_path))
    assert ended.returncode == os.EX_UNAVAILABLE
    assert ended.stderr.startswith("edged logs: there is no journalctl here")
    assert len(ended.stderr.splitlines()) == 1


def test_without_a_journal(tmp_path: Path) -> None:
    """An empty folder is named."""
    ended = logs("--directory", str(tmp_path))
    assert ended.returncode == os.EX_UNAVAILABLE
    assert ended.stderr == f"edged logs: there are no journal files in {tmp_path}\n"


def test_a_journal_that_may_not_be_read(tmp_path: Path) -> None:
    """The group that helps is named. A dangling link is what root may not read either."""
    (tmp_path / "system.journal").symlink_to(tmp_path / "elsewhere")
    assert journals((tmp_path,)) == (1, 0)
    ended = logs("--directory", str(tmp_path))
    assert ended.returncode == os.EX_NOPERM
    assert "join the group systemd-journal" in ended.stderr
