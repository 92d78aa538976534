"""The checks of `edged doctor`: tables of readings and verdicts, fixture boards, the screen."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from boards import (
    broken,
    nothing,
    pi3b_plus,
    pi4,
    pi5,
    rk3588_mainline,
    rk3588_vendor,
    set_temp_c,
    stuck,
    tree,
    x86,
)
from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edged.adapters import machine
from edged.adapters.certificate_files import certificates
from edged.adapters.vitals import Caps, VitalsReader
from edged.core import calibration, certificate
from edged.core.board import Board
from edged.core.checks import board as board_checks
from edged.core.checks import broker as broker_checks
from edged.core.checks import model as model_checks
from edged.core.checks import node as node_checks
from edged.core.checks.board import Library
from edged.core.checks.broker import BrokerAnswer, Certificate
from edged.core.checks.model import Room
from edged.core.checks.node import Folder, Unit
from edged.core.checks.verdict import State, Verdict, exit_code, failure, ok, unknown, warning
from edged.core.heat.margins import Margins, with_known_trips
from edged.core.huge_pages import Measured, parse
from edged.core.model_shape import Shape
from edged.core.topology import Choice, big_cores
from edged.core.vitals import Trip, Vitals, Zone
from edged.doctor import screen

R1 = Shape(
    "DeepSeek R1 Distill Qwen 1.5B",
    "qwen2",
    "Q4_0",
    1_777_088_000,
    1_067_000_000,
    929_000_000,
    28_672,
    131_072,
    True,
)
GIB = 2**30


def read(build: tree.Builder, root: Path) -> tuple[Board, Vitals]:
    """A fixture board and its vitals."""
    build(root)
    reader = VitalsReader(root / "sys", root / "proc")
    return reader.board(), reader.read()


# verdicts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 0),
        ([ok("a", "")], 0),
        ([unknown("a", ""), ok("b", "")], 0),
        ([ok("a", ""), warning("b", "")], 1),
        ([failure("a", ""), warning("b", "")], 2),
    ],
)
def test_exit_codes(verdicts: list[Verdict], code: int) -> None:
    """The worst verdict decides; what cannot be told is no fault."""
    assert exit_code(verdicts) == code


# the board --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "states"),
    [
        (rk3588_mainline, "ok ok ok ok ok ok"),
        (rk3588_vendor, "ok ok ok ok ok ok"),
        (pi5, "ok ok ok ok ok"),
        (pi4, "ok ok ok ok ok"),
        (pi3b_plus, "ok ok ok ok ok"),
        (x86, "ok ok ok ok ok ok"),
        (stuck, "warning warning ok ok ok"),
        (nothing, "unknown ok unknown unknown unknown"),
        (broken, "ok ok unknown warning unknown"),
    ],
)
def test_each_board(build: tree.Builder, states: str, tmp_path: Path) -> None:
    """Healthy boards pass; the one in trouble is warned of cores that are off and of a cgroup's quota."""
    found, vitals = read(build, tmp_path / "board")
    choice = big_cores(
        VitalsReader(tmp_path / "board/sys", tmp_path / "board/proc").topology(), frozenset(range(8))
    )
    verdicts = [
        board_checks.board(found),
        board_checks.cores(found, choice),
        *board_checks.clocks(found, choice.engine),
        board_checks.heat(vitals, Margins()),
        board_checks.trips(vitals),
    ]
    assert [verdict.state for verdict in verdicts] == states.split()
    assert all(verdict.words and "\n" not in verdict.words for verdict in verdicts)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            rk3588_mainline,
            (
                "package, center, npu: critical 115; "
                "bigcore0, bigcore2, littlecore, gpu: passive 85 -2, critical 115 C"
            ),
        ),
        (rk3588_vendor, "soc: passive 75 -2, passive 85 -2, critical 115 -2 C"),
        (pi5, "cpu: passive 80, passive 85, critical 110 C"),
        (pi3b_plus, "cpu: passive 80, passive 85, critical 90 C"),
        (broken, "no zone tells a trip point"),
    ],
)
def test_trips_in_words(build: tree.Builder, words: str, tmp_path: Path) -> None:
    """Zones with the same trips together, with hysteresis, and with what a Raspberry Pi's firmware does unsaid."""
    found, vitals = read(build, tmp_path)
    known = replace(vitals, zones=with_known_trips(vitals.zones, found.name, None))
    assert board_checks.trips(known).words == words


def test_silent_sensors(tmp_path: Path) -> None:
    """Zones that should tell a temperature and do not are named, as long as others do."""
    told = board_checks.sensors(read(stuck, tmp_path / "stuck")[1])
    assert told is not None
    assert (told.state, told.words.split(":")[0]) == ("warning", "bigcore0, gpu are silent or lie")
    for build in (rk3588_mainline, pi5, nothing):
        assert board_checks.sensors(read(build, tmp_path / build.__name__)[1]) is None


def test_silent_where_it_matters() -> None:
    """Heat goes by no zone without a trip: one that tells its temperature stands in for none of the others."""
    soc = Zone("soc-thermal", None, (Trip("passive", 85.0),))
    vitals = Vitals(zones=(soc, Zone("gpu-thermal", 41.0)))
    verdict = board_checks.heat(vitals, Margins())
    assert (verdict.state, verdict.words) == (
        "warning",
        "every sensor that heat could go by is silent or lies",
    )
    assert board_checks.sensors(vitals) is None


@pytest.mark.parametrize(
    ("temp_c", "state"), [(50.0, "ok"), (75.0, "warning"), (82.0, "warning"), (86.0, "failure")]
)
def test_heat(temp_c: float, state: State, tmp_path: Path) -> None:
    """Near the trip a warning, past it a failure, with what to do."""
    read(rk3588_mainline, tmp_path)
    set_temp_c(tmp_path, "bigcore0-thermal", temp_c)
    vitals = VitalsReader(tmp_path / "sys", tmp_path / "proc").read()
    verdict = board_checks.heat(vitals, Margins())
    assert verdict.state == state
    assert (verdict.mend is None) == (state == "ok")


