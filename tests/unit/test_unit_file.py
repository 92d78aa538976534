"""The unit file says what the daemon relies on, and systemd accepts all of it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from edged.daemon import ENDING_S
from edged.node.node import FLUSH_S, GRACE_S

UNIT = Path(__file__).parents[2] / "systemd" / "edged.service"


def entries(text: str) -> dict[str, list[str]]:
    """All values of each `Section.Key`, in order (systemd.syntax(7); this file continues no lines)."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found[f"{section}.{key}"].append(value)
    return found


@pytest.fixture
def unit() -> dict[str, list[str]]:
    """The unit file, parsed."""
    return entries(UNIT.read_text())


def verify(text: str, folder: Path) -> str:
    """What `systemd-analyze verify` says of a unit with this text; empty when it is content.

    Only two things differ from the file itself: the program is one that exists here, and the manual pages are
    not looked for.
    """
    program = shutil.which("true")
    assert program is not None
    path = folder / "edged.service"
    path.write_text(text.replace("/opt/edged/current/bin/edged", program))
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if "edged" in line]
    return "\n".join(said) or ("" if ended.returncode == 0 else ended.stderr)


def test_systemd_accepts_the_file(tmp_path: Path) -> None:
    """Every key is known, every value has its form."""
    assert verify(UNIT.read_text(), tmp_path) == ""


def test_systemd_would_notice_a_mistake(tmp_path: Path) -> None:
    """The check above can fail: a misspelt key and a missing program are told."""
    assert "WatchdogSecs" in verify(UNIT.read_text().replace("WatchdogSec=", "WatchdogSecs="), tmp_path)
    assert "/no/such" in verify(UNIT.read_text().replace("/opt/edged/current", "/no/such"), tmp_path)


def test_it_starts_the_daemon_with_its_settings(unit: dict[str, list[str]]) -> None:
    """One command, the one the README names."""
    assert unit["Service.ExecStart"] == ["/opt/edged/current/bin/edged run --config /etc/edged/edged.toml"]
    assert unit["Install.WantedBy"] == ["multi-user.target"]


def test_readiness_and_watchdog(unit: dict[str, list[str]]) -> None:
    """The daemon itself, and nobody else, says that it is ready and alive."""
    assert unit["Service.Type"] == ["notify"]
    assert unit["Service.NotifyAccess"] == ["main"]
    assert unit["Service.WatchdogSec"] == ["60"]


def test_restart(unit: dict[str, list[str]]) -> None:
    """Whatever ends it, it comes back for ever; only a wrong configuration waits for its operator."""
    assert unit["Service.Restart"] == ["always"]
    assert unit["Service.RestartPreventExitStatus"] == [str(os.EX_CONFIG)]
    assert unit["Unit.StartLimitIntervalSec"] == ["0"]
    assert 5 <= int(unit["Service.RestartSec"][0]) <= 60


def test_stop_leaves_time_for_the_last_answer(unit: dict[str, list[str]]) -> None:
    """Only the daemon gets SIGTERM, and more time than it takes to end where everything hangs."""
    assert unit["Service.KillMode"] == ["mixed"]
    assert int(unit["Service.TimeoutStopSec"][0]) > GRACE_S + 2 * FLUSH_S + ENDING_S + 1


def test_an_engine_out_of_memory_is_the_daemons_to_restart(unit: dict[str, list[str]]) -> None:
    """Else the kernel's choice of the largest process would stop the service."""
    assert unit["Service.OOMPolicy"] == ["continue"]


def test_it_owns_a_state_folder_and_no_account(unit: dict[str, list[str]]) -> None:
    """Nothing to create before the first start."""
    assert unit["Service.DynamicUser"] == ["yes"]
    assert unit["Service.StateDirectory"] == ["edged"]


def test_metrics_have_a_folder_that_others_may_read(unit: dict[str, list[str]]) -> None:
    """node_exporter runs as another user; RuntimeDirectoryMode= is 0755 unless the unit says otherwise."""
    assert unit["Service.RuntimeDirectory"] == ["edged"]
    assert "Service.RuntimeDirectoryMode" not in unit


def test_credentials_are_optional(unit: dict[str, list[str]]) -> None:
    """systemd.exec(5): only names without a path may be absent; a path that is absent fails the start."""
    names = dict(value.split(":") for value in unit["Service.LoadCredential"])
    wanted = {
        *("mqtt_password", "mqtt_ca", "mqtt_cert", "mqtt_key"),
        *("http_key", "http_tls_cert", "http_tls_key", "upstream_key"),
    }
    assert wanted == set(names)
    assert not any("/" in name for name in names.values())
    assert all(
        stored == f"edged.{name}" for name, stored in names.items()
    )  # as `edged doctor` looks for them


def test_what_vitals_read_stays_visible(unit: dict[str, list[str]]) -> None:
    """Memory and load come from /proc, which these settings would hide; other users' processes may be hidden."""
    assert not {"Service.ProcSubset", "Service.InaccessiblePaths"} & set(unit)
    assert unit["Service.ProtectProc"] == ["invisible"]


