"""What the node stands on: settings, daemon, clock, disk, service."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edged.core.checks.verdict import Verdict, failure, ok, unknown, warning
from edged.core.gpu import GPU_DROP_IN

NOT_TOLD = "cannot be told by this account (sudo edged doctor)"
YEAR_2025_S = 1_735_689_600.0
MIB = 2**20
DISK_LEAST_BYTES = 16 * MIB
DISK_SPARE_BYTES = 256 * MIB
_FILE = re.compile(r": '(.+)': ")
EXPOSURE_MOST = 2.0
"""`systemd-analyze security` gives the shipped unit about 1; mosquitto's gets 9.6."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The state folder: what can be written, what is free there.

    Attributes:
        closed: this account may not even look: so it is for all but root where systemd made it for an account of
            the service's own.
        in_memory: what is written there is gone with the power: a tmpfs, or an overlay over one.
    """

    path: str
    exists: bool
    writable: bool
    free_bytes: int | None
    closed: bool = False
    in_memory: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """systemd's properties of the service, as `systemctl show` names them, and its exposure, 0 to 10."""

    properties: Mapping[str, str]
    exposure: float | None = None


def settings(file: str | None, complaints: Sequence[str], warnings: Sequence[str]) -> list[Verdict]:
    """The settings file: whether it is accepted, and what is accepted but will not work."""
    if file is None and complaints and all(": missing;" in one for one in complaints):
        words = "no settings file: only what needs none is looked at"
        return [unknown("settings", f"{words} (edged doctor --config FILE)")]
    if complaints:
        mend = f"edged config check {file}" if file else "env | grep EDGED_"
        return [failure("settings", complaint, mend) for complaint in complaints]
    told = [warning("settings", one, f"edit {file}" if file else None) for one in warnings]
    return told or [ok("settings", f"{file or 'the environment'}: accepted")]


def file_in(words: str) -> str | None:
    """The file that a warning on settings is about; None where it is about none."""
    found = _FILE.search(words)
    return None if found is None else found[1]