def test_governors_and_caps(tmp_path: Path) -> None:
    """A sleepy governor and a capped clock are told with the command that mends them; intel_pstate's is none."""
    root = rk3588_mainline(tmp_path / "rock")
    policies = root / "sys/devices/system/cpu/cpufreq"
    tree.put(policies / "policy4/scaling_governor", "powersave\n")
    tree.put(policies / "policy6/scaling_max_freq", "1608000\n")
    found = VitalsReader(root / "sys", root / "proc").board()
    assert [one.state for one in board_checks.clocks(found, (4, 5, 6, 7), (6, 7))] == ["warning", "ok"]
    first, second = board_checks.clocks(found, (4, 5, 6, 7))
    assert (first.state, second.state) == ("warning", "warning")
    assert first.mend == "echo ondemand | sudo tee /sys/devices/system/cpu/cpu4/cpufreq/scaling_governor"
    assert second.mend == "echo 2400000 | sudo tee /sys/devices/system/cpu/cpu6/cpufreq/scaling_max_freq"
    pc, _ = read(x86, tmp_path / "pc")
    assert {verdict.state for verdict in board_checks.clocks(pc, (0, 1, 2, 3))} == {"ok"}


def test_cores_that_are_kept_away(tmp_path: Path) -> None:
    """A cpuset with half of the big cores, a quota, and settings that ask for cores that are not there."""
    found, _ = read(rk3588_mainline, tmp_path)
    small = replace(found, allowed=(0, 1, 4, 5))
    choice = Choice((4, 5), (0, 1), "big cores by cpu_capacity")
    assert "6-7" in board_checks.cores(small, choice).words
    assert board_checks.cores(found, choice).state == "ok"  # it does not say what is allowed
    little = replace(choice, engine=(0, 1), kept_away=(4, 5, 6, 7))
    assert "isolcpus" in (board_checks.cores(small, little).mend or "")
    assert "CPUQuota" in (board_checks.cores(replace(small, cpu_quota=1.0), choice).mend or "")
    assert board_checks.cores(found, None, "cores: 900 not on this board").state == "failure"


@pytest.mark.parametrize(
    ("enabled", "size", "state", "words"),
    [
        ("always [madvise] never\n", "2097152\n", "ok", "the engine asks"),
        ("[always] madvise never\n", "2097152\n", "ok", "to everybody"),
        ("always madvise [never]\n", "2097152\n", "warning", "gives none"),
        ("always madvise [never]\n", "33554432\n", "ok", "of 32 MiB"),
        ("always madvise never\n", "2097152\n", "unknown", "does not tell"),
        ("always [madvise] never\n", "", "unknown", "does not tell"),
    ],
)
def test_huge_pages(enabled: str, size: str, state: State, words: str) -> None:
    """Where the kernel gives none it is told how it would; pages too large for the engine are no fault."""
    verdict = board_checks.huge_pages(parse(enabled, size))
    assert (verdict.state, words in verdict.words) == (state, True)
    assert (verdict.mend is not None) == (state == "warning")


def test_huge_pages_that_are_not_wanted() -> None:
    """The doctor tells what the engine does, not what the kernel would give."""
    found = parse("always [madvise] never\n", "2097152\n")
    slower = Measured((10.0,), (12.0,))
    assert "engine.huge_pages is off" in board_checks.huge_pages(found, "off").words
    assert "1.20 times as fast without" in board_checks.huge_pages(found, "auto", slower).words
    assert "asks for them" in board_checks.huge_pages(found, "on", slower).words
    assert "asks for them" in board_checks.huge_pages(found, "auto", Measured((12.0,), (10.0,))).words


def test_a_weak_supply(tmp_path: Path) -> None:
    """Only boards that watch it are judged."""
    verdict = board_checks.supply(read(pi3b_plus, tmp_path / "3")[1])
    assert verdict is not None
    assert verdict.state == "failure"
    assert board_checks.supply(read(rk3588_mainline, tmp_path / "rock")[1]) is None


@pytest.mark.parametrize(
    ("sets", "library", "state"),
    [
        (("asimddp",), Library(frozenset({"NEON", "DOTPROD"})), "ok"),
        (("asimddp", "i8mm"), Library(frozenset({"NEON", "DOTPROD"})), "warning"),
        (("asimddp",), Library(frozenset({"NEON"})), "warning"),
        ((), Library(frozenset({"NEON"})), "warning"),
        (("avx2", "avx512f"), Library(frozenset({"AVX2", "AVX512"})), "ok"),
        (("avx2",), Library(None, "no such module"), "failure"),
        ((), Library(None, "it ended with SIGILL", illegal=True), "failure"),
    ],
)
def test_instruction_sets(sets: tuple[str, ...], library: Library, state: State) -> None:
    """What the processor has and the build does not use is told, and a build for another processor fails."""
    verdict = board_checks.instructions(Board(instruction_sets=sets), library)
    assert verdict.state == state


@pytest.mark.parametrize(
    ("layers", "gpus", "backends", "state", "words"),
    [
        (0, (), (), None, ""),
        (0, ("V3D 7.1",), ("vulkan",), "ok", "V3D 7.1: not used, engine.gpu_layers is 0"),
        (99, ("V3D 7.1",), ("vulkan",), "ok", "V3D 7.1: engine.gpu_layers is 99"),
        (99, (), (), "warning", "no code for a GPU"),
        (99, (), ("cuda", "vulkan"), "warning", "built for cuda and vulkan and finds no GPU"),
    ],
)
def test_a_gpu(
    layers: int, gpus: tuple[str, ...], backends: tuple[str, ...], state: State | None, words: str
) -> None:
    """Layers that the settings put on a GPU have one, or it is said what is missing and what mends it."""
    library = Library(frozenset({"NEON"}), gpus=gpus, gpu_backends=frozenset(backends))
    verdict = board_checks.gpu(library, layers)
    assert (None if verdict is None else verdict.state) == state
    if verdict is not None:
        assert words in verdict.words
        assert ("gpu_layers" in (verdict.mend or "")) == (state == "warning" and not backends)
        assert ("GGML_VK_VISIBLE_DEVICES" in (verdict.mend or "")) == (state == "warning" and bool(backends))
    assert board_checks.gpu(Library(None, "no such module"), layers) is None


