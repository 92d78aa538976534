"""From a bare board to a node that answers, and once more without a change."""

from __future__ import annotations

import json
import re

import pytest
from board_rig import CUT_BYTES, FIRST, KEPT, Board

pytestmark = pytest.mark.board


def test_from_bare_to_answering(board: Board) -> None:
    """site.yml installs it, with a model whose transfer was cut off; the play's question is answered."""
    if not KEPT:
        with board.step("`site.yml --check` on the bare board: nothing is touched"):
            ended = board.play("site.yml", FIRST, "--check")
            assert ended.code == 0, ended.text
            assert board.ssh("ls -d /opt/edged /etc/edged /etc/systemd/system/edged.service || true") == ""
    with board.step("`site.yml` on the bare board, the model by URL from a server that breaks off"):
        ended = board.play("site.yml", FIRST)
        assert ended.code == 0, ended.text
    assert board.version() == FIRST
    assert board.ssh("systemctl is-active edged").strip() == "active"
    first = board.ssh("journalctl -u edged -o cat | grep -o -m 1 'clocks_[a-z_]*'")
    assert first.strip() == "clocks_used", "the right to lower clocks is there before the daemon looks"
    served = board.ssh("journalctl -u file-server -o cat")
    assert f"small.gguf from 0 to {CUT_BYTES} of" in served
    assert f"small.gguf from {CUT_BYTES} to" in served


def test_it_runs_on_the_right_cores_with_the_right_code(installed: Board) -> None:
    """Engine on the big cores, daemon on the little ones; dotprod and fp16, as a Cortex-A76 has them."""
    with installed.step("pinning and CPU code of engine and daemon"):
        engine = installed.ssh("for p in $(pgrep -f '[e]dged.engine'); do taskset -acp $p; done")
        assert engine.strip()
        assert all(line.endswith(": 2,3") for line in engine.strip().splitlines()), engine
        daemon = installed.ssh("taskset -cp $(systemctl show -P MainPID edged)")
        assert daemon.strip().endswith(": 0,1")
        assert installed.engine_code() == "armv8.2_2"
        assert "DOTPROD = 1" in installed.ssh("cat /opt/edged/current/cpu.txt")


def test_the_unit_is_hardened(installed: Board) -> None:
    """Systemd on the board itself grades the unit that is in use there."""
    with installed.step("`systemd-analyze security edged` on the board"):
        grade = installed.ssh("systemd-analyze security edged --no-pager | tail -n 1")
        found = re.search(r"edged\.service: ([\d.]+)", grade)
        assert found is not None, grade
        assert float(found[1]) <= 1.5


def test_the_journal_can_be_asked(installed: Board) -> None:
    """A question is one line of the journal, found by its fields, and no warning."""
    with installed.step(
        "a question found by `edged logs` and by `journalctl -u edged EDGED_JOB_ID=...`: one line"
    ):
        installed.asked()
        told = installed.ssh("/opt/edged/current/bin/edged logs --event job_finished --json | tail -n 1")
        assert '"PRIORITY":"6"' in told
        job = json.loads(told)["EDGED_JOB_ID"]
        found = installed.ssh(f"journalctl -u edged EDGED_JOB_ID={job} --quiet -o json").splitlines()
        assert [json.loads(line)["EDGED_EVENT"] for line in found] == ["job_finished"]
        assert installed.ssh(f"journalctl -u edged EDGED_JOB_ID={job} -p warning --quiet") == ""
        bounds = installed.ssh("systemd-analyze cat-config systemd/journald.conf")
        assert "SystemMaxUse=64M" in bounds


def test_a_second_run_changes_nothing(installed: Board) -> None:
    """Neither does check mode find anything to change."""
    for words, more in (("again", ()), ("in check mode", ("--check",))):
        with installed.step(f"`site.yml` {words}: changed=0"):
            ended = installed.play("site.yml", installed.version(), *more)
            assert ended.code == 0, ended.text
            assert re.search(r"changed=0 ", ended.text), ended.text