def once(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """All but warnings on settings of which a failure tells in the same words, or more of the same file."""
    failures = [one.words for one in verdicts if one.state == "failure"]

    def told(one: Verdict) -> bool:
        if (one.name, one.state) != ("settings", "warning"):
            return False
        what = file_in(one.words) or one.words.partition("; ")[0]
        return any(what in words for words in failures)

    return [one for one in verdicts if not told(one)]


def daemon(
    pid: int | None,
    unsure: bool,  # noqa: FBT001 - a reading
    told: Mapping[str, object] | None,
    start: str | None,
) -> Verdict:
    """Whether a daemon has these settings' journal open, and takes questions.

    Args:
        pid: whose it is; None where nobody's is seen.
        unsure: there are processes that may not be looked into.
        told: what it says of itself (`edged status`); None where it says nothing in time.
        start: the command that starts one; None where that is told of the service.
    """
    if pid is not None or told:
        words = "running" if pid is None else f"running (process {pid})"
        if told is None:
            return failure("daemon", f"{words}, but it answers nothing", "sudo systemctl restart edged")
        if told.get("draining"):
            return warning("daemon", f"{words}, drained: it takes no questions", "edged undrain")
        return ok("daemon", words)
    if unsure:
        return unknown("daemon", NOT_TOLD)
    return warning("daemon", "not running", start)


def engine(told: Mapping[str, object]) -> Verdict | None:
    """What keeps the running daemon's engine from answering, by its own word; None where nothing does."""
    phase = told.get("engine")
    if phase not in {"failed", "broken"}:
        return None
    words, _, mend = str(told.get("reason")).rpartition("; ")
    return failure("engine", words or mend, mend if words else "edged logs -p warning")


def clock(synchronised: bool | None, now_s: float) -> Verdict:  # noqa: FBT001 - a reading
    """Whether the clock follows another one."""
    mend = "sudo timedatectl set-ntp true"
    if now_s < YEAR_2025_S:
        return warning("clock", "it is years behind: certificates will be refused", mend)
    if synchronised is None:
        return unknown("clock", "the kernel does not say whether it is synchronised")
    if not synchronised:
        return warning("clock", "not synchronised (deadlines hold: they go by another clock)", mend)
    return ok("clock", "synchronised")


def unwritable(folder: Folder, failing: str) -> Verdict:
    """What the daemon says of a disk that may look well from here, as one that hangs does."""
    words = f"the daemon cannot write its journal: {failing}"
    return failure("disk", words, f"df {folder.path}; sudo dmesg | tail")


def disk(folder: Folder, journal_max_bytes: int) -> Verdict:
    """The state folder: journal, prefix store, calibration."""
    name = "disk"
    if folder.closed or not folder.exists:
        words = NOT_TOLD if folder.closed else "is not there; the service makes it at its first start"
        return unknown(name, f"{folder.path} {words}")
    if not folder.writable:
        return failure(
            name, f"{folder.path} cannot be written", f"ls -ld {folder.path}; mount; df {folder.path}"
        )
    if folder.free_bytes is None:
        return unknown(name, f"{folder.path}: how much is free is not told")
    words = f"{folder.path}: {folder.free_bytes / 1e6:.0f} MB free"
    if folder.free_bytes < DISK_LEAST_BYTES:
        return failure(name, words, f"make room: du -xh {folder.path} | sort -h | tail")
    if folder.free_bytes < journal_max_bytes + DISK_SPARE_BYTES:
        return warning(name, f"{words}, the journal may take {journal_max_bytes / 1e6:.0f}", "make room")
    return ok(name, words)


def port(number: int, reason: str) -> Verdict:
    """The HTTP face's port is another program's, for no daemon runs; `reason` as the system has it."""
    mend = f"sudo ss -ltnp 'sport = :{number}' names it; end it, or set http.port to another one"
    return warning("http", f"another program has the port: {reason}", mend)


def in_memory(folder: Folder) -> Verdict:
    """The state folder stands in memory, as on a card that is kept read-only: no disk holds what was accepted."""
    words = f"{folder.path} is in memory: a power cut loses what was accepted and not answered"
    return warning("disk", words, f"mount a disk at {folder.path}, or set paths.state to one")


def service(unit: Unit | None, *, gpu: bool = False) -> list[Verdict]:
    """Systemd's view: loaded, active, as on disk, hardened; with `gpu`, whether the unit lets the daemon at one."""
    if unit is None:
        return [unknown("service", "systemd does not run here")]
    told = unit.properties
    state = told.get("LoadState")
    if state == "masked":
        return [warning("service", "masked: systemd does not start it", "sudo systemctl unmask edged")]
    if state in {"bad-setting", "error"}:
        words = f"systemd cannot use its unit ({state})"
        return [failure("service", words, "systemd-analyze verify edged.service")]
    if state != "loaded":
        return [unknown("service", "edged.service is not installed")]
    return [_active(told), *_unit(unit, gpu=gpu)]


def _active(told: Mapping[str, str]) -> Verdict:
    name, active = "service", told.get("ActiveState", "")
    words = f"{active} ({told.get('SubState', '')})"
    restarted = (restarts := told.get("NRestarts", "0")) not in {"0", ""}
    if restarted:
        words += f", restarted {restarts} times"
    if active != "active":
        state = failure if active == "failed" else warning
        return state(name, words, "journalctl -u edged -e; sudo systemctl start edged")
    return warning(name, words, "journalctl -u edged -p warning -e") if restarted else ok(name, words)


def _unit(unit: Unit, *, gpu: bool) -> list[Verdict]:
    told, verdicts = unit.properties, []
    if told.get("UnitFileState") in {"disabled", "linked"}:
        words = "not enabled: it does not start when the board does"
        verdicts.append(warning("unit", words, "sudo systemctl enable edged"))
    if told.get("NeedDaemonReload") == "yes":
        verdicts.append(
            warning("unit", "the file was changed and not loaded", "sudo systemctl daemon-reload")
        )
    if drop_ins := told.get("DropInPaths"):
        verdicts.append(ok("unit", f"changed by {drop_ins}"))
    if gpu and told.get("PrivateDevices") == "yes":
        words = "PrivateDevices=yes keeps every GPU from the service"
        mend = f"sudo install -D -m 644 systemd/edged-gpu.conf {GPU_DROP_IN}; sudo systemctl daemon-reload"
        verdicts.append(warning("unit", words, f"{mend}; sudo systemctl restart edged"))
    if unit.exposure is not None:
        words = f"exposure {unit.exposure:g} of 10"
        if unit.exposure > EXPOSURE_MOST:
            verdicts.append(warning("hardening", words, "install systemd/edged.service as shipped"))
        else:
            verdicts.append(ok("hardening", words))
    return verdicts