# the model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "free", "running", "state"),
    [
        (8 * GIB, 7 * GIB, False, "ok"),
        (GIB, GIB // 2, False, "failure"),  # a Raspberry Pi 3B+
        (4 * GIB, GIB, False, "warning"),
        (4 * GIB, GIB, True, "ok"),  # the model is in memory already
        (None, None, False, "unknown"),
    ],
)
def test_memory(total: int | None, free: int | None, running: bool, state: State) -> None:  # noqa: FBT001 - a table
    """Weights, KV cache and code against the board."""
    assert model_checks.memory(R1, Room(), total, free, running).state == state


def test_the_model_s_figures() -> None:
    """A whole Q4_0 file passes; a cut one, another format, a too long context and a lack of template do not."""
    assert model_checks.file(R1, 1_070_000_000, 0, "").state == "ok"
    assert model_checks.file(R1, 1_070_000_000, 0, "").words.endswith(" 1070 MB")
    assert "2.0 MB" in model_checks.file(R1, 1_070_000_000, 2_000_000, "").words
    none = model_checks.file(None, 0, 0, "m.gguf: no such file; correct model.path")
    assert (none.state, none.words, none.mend) == ("failure", "m.gguf: no such file", "correct model.path")
    assert model_checks.quantisation(R1, "m.gguf").state == "ok"
    other = model_checks.quantisation(replace(R1, quantisation="Q8_0"), "/m/a.gguf")
    assert other.mend == "edged model add --q4-0 /m/a.gguf, and set model.path to what it prints"
    assert model_checks.context(R1, Room()) is None
    assert model_checks.context(R1, Room(context_max=200_000)) is not None
    assert model_checks.template(R1, configured=False).state == "ok"
    assert model_checks.template(replace(R1, has_template=False), configured=False).state == "warning"
    assert model_checks.template(replace(R1, has_template=False), configured=True).state == "ok"
    wrong = model_checks.template(R1, configured=True, reason="t.jinja: line 1: what; correct it")
    assert (wrong.state, wrong.words, wrong.mend) == ("failure", "t.jinja: line 1: what", "correct it")


@pytest.mark.parametrize(
    ("wanted", "found", "state"),
    [
        ("a" * 64, "a" * 64, "ok"),
        ("a" * 64, "b" * 64, "failure"),
        ("a" * 64, None, "unknown"),
        (None, "b" * 64, "warning"),
    ],
)
def test_hashes(wanted: str | None, found: str | None, state: State) -> None:
    """A hash that is not set is a warning that brings the line to set."""
    verdict = model_checks.sha256(wanted, found)
    assert verdict.state == state
    assert wanted is not None or (found or "") in (verdict.mend or "")


def test_calibrations() -> None:
    """None and a stale one ask for `edged calibrate`."""
    for made, reason in ((None, None), (None, "it was made with another model")):
        verdict = model_checks.calibration(made, reason, "edged calibrate")
        assert (verdict.state, verdict.mend) == ("warning", "edged calibrate")
        assert reason is None or verdict.words == reason
    fits = calibration.Calibration(
        format=1,
        edged="1.0",
        made_unix_s=0,
        key=calibration.Key(1, 0, None, None, (0, 1, 2, 3), "0.3.36"),
        decode_threads=2,
        prefill_threads=4,
        decode_tokens_per_s=12.44,
        prefill_tokens_per_s=83.4,
        read_bytes_per_s=None,
        bytes_per_token=1,
        kv_bytes_per_token=0,
        others_share=None,
        notes=(),
        trials=(),
    )
    figures = "decode 12.4 tokens/s with 2, prefill 83 with 4 threads"
    doubtful = msgspec.structs.replace(fits, notes=("others computed", "and more"))
    assert lines(*(model_checks.calibration(one, None, "again") for one in (fits, doubtful))) == [
        f"calibration ok: {figures}",
        f"calibration warning: {figures}; others computed -> again",
    ]


# around the node --------------------------------------------------------------------------------------------


def test_settings() -> None:
    """No file is no fault; a wrong one is, a line each; warnings are warnings."""
    assert [
        one.state
        for one in node_checks.settings(None, ["environment: model.path (...): missing; accepted: path"], ())
    ] == ["unknown"]
    assert [one.state for one in node_checks.settings(None, ["EDGED_X: unknown"], ())] == ["failure"]
    assert [one.state for one in node_checks.settings("e.toml", ["a", "b"], ())] == ["failure", "failure"]
    assert [one.state for one in node_checks.settings("e.toml", (), ["w"])] == ["warning"]
    assert [one.state for one in node_checks.settings("e.toml", (), ())] == ["ok"]


@pytest.mark.parametrize("kind", ["network", "tls", "credentials"])
def test_brokers(kind: str) -> None:
    """Each way to fail has its own way to mend it."""
    verdict = broker_checks.broker("b:1883", BrokerAnswer(kind == "credentials", reason="no", kind=kind), "b")
    assert verdict.state == "failure"
    assert verdict.mend
    told = BrokerAnswer(reached=False, reason="no TLS at this port; remove [mqtt.tls]", kind=kind)
    verdict = broker_checks.broker("b:1883", told, "b")
    assert (verdict.words, verdict.mend) == ("b:1883: no TLS at this port", "remove [mqtt.tls]")
    for logged_in, words in ((True, "takes our credentials"), (False, "running daemon")):
        verdict = broker_checks.broker("b:1883", BrokerAnswer(reached=True, logged_in=logged_in), "b")
        assert verdict.state == "ok"
        assert words in verdict.words


def test_a_node_without_a_broker() -> None:
    """One that is asked over HTTP alone misses none; one that is there and refuses it is told all the same."""
    absent = BrokerAnswer(reached=False, reason="nothing listens there", kind="network")
    told = broker_checks.broker("b:1883", absent, "b", wanted=False)
    assert (told.state, "HTTP alone" in told.words, told.mend) == ("unknown", True, None)
    refused = BrokerAnswer(reached=True, reason="no", kind="credentials")
    assert broker_checks.broker("b:1883", refused, "b", wanted=False).state == "failure"


def test_without_tls() -> None:
    """Needless on this machine; over a network everybody reads along."""
    assert broker_checks.plain("127.0.0.1", local=True).state == "ok"
    told = broker_checks.plain("broker.example", local=False)
    assert (told.state, "broker.example" in told.words) == ("warning", True)