def exposure(text: str, folder: Path) -> float:
    """What `systemd-analyze security` makes of a unit: 0 is locked up, 10 is anything goes."""
    path = folder / "edged.service"
    path.write_text(text)
    ended = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for edged\.service: (\d+\.\d)", ended.stdout)
    assert found is not None, ended.stdout + ended.stderr
    return float(found[1])


def test_exposure(tmp_path: Path) -> None:
    """At most 1.5 of 10; and the figure follows the file."""
    assert exposure(UNIT.read_text(), tmp_path) <= 1.5
    assert exposure(UNIT.read_text().replace("DynamicUser=yes", "DynamicUser=no"), tmp_path) > 1.5


def with_drop_in(folder: Path) -> str:
    """Lay the drop-in for GPUs beside a unit of this folder, as on a node; returns the unit's text."""
    place = folder / "edged.service.d"
    place.mkdir()
    shutil.copy(UNIT.parent / "edged-gpu.conf", place / "gpu.conf")
    return UNIT.read_text()


def test_gpus_are_let_in_and_nothing_else(tmp_path: Path) -> None:
    """The drop-in is accepted, costs little of the unit's exposure and lets no other device in."""
    text = with_drop_in(tmp_path)
    assert verify(text, tmp_path) == ""
    assert exposure(text, tmp_path) <= 1.5
    dropin = entries((UNIT.parent / "edged-gpu.conf").read_text())
    assert dropin["Service.PrivateDevices"] == ["no"]
    assert dropin["Service.DevicePolicy"] == ["closed"]
    assert all(re.match("char-(drm|kfd|nvidia[a-z-]*) rw", value) for value in dropin["Service.DeviceAllow"])


def test_memory_has_a_bound(unit: dict[str, list[str]]) -> None:
    """A share of the board's, so that the kernel chooses among edged's processes before the board runs short."""
    assert unit["Service.MemoryMax"] == ["85%"]
    assert unit["Service.OOMPolicy"] == ["continue"]


def test_limits(unit: dict[str, list[str]]) -> None:
    """The engine may lock its memory (engine.lock_memory); secrets and prompts are left in no core file."""
    assert unit["Service.LimitMEMLOCK"] == ["infinity"]
    assert unit["Service.LimitCORE"] == ["0"]


def test_the_daemon_may_choose_its_cores(unit: dict[str, list[str]]) -> None:
    """sched_setaffinity(2) is let through after the group that holds it was taken away (systemd.exec(5))."""
    assert unit["Service.SystemCallFilter"][-1] == "sched_setaffinity"


def test_the_journal_of_a_board_is_bounded() -> None:
    """The drop-in for journald names a size on disk and how often the card is written."""
    dropin = entries((UNIT.parent / "journald-sd-card.conf").read_text())
    assert dropin["Journal.SystemMaxUse"] == ["64M"]
    assert dropin["Journal.SyncIntervalSec"] == ["5min"]


# the clocks ---------------------------------------------------------------------------------------------------

CPUFREQ = "/sys/devices/system/cpu/cpufreq"


def shell(line: str, folder: Path) -> int:
    """Run a line of the unit as systemd would, with `folder` in place of the clocks' and the service's own."""
    prefix, _, script = line.partition("/bin/sh -c ")
    assert prefix == "-+", "as root, and no reason not to start"
    script = script.strip("'").replace("$$", "$").replace(CPUFREQ, str(folder))
    script = script.replace("/run/edged", str(folder))
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/sh", "-c", script], env=environment, stderr=subprocess.DEVNULL, check=False
    ).returncode


def test_the_right_to_lower_clocks(unit: dict[str, list[str]], tmp_path: Path) -> None:
    """The service's group gets it before the daemon looks, on the caps alone, and loses it with the end."""
    group = 62331 if os.geteuid() == 0 else os.getegid()
    os.chown(tmp_path, -1, group)
    policies = [tmp_path / name for name in ("policy0", "policy4")]
    for policy in policies:
        policy.mkdir()
        for name in ("scaling_max_freq", "scaling_min_freq"):
            (policy / name).touch(0o644)
    [given] = unit["Service.ExecStartPre"]
    assert shell(given, tmp_path) == 0
    modes = {path.name: path.stat() for policy in policies for path in policy.iterdir()}
    assert stat.S_IMODE(modes["scaling_max_freq"].st_mode) == 0o664
    assert stat.S_IMODE(modes["scaling_min_freq"].st_mode) == 0o644
    assert modes["scaling_max_freq"].st_gid == group
    assert unit["Service.RuntimeDirectory"] == ["edged"]
    assert unit["Service.ReadWritePaths"] == [f"-{CPUFREQ}"]
    restored, taken = unit["Service.ExecStopPost"]
    assert restored == "-/opt/edged/current/bin/edged clocks --restore --config /etc/edged/edged.toml"
    shell(taken, tmp_path)
    for policy in policies:
        assert stat.S_IMODE((policy / "scaling_max_freq").stat().st_mode) == 0o644


def test_a_machine_without_clocks_starts_as_well(unit: dict[str, list[str]], tmp_path: Path) -> None:
    """The line fails there, which its `-` lets pass."""
    [given] = unit["Service.ExecStartPre"]
    assert shell(given, tmp_path) != 0
