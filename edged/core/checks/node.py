"""The node's surroundings: settings, broker, certificates, clock, disk, service."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edged.core.checks.verdict import Verdict, failure, ok, unknown, warning
from edged.core.gpu import GPU_DROP_IN

DAY_S = 86_400.0
SOON_S = 30 * DAY_S
NOT_TOLD = "cannot be told by this account (sudo edged doctor)"
YEAR_2025_S = 1_735_689_600.0
MIB = 2**20
DISK_LEAST_BYTES = 16 * MIB
DISK_SPARE_BYTES = 256 * MIB
_FILE = re.compile(r": '(.+)': ")
EXPOSURE_MOST = 2.0
"""`systemd-analyze security` gives the shipped unit about 1; mosquitto's gets 9.6."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's file, and its dates in seconds since 1970; a reason where it cannot be read."""

    name: str
    begins_s: float = 0.0
    ends_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BrokerAnswer:
    """What a broker said to our credentials.

    Attributes:
        reached: it can be connected to, over TLS where that is set.
        logged_in: it took the credentials; False too where nobody tried, for a node may be using them.
        reason: why it cannot be reached, or what it said instead.
        kind: `network`, `tls`, `credentials`, or "" where all is well.
        round_trip_ms: of the connection.
        server: its certificate.
        short: what it keeps of a session, where that is less than was asked.
    """

    reached: bool
    logged_in: bool = False
    reason: str = ""
    kind: str = ""
    round_trip_ms: float | None = None
    server: Certificate | None = None
    short: str = ""


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


def broker(
    address: str, answer: BrokerAnswer, host: str, *, wanted: bool = True, missed: bool = False
) -> Verdict:
    """Whether it is there and takes our credentials.

    Args:
        address: where it should be.
        answer: what it said to us.
        host: the part of the address that can be pinged.
        wanted: the node does not do without one.
        missed: a daemon runs, and says that it has no connection to it.
    """
    if not wanted and answer.kind == "network":
        return unknown("broker", f"none at {address}, and none in the settings: asked over HTTP alone")
    if answer.reached and not answer.kind:
        took = f" in {answer.round_trip_ms:.1f} ms" if answer.round_trip_ms is not None else ""
        if answer.logged_in and missed:
            words = f"{address}: takes our credentials{took}, but the running daemon is not connected"
            mend = "sudo systemctl restart edged (passwords and certificates are read at its start)"
            return failure("broker", words, mend)
        if answer.short:
            words, _, mend = answer.short.partition("; ")
            return warning("broker", f"{address}: {words}", mend)
        if answer.logged_in:
            return ok("broker", f"{address}: takes our credentials, answers{took}")
        return ok("broker", f"{address}: can be reached{took}; the running daemon uses the credentials")
    mends = {
        "network": f"start the broker (systemctl start mosquitto), or correct mqtt.host and mqtt.port; ping {host}",
        "tls": "compare mqtt.tls.ca with the broker's certificate, and the clocks",
        "credentials": "mosquitto_passwd on the broker; mqtt.username and mqtt.password_file here",
    }
    words, _, mend = answer.reason.partition("; ")  # what the link knows of this one fault goes first
    return failure("broker", f"{address}: {words}", mend or mends.get(answer.kind))


def plain(host: str, *, local: bool) -> Verdict:
    """A broker that is spoken to without TLS; `local`: it is on this machine."""
    if local:
        return ok("TLS", "none, and none needed: the broker is on this machine")
    words = f"none: questions and answers travel to {host} for all to read"
    return warning("TLS", words, "[mqtt.tls] ca = ... here, and a listener as in configs/mosquitto there")


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


def certificate(one: Certificate, now_s: float) -> Verdict:
    """A certificate's dates."""
    name = "certificate"
    if one.reason:
        return failure(name, f"{one.name}: {one.reason}", f"openssl x509 -in {one.name} -noout -dates")
    if now_s < one.begins_s:
        return failure(name, f"{one.name}: not valid yet; this board's clock may be wrong", "timedatectl")
    left_s = one.ends_s - now_s
    if left_s < 0:
        return failure(name, f"{one.name}: expired {-left_s / DAY_S:.0f} days ago", "renew it")
    words = f"{one.name}: {left_s / DAY_S:.0f} days left"
    return warning(name, words, "renew it") if left_s < SOON_S else ok(name, words)


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