def test_what_is_told_once() -> None:
    """Of a file that is not there the settings say less than who wants it; each other warning stays."""
    path, key = "model.path: '/m.gguf': no such file", "http.tls.key: '/k': no such file"
    same = "mqtt.tls.ca: /ca.pem: no PEM; accepted: PEM files"
    told = node_checks.settings("e.toml", (), [path, key, same, "no file"])
    assert node_checks.once([*told, ok("model", "/m.gguf: fine")]) == [*told, ok("model", "/m.gguf: fine")]
    told += [failure("model", "/m.gguf: no"), failure("broker", "b:8883: mqtt.tls.ca: /ca.pem: no PEM")]
    assert [one.words for one in node_checks.once(told)] == [
        key,
        "no file",
        *(one.words for one in told[-2:]),
    ]


def test_what_a_daemon_says_of_its_engine() -> None:
    """Of one that loads, or is ready, nothing: that passes, or is well."""
    assert node_checks.engine({}) is None
    assert node_checks.engine({"engine": "starting", "reason": "it ended with SIGSEGV"}) is None
    failed = node_checks.engine({"engine": "failed", "reason": "m.gguf: no; put it there"})
    broken = node_checks.engine({"engine": "broken", "reason": "it ended with SIGSEGV"})
    assert lines(*filter(None, (failed, broken))) == [
        "engine failure: m.gguf: no -> put it there",
        "engine failure: it ended with SIGSEGV -> edged logs -p warning",
    ]


def test_daemons(tmp_path: Path) -> None:
    """The process that holds the journal is found."""
    assert machine.journal_holder(tmp_path)[0] is None
    with (tmp_path / "journal.db").open("wb"):
        assert machine.journal_holder(tmp_path)[0] == os.getpid()
    assert machine.journal_holder(tmp_path)[0] is None


@pytest.mark.parametrize(
    ("begins", "ends", "state"),
    [(-1, 365, "ok"), (-1, 10, "warning"), (-400, -1, "failure"), (1, 365, "failure")],
)
def test_certificate_dates(begins: int, ends: int, state: State) -> None:
    """Days from now."""
    day = broker_checks.DAY_S
    now = 1_800_000_000.0
    one = Certificate("ca.pem", now + begins * day, now + ends * day)
    assert broker_checks.certificate(one, now).state == state


def test_clocks() -> None:
    """Unsynchronised is a warning, 1970 a worse one, unknown none."""
    now = 1_800_000_000.0
    assert node_checks.clock(True, now).state == "ok"
    assert node_checks.clock(False, now).state == "warning"
    assert node_checks.clock(None, now).state == "unknown"
    assert "years" in node_checks.clock(True, 1000.0).words


@pytest.mark.parametrize(
    ("folder", "state"),
    [
        (Folder("/s", exists=True, writable=True, free_bytes=10 * GIB), "ok"),
        (Folder("/s", exists=True, writable=True, free_bytes=100 * 2**20), "warning"),
        (Folder("/s", exists=True, writable=True, free_bytes=2**20), "failure"),
        (Folder("/s", exists=True, writable=False, free_bytes=10 * GIB), "failure"),
        (Folder("/s", exists=False, writable=False, free_bytes=None), "unknown"),
        (Folder("/s", exists=True, writable=False, free_bytes=None, closed=True), "unknown"),
    ],
)
def test_disks(folder: Folder, state: State) -> None:
    """The state folder's room and rights."""
    assert node_checks.disk(folder, 64 * 2**20).state == state


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("/dev/mmcblk0p2 / ext4 rw 0 0", False),
        ("/dev/mmcblk0p2 / ext4 ro 0 0\ntmpfs /var tmpfs rw 0 0", True),
        (
            "/dev/mmcblk0p2 / ext4 ro 0 0\ntmpfs /var tmpfs rw 0 0\n/dev/sda1 /var/lib/edged ext4 rw 0 0",
            False,
        ),
        ("tmpfs /var/lib/edged tmpfs rw 0 0\n/dev/sda1 /var/lib/edged ext4 rw 0 0", False),
        (
            (
                "/dev/mmcblk0p2 /media/root-ro ext4 ro 0 0\ntmpfs-root /media/root-rw tmpfs rw 0 0\n"
                "overlayroot / overlay rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/w 0 0"
            ),
            True,
        ),
        ("overlay / overlay rw,lowerdir=/a,upperdir=/var/lib/docker/overlay2/f/diff,workdir=/w 0 0", False),
        ("", False),
    ],
)
def test_what_stands_in_memory(mounts: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """As the kernel lists the mounts of a plain board, of /var on a tmpfs, and of a root that is kept read-only."""
    assert machine.in_memory(Path("/var/lib/edged"), mounts) is expected


def test_a_disk_that_only_the_daemon_knows_to_hang() -> None:
    """It has room and rights, and takes nothing."""
    folder = Folder("/s", exists=True, writable=True, free_bytes=10 * GIB)
    verdict = node_checks.unwritable(folder, "the disk has not answered for 12 s")
    assert (verdict.state, "has not answered for 12 s" in verdict.words) == ("failure", True)


RUNNING = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0"}


@pytest.mark.parametrize(
    ("unit", "states"),
    [
        (None, ["unknown"]),
        (Unit({"LoadState": "not-found"}), ["unknown"]),
        (Unit({"LoadState": "masked", "ActiveState": "inactive"}), ["warning"]),
        (Unit({"LoadState": "bad-setting", "ActiveState": "inactive"}), ["failure"]),
        (Unit({**RUNNING, "UnitFileState": "enabled"}), ["ok"]),
        (Unit({**RUNNING, "UnitFileState": "disabled"}), ["ok", "warning"]),
        (Unit(RUNNING, 1.1), ["ok", "ok"]),
        (Unit(RUNNING, 9.6), ["ok", "warning"]),
        (Unit({**RUNNING, "NRestarts": "7"}), ["warning"]),
        (Unit({**RUNNING, "NeedDaemonReload": "yes"}), ["ok", "warning"]),
        (Unit({**RUNNING, "ActiveState": "failed"}), ["failure"]),
        (Unit({**RUNNING, "ActiveState": "inactive"}), ["warning"]),
        (Unit({**RUNNING, "DropInPaths": "/etc/systemd/system/edged.service.d/a.conf"}), ["ok", "ok"]),
    ],
)
def test_services(unit: Unit | None, states: list[State]) -> None:
    """Active, restarted, changed on disk, hardened."""
    assert [verdict.state for verdict in node_checks.service(unit)] == states


def test_a_unit_that_keeps_gpus_away() -> None:
    """The doctor sees the GPU, the service as shipped does not: said where layers shall be computed there."""
    shipped, opened = (Unit({**RUNNING, "PrivateDevices": value}) for value in ("yes", "no"))
    assert [verdict.state for verdict in node_checks.service(shipped)] == ["ok"]
    [_, kept] = node_checks.service(shipped, gpu=True)
    assert (kept.state, "edged.service.d/gpu.conf" in (kept.mend or "")) == ("warning", True)
    assert [verdict.state for verdict in node_checks.service(opened, gpu=True)] == ["ok"]


# readings ---------------------------------------------------------------------------------------------------


def test_dates_of_a_real_certificate(tmp_path: Path) -> None:
    """The dates in our own certificate's file are the ones openssl wrote; other files are told as what they are."""
    authority = Authority(tmp_path)
    files = authority.server()
    [one] = certificates(files.cert)
    assert not one.reason
    assert one.begins_s < one.ends_s
    [signs] = certificates(authority.pem)
    assert signs.ends_s > one.ends_s
    both = tmp_path / "both.pem"
    for parts in ((files.cert, authority.pem), (authority.pem, files.cert)):
        both.write_text("".join(part.read_text() for part in parts))
        assert certificates(both)[0].ends_s == one.ends_s, "a chain is as long as its weakest part"
        assert certificates(both, authorities=True)[0].ends_s == signs.ends_s
    for content in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "nonsense"):
        (tmp_path / "bad.pem").write_text(content)
        assert certificates(tmp_path / "bad.pem")[0].reason
    assert certificates(tmp_path / "no.pem")[0].reason


@given(st.binary(max_size=200))
def test_no_bytes_are_a_certificate(content: bytes) -> None:
    """Nothing but `ValueError` comes out."""
    with pytest.raises(ValueError, match="certificate"):
        certificate.validity(b"\x30" + content)


def test_this_machine(tmp_path: Path) -> None:
    """Clock, folders and service are looked at without raising."""
    assert machine.clock_synchronised() in {True, False, None}
    assert machine.folder(tmp_path).writable
    assert list(tmp_path.iterdir()) == []
    assert not machine.folder(tmp_path / "no").exists
    (tmp_path / "gone").symlink_to(tmp_path / "no")
    unmounted = machine.folder(tmp_path / "gone")
    assert (unmounted.exists, unmounted.writable) == (True, False)
    assert machine.folder(Path("/dev/shm")).in_memory  # noqa: S108 - a tmpfs by shm_overview(7)
    machine.unit()


# the screen -------------------------------------------------------------------------------------------------

ALL = [
    ok(
        "board",
        "Radxa ROCK 5B, cores 0-3 Cortex-A55 1.80 GHz, 4-5 Cortex-A76 2.40 GHz, 6-7 Cortex-A76 2.40 GHz",
    ),
    unknown("service", "systemd does not run here"),
    warning("hash", "model.sha256 is not set", f'under [model]: sha256 = "{"ab" * 32}"'),
    failure("broker", "b:1883: nothing listens there", "systemctl start mosquitto"),
]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_fits(width: int) -> None:
    """No line is wider than the terminal, nothing is lost, and mends stand with their verdicts."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(screen.table(ALL))
    console.print(screen.summary(ALL))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    packed = re.sub(r"\s+", "", shown)
    for verdict in ALL:
        assert re.sub(r"\s+", "", verdict.words) in packed
        assert verdict.mend is None or re.sub(r"\s+", "", verdict.mend) in packed
    assert "1 failure, 1 warning, 1 ok" in shown


def test_the_screen_as_it_is_read() -> None:
    """A sign and a name before each matter, the name once; what mends it below, where something is to be mended."""
    told = [
        ok("board", "a board"),
        warning("clocks", "slow", "mend one"),
        Verdict("clocks", "ok", "fast", "nothing to do"),
        warning("hash", "none"),
        failure("disk", "full", "mend two"),
        failure("disk", "in memory"),
        unknown("service", "none here"),
    ]
    console = Console(file=io.StringIO(), width=30, highlight=False)
    console.print(screen.table(told, ascii_only=True))
    console.print(screen.summary(told))
    assert isinstance(console.file, io.StringIO)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "+ board   a board",
        "! clocks  slow",
        "          -> mend one",
        "+         fast",
        "! hash    none",
        "x disk    full",
        "          -> mend two",
        "x         in memory",
        ". service none here",
        "2 failures, 2 warnings, 2 ok",
    ]
    assert screen.summary(told[:1]).plain == "1 ok"


def test_json() -> None:
    """For scripts: the worst state, each check, the board."""
    told = json.loads(json.dumps(screen.as_json(ALL, {"name": "x"})))
    assert told["state"] == "failure"
    assert [check["state"] for check in told["checks"]] == ["ok", "unknown", "warning", "failure"]
    assert "mend" not in told["checks"][0]


def test_clock_caps(tmp_path: Path) -> None:
    """May heat lower the clocks, and if not, what would let it."""
    found = Caps(rk3588_mainline(tmp_path) / "sys").look((4, 5, 6, 7))
    assert board_checks.caps(found, "do", wanted=True).state == "ok"
    assert "off" in board_checks.caps(found, "do", wanted=False).words
    barred = [replace(one, writable=False) for one in found]
    told = board_checks.caps(barred, "do", wanted=True)
    assert (told.state, "policy4, policy6" in told.words) == ("warning", True)
    assert (told.mend or "").startswith("do; ")
    assert board_checks.caps((), "", wanted=True).state == "unknown"


# in whole words ---------------------------------------------------------------------------------------------

LIBRARY_MISSING = "llama.cpp cannot be loaded: no such module; pip install it"
ANY_GOVERNOR = "/sys/devices/system/cpu/cpu4/cpufreq/scaling_governor"
ANY_CAP = "/sys/devices/system/cpu/cpu6/cpufreq/scaling_max_freq"


def lines(*verdicts: Verdict | None) -> list[str]:
    """As an operator reads them: what it is, how it is, and what mends it."""
    told = [one for one in verdicts if one is not None]
    assert len(told) == len(verdicts)
    return [f"{one.name} {one.state}: {one.words}" + (f" -> {one.mend}" if one.mend else "") for one in told]


def test_what_is_said_of_a_model() -> None:
    """Figures, limits and commands: at the edge of each bound."""
    nameless = replace(R1, name="", parameters=134_515_008, weight_bytes=91_000_000)
    bare = replace(R1, has_template=False)
    need = "needs 1507 MB: weights 1067 MB, KV cache 235 MB (4 x 2048 tokens)"
    assert lines(
        model_checks.file(R1, 1_070_000_000, 0, ""),
        model_checks.file(nameless, 91_700_000, 0, ""),
        model_checks.file(R1, 1, 2_500_000, ""),
        model_checks.file(None, 0, 0, "m.gguf: no such file"),
        model_checks.quantisation(R1, "m.gguf"),
        model_checks.quantisation(replace(R1, quantisation="Q8_0"), "m.gguf"),
        model_checks.sha256(None, None),
        model_checks.sha256(None, "b" * 64),
        model_checks.sha256("a" * 64, "b" * 64),
        model_checks.sha256("a" * 64, "a" * 64),
        model_checks.template(R1, configured=False),
        model_checks.template(bare, configured=True),
        model_checks.template(bare, configured=False),
        model_checks.memory(R1, Room(), None, None, False),
        model_checks.memory(R1, Room(), 8 * GIB, 7 * GIB, False),
        model_checks.memory(R1, Room(), 1_772_801_000, GIB, True),
        model_checks.memory(R1, Room(2, 1024, "q8_0"), GIB, GIB // 2, False),
        model_checks.memory(R1, Room(), 4 * GIB, GIB, False),
        model_checks.context(R1, Room(context_max=131_073)),
    ) == [
        "model ok: DeepSeek R1 Distill Qwen 1.5B, qwen2, 1.78 billion weights, 1070 MB",
        "model ok: qwen2, 135 million weights, 92 MB",
        (
            "model failure: the file was cut: 2.5 MB of its tensors are missing"
            " -> copy the model again, and compare sha256sum"
        ),
        "model failure: m.gguf: no such file -> put the file there, or correct model.path",
        "format ok: Q4_0, 929 MB read a token",
        (
            "format warning: mostly Q8_0: llama.cpp is fastest on these CPUs with Q4_0"
            " -> edged model add --q4-0 m.gguf, and set model.path to what it prints"
        ),
        (
            "hash warning: model.sha256 is not set: damaged weights would not be noticed"
            " -> sha256sum the file, and set model.sha256"
        ),
        (
            "hash warning: model.sha256 is not set: damaged weights would not be noticed"
            f' -> under [model]: sha256 = "{"b" * 64}"'
        ),
        "hash failure: the file's SHA-256 is bbbbbbbbbbbb..., not the one in model.sha256 -> copy it again",
        "hash ok: SHA-256 aaaaaaaaaaaa... as set",
        "template ok: of the file",
        "template ok: of the settings",
        "template warning: the file brings no chat template: ChatML is assumed -> set model.chat_template",
        f"memory unknown: {need}",
        f"memory ok: {need}; 7516 of 8590 MB free",
        (
            f"memory failure: {need}; 1074 of 1773 MB free"
            ' -> lower engine.slots or engine.context_max; kv_type = "q8_0"'
        ),
        (
            "memory failure: needs 1303 MB: weights 1067 MB, KV cache 31 MB (2 x 1024 tokens); 537 of 1074 MB free"
            " -> lower engine.slots or engine.context_max"
        ),
        (
            f"memory warning: {need}; 1074 of 4295 MB free"
            ' -> end what holds the rest, or lower engine.slots or engine.context_max; kv_type = "q8_0"'
        ),
        (
            "context warning: engine.context_max is 131073, the model was trained for 131072 tokens"
            " -> context_max = 131072"
        ),
    ]
    assert model_checks.memory(R1, Room(), 1_772_802_000, GIB, True).state == "ok", "what the unit leaves"
    assert model_checks.context(R1, Room(context_max=131_072)) is None


def test_what_is_said_of_settings_and_broker() -> None:
    """What an operator can do about each is a command, or the settings to look at."""
    missing = "environment: model.path: missing; accepted: path"
    took = BrokerAnswer(reached=True, round_trip_ms=1.26)
    assert lines(
        *node_checks.settings(None, [missing], ()),
        *node_checks.settings(None, [missing, "EDGED_X: unknown"], ()),
        *node_checks.settings("e.toml", [missing], ()),
        *node_checks.settings("e.toml", (), ["w"]),
        *node_checks.settings(None, (), ["w"]),
        *node_checks.settings("e.toml", (), ()),
        *node_checks.settings(None, (), ()),
        broker_checks.broker("b:1883", replace(took, logged_in=True), "b"),
        broker_checks.broker("b:1883", took, "b", missed=True),
        broker_checks.broker("b:1883", BrokerAnswer(reached=True, logged_in=True), "b", missed=True),
        broker_checks.broker("b:1883", BrokerAnswer(reached=False, reason="no", kind="network"), "b"),
        broker_checks.broker("b:1883", BrokerAnswer(reached=False, reason="no", kind="tls"), "b"),
        broker_checks.broker("b:1883", BrokerAnswer(reached=True, reason="no", kind="credentials"), "b"),
        broker_checks.broker("b:1883", BrokerAnswer(reached=False, kind="network"), "b", wanted=False),
        broker_checks.broker("b:1883", BrokerAnswer(reached=True, logged_in=True), "b", wanted=False),
        node_checks.daemon(7, unsure=False, told={}, start="run"),
        node_checks.daemon(7, unsure=False, told={"draining": True}, start="run"),
        node_checks.daemon(7, unsure=False, told=None, start="run"),
        node_checks.daemon(None, unsure=True, told={"draining": False}, start="run"),
        node_checks.daemon(None, unsure=True, told={}, start="run"),
        node_checks.daemon(None, unsure=False, told=None, start="run"),
        node_checks.daemon(None, unsure=False, told={}, start=None),
        node_checks.port(8080, "h:8080: Address already in use"),
    ) == [
        "settings unknown: no settings file: only what needs none is looked at (edged doctor --config FILE)",
        f"settings failure: {missing} -> env | grep EDGED_",
        "settings failure: EDGED_X: unknown -> env | grep EDGED_",
        f"settings failure: {missing} -> edged config check e.toml",
        "settings warning: w -> edit e.toml",
        "settings warning: w",
        "settings ok: e.toml: accepted",
        "settings ok: the environment: accepted",
        "broker ok: b:1883: takes our credentials, answers in 1.3 ms",
        "broker ok: b:1883: can be reached in 1.3 ms; the running daemon uses the credentials",
        (
            "broker failure: b:1883: takes our credentials, but the running daemon is not connected"
            " -> sudo systemctl restart edged (passwords and certificates are read at its start)"
        ),
        (
            "broker failure: b:1883: no"
            " -> start the broker (systemctl start mosquitto), or correct mqtt.host and mqtt.port; ping b"
        ),
        "broker failure: b:1883: no -> compare mqtt.tls.ca with the broker's certificate, and the clocks",
        (
            "broker failure: b:1883: no"
            " -> mosquitto_passwd on the broker; mqtt.username and mqtt.password_file here"
        ),
        "broker unknown: none at b:1883, and none in the settings: asked over HTTP alone",
        "broker ok: b:1883: takes our credentials, answers",
        "daemon ok: running (process 7)",
        "daemon warning: running (process 7), drained: it takes no questions -> edged undrain",
        "daemon failure: running (process 7), but it answers nothing -> sudo systemctl restart edged",
        "daemon ok: running",
        "daemon unknown: cannot be told by this account (sudo edged doctor)",
        "daemon warning: not running -> run",
        "daemon warning: not running",
        (
            "http warning: another program has the port: h:8080: Address already in use"
            " -> sudo ss -ltnp 'sport = :8080' names it; end it, or set http.port to another one"
        ),
    ]


def test_what_is_said_of_time_disk_and_service() -> None:
    """Days and megabytes at the edge of each bound."""
    day, now, mib = broker_checks.DAY_S, 1_800_000_000.0, 2**20

    def dated(begins: float, ends: float) -> Certificate:
        return Certificate("ca.pem", now + begins * day, now + ends * day)

    def free(size_bytes: int | None, *, writable: bool = True) -> Folder:
        return Folder("/s", exists=True, writable=writable, free_bytes=size_bytes)

    again = {**RUNNING, "ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "12"}
    troubled = {**RUNNING, "NRestarts": "7", "NeedDaemonReload": "yes", "DropInPaths": "/d/a.conf"}
    assert lines(
        broker_checks.certificate(dated(0, 30), now),
        broker_checks.certificate(dated(-1, 29.9), now),
        broker_checks.certificate(dated(-1, 0), now),
        broker_checks.certificate(dated(-9, -1.6), now),
        broker_checks.certificate(dated(0.1, 9), now),
        broker_checks.certificate(Certificate("ca.pem", reason="no PEM"), now),
        node_checks.clock(True, 1_735_689_600.0),
        node_checks.clock(True, 1_735_689_599.0),
        node_checks.clock(False, now),
        node_checks.disk(free((64 + 256) * mib), 64 * mib),
        node_checks.disk(free((64 + 256) * mib - 1), 64 * mib),
        node_checks.disk(free(16 * mib), 64 * mib),
        node_checks.disk(free(16 * mib - 1), 64 * mib),
        node_checks.disk(free(mib, writable=False), 64 * mib),
        node_checks.disk(free(None), 64 * mib),
        node_checks.disk(Folder("/s", exists=False, writable=False, free_bytes=None), 64 * mib),
        node_checks.disk(Folder("/s", exists=True, writable=False, free_bytes=None, closed=True), 64 * mib),
        node_checks.unwritable(free(mib), "SQLITE_FULL"),
        node_checks.in_memory(free(mib)),
        *node_checks.service(Unit(RUNNING, 2.0)),
        *node_checks.service(Unit(troubled, 2.1)),
        *node_checks.service(Unit({**RUNNING, "ActiveState": "failed", "SubState": "failed"})),
        *node_checks.service(Unit(again)),
        *node_checks.service(Unit({**RUNNING, "UnitFileState": "linked"}))[1:],
        *node_checks.service(Unit({"LoadState": "masked"})),
        *node_checks.service(Unit({"LoadState": "error"})),
    ) == [
        "certificate ok: ca.pem: 30 days left",
        "certificate warning: ca.pem: 30 days left -> renew it",
        "certificate warning: ca.pem: 0 days left -> renew it",
        "certificate failure: ca.pem: expired 2 days ago -> renew it",
        "certificate failure: ca.pem: not valid yet; this board's clock may be wrong -> timedatectl",
        "certificate failure: ca.pem: no PEM -> openssl x509 -in ca.pem -noout -dates",
        "clock ok: synchronised",
        "clock warning: it is years behind: certificates will be refused -> sudo timedatectl set-ntp true",
        (
            "clock warning: not synchronised (deadlines hold: they go by another clock)"
            " -> sudo timedatectl set-ntp true"
        ),
        "disk ok: /s: 336 MB free",
        "disk warning: /s: 336 MB free, the journal may take 67 -> make room",
        "disk warning: /s: 17 MB free, the journal may take 67 -> make room",
        "disk failure: /s: 17 MB free -> make room: du -xh /s | sort -h | tail",
        "disk failure: /s cannot be written -> ls -ld /s; mount; df /s",
        "disk unknown: /s: how much is free is not told",
        "disk unknown: /s is not there; the service makes it at its first start",
        "disk unknown: /s cannot be told by this account (sudo edged doctor)",
        "disk failure: the daemon cannot write its journal: SQLITE_FULL -> df /s; sudo dmesg | tail",
        (
            "disk warning: /s is in memory: a power cut loses what was accepted and not answered"
            " -> mount a disk at /s, or set paths.state to one"
        ),
        "service ok: active (running)",
        "hardening ok: exposure 2 of 10",
        "service warning: active (running), restarted 7 times -> journalctl -u edged -p warning -e",
        "unit warning: the file was changed and not loaded -> sudo systemctl daemon-reload",
        "unit ok: changed by /d/a.conf",
        "hardening warning: exposure 2.1 of 10 -> install systemd/edged.service as shipped",
        "service failure: failed (failed) -> journalctl -u edged -e; sudo systemctl start edged",
        (
            "service warning: activating (auto-restart), restarted 12 times"
            " -> journalctl -u edged -e; sudo systemctl start edged"
        ),
        "unit warning: not enabled: it does not start when the board does -> sudo systemctl enable edged",
        "service warning: masked: systemd does not start it -> sudo systemctl unmask edged",
        "service failure: systemd cannot use its unit (error) -> systemd-analyze verify edged.service",
    ]


def test_what_is_said_of_a_board(tmp_path: Path) -> None:
    """Cores, clocks and heat of a ROCK 5B in several states."""
    rock, vitals = read(rk3588_mainline, tmp_path)
    choice = Choice((4, 5, 6, 7), (0, 1, 2, 3), "big cores by cpu_capacity")
    half = Choice((4, 5), (0, 1), "big cores by cpu_capacity")
    policies = tmp_path / "sys/devices/system/cpu/cpufreq"
    tree.put(policies / "policy4/scaling_governor", "powersave\n")
    tree.put(policies / "policy6/scaling_max_freq", "1608000\n")
    held = VitalsReader(tmp_path / "sys", tmp_path / "proc").board()
    cores = "cores 0-3 Cortex-A55 1.80 GHz, 4-5 Cortex-A76 2.40 GHz, 6-7 Cortex-A76 2.40 GHz"
    cold = replace(vitals, zones=tuple(replace(zone, trips=()) for zone in vitals.zones))
    assert lines(
        board_checks.board(rock),
        board_checks.board(replace(rock, name=None)),
        board_checks.board(replace(rock, offline=(6, 7))),
        board_checks.board(Board(name="x")),
        board_checks.cores(rock, choice),
        board_checks.cores(rock, replace(choice, reason="engine.cores, 4-7")),
        board_checks.cores(rock, None),
        board_checks.cores(replace(rock, cpu_quota=3.5), choice),
        board_checks.cores(replace(rock, cpu_quota=4.0), choice),
        board_checks.cores(replace(rock, allowed=(0, 1, 4, 5)), half),
        *board_checks.clocks(rock, (4, 6)),
        *board_checks.clocks(held, (4, 6), (6, 7)),
        *board_checks.clocks(held, (6,), (6,)),
        *board_checks.clocks(Board(), (0,)),
        board_checks.heat(vitals, Margins()),
        board_checks.heat(cold, Margins()),
        board_checks.heat(Vitals(), Margins()),
        board_checks.supply(replace(vitals, under_voltage=False)),
    ) == [
        f"board ok: Radxa ROCK 5B, {cores}",
        f"board ok: {cores}",
        (
            f"board warning: Radxa ROCK 5B, {cores}; 6-7 off-line"
            " -> echo 1 | sudo tee /sys/devices/system/cpu/cpu6/online"
        ),
        "board unknown: x, the board says nothing of its cores",
        "cores ok: big cores by cpu_capacity: engine on 4-7",
        "cores ok: engine.cores, 4-7",
        "cores failure: no core may be used -> correct it under [engine], or leave it out",
        (
            "cores warning: big cores by cpu_capacity; but its cgroup allows the time of 3.5 cores only"
            " -> raise CPUQuota= of the unit, or cpu.max of its cgroup"
        ),
        "cores ok: big cores by cpu_capacity: engine on 4-7",
        (
            "cores warning: big cores by cpu_capacity; cores 6-7 of the same kind are not allowed"
            " -> widen AllowedCPUs= of the unit (now 0-1,4-5)"
        ),
        "clocks ok: cores 4-5: schedutil, 2.40 GHz now of 2.40 GHz",
        "clocks ok: cores 6-7: schedutil, 2.40 GHz now of 2.40 GHz",
        f"clocks warning: cores 4-5: powersave, 2.40 GHz now -> echo ondemand | sudo tee {ANY_GOVERNOR}",
        "clocks ok: cores 6-7: schedutil, 2.40 GHz now, held at 1.61 of 2.40 GHz by edged, for heat",
        (
            "clocks warning: cores 6-7: schedutil, 2.40 GHz now, held at 1.61 of 2.40 GHz"
            f" -> echo 2400000 | sudo tee {ANY_CAP}"
        ),
        "clocks unknown: this machine does not tell its clocks (a virtual machine?)",
        "heat ok: bigcore0-thermal is at 48.1 C, 36.9 C below its passive trip of 85.0 C",
        (
            "heat warning: bigcore0-thermal is at 48.1 C; no zone tells a trip point"
            " -> under [heat]: trip_c = where this board throttles, by its maker's word"
        ),
        "heat unknown: no thermal sensor on this machine",
        "supply ok: the voltage holds",
    ]


def test_what_is_said_of_llama_cpp() -> None:
    """By the kernel's names of instruction sets, in the words that the build's options have."""
    again = "bash deploy/try in the checkout, or sh install in the release"
    told = [
        (("asimddp", "sve"), Library(frozenset({"DOTPROD"}))),
        (("asimddp", "i8mm"), Library(frozenset({"DOTPROD"}))),
        (("avx2", "avx512f"), Library(frozenset({"AVX2", "AVX512"}))),
        ((), Library(frozenset())),
        ((), Library(None, LIBRARY_MISSING)),
        ((), Library(None, "why")),
        ((), Library(None, illegal=True)),
    ]
    assert lines(*(board_checks.instructions(Board(instruction_sets=a), b) for a, b in told)) == [
        "llama.cpp ok: uses dotprod",
        f"llama.cpp warning: the processor has i8mm, but this build does not use it -> {again}",
        "llama.cpp ok: uses AVX2, AVX512",
        "llama.cpp warning: neither dotprod nor AVX2: prompts are read slowly on this processor",
        "llama.cpp failure: it cannot be loaded: no such module -> pip install it",
        f"llama.cpp failure: it cannot be loaded: why -> {again}",
        f"llama.cpp failure: it dies of an illegal instruction: this build is for another processor -> {again}",
    ]
