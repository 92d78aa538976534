"""`edged calibrate` and `edged bench` with the real small model, and what a daemon makes of the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon, Sections
from device import MakeDevice

from edged.adapters import calibration_file
from edged.client.local import order
from edged.core import calibration
from edged.core.calibration import Calibration, Trial
from edged.core.huge_pages import Measured
from edged.engine.environment import environment, stands_in_huge_pages
from edged.engine.trial_client import Trials
from edged.engine.trial_messages import LoadTrial

CORE = str(max(os.sched_getaffinity(0)))
ALONE = {"cores": CORE}
"""The engine's section: one core, so that one thread is all there is to choose from."""


def edged(
    *words: str, config: Path | None = None, timeout_s: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run a command of edged with its streams caught."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDGED_")}
    if config is not None:
        environment["EDGED_CONFIG"] = str(config)
    return subprocess.run(
        ["taskset", "--cpu-list", CORE, sys.executable, "-m", "edged", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture
def node(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> DaemonProcess:
    """A node that is not started; its thread counts are not named."""
    return daemon(broker, {"model": {"path": str(small_model)}, "engine": {"slots": 2}})


def state_of(node: DaemonProcess) -> Path:
    """Its state folder."""
    return node.config.parent / "state"


def calibrated(node: DaemonProcess, small_model: Path, **changes: Any) -> Calibration:
    """Write a calibration that fits the node, with one thread the best by far."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    rates = [100.0, *[10.0] * (len(cores) - 1)]
    trials = tuple(
        Trial(kind, cores, count, (rate,))
        for kind in ("decode", "prefill")
        for count, rate in enumerate(rates, 1)
    )
    from edged.adapters.vitals import VitalsReader  # noqa: PLC0415 - only here

    key = calibration_file.key(small_model, None, VitalsReader().topology().board, cores, 0)
    assert key is not None
    made = Calibration(
        format=1,
        edged="test",
        made_unix_s=0,
        key=key,
        decode_threads=1,
        prefill_threads=1,
        decode_tokens_per_s=100.0,
        prefill_tokens_per_s=100.0,
        read_bytes_per_s=None,
        bytes_per_token=1,
        kv_bytes_per_token=0,
        others_share=None,
        notes=(),
        trials=trials,
    )
    made = msgspec.structs.replace(made, **changes)
    calibration_file.write(state_of(node), made)
    return made


def test_calibrate(tmp_path: Path, small_model: Path) -> None:
    """Measures in a process of its own, shows a table, writes a file that fits and a plot, or says it as JSON."""
    config = tmp_path / "edged.toml"
    config.write_text(
        f'[model]\npath = "{small_model}"\n[engine]\ncores = "{CORE}"\n[paths]\nstate = "{tmp_path / "state"}"\n'
    )
    told = edged("calibrate", "--quick", "--anyway", "--svg", str(tmp_path / "plot.svg"), config=config)
    assert told.returncode == 0, told.stderr
    assert "chosen" in told.stdout
    assert "memory reads at" in told.stdout
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    made = calibration_file.read(tmp_path / "state")
    assert made is not None
    assert (made.decode_threads, made.prefill_threads) == (1, 1)
    assert made.prefill_tokens_per_s > made.decode_tokens_per_s > 1
    assert made.key.cores == (int(CORE),)
    assert made.read_bytes_per_s is not None
    assert made.read_bytes_per_s > 1e8
    assert (made.huge_pages is not None) == stands_in_huge_pages(environment(os.environ), Path("/sys"))
    assert max(len(line) for line in told.stdout.splitlines()) <= 80
    (tmp_path / "state/calibration.json").unlink()
    again = edged("calibrate", "--quick", "--anyway", "--json", "--dry", config=config)
    assert again.returncode == 0, again.stderr
    assert calibration.decode(again.stdout.encode()).key == made.key
    assert not (tmp_path / "state/calibration.json").exists()


def test_where_nothing_may_be_written(tmp_path: Path, small_model: Path) -> None:
    """That is said first: it was when all was measured, and the minutes were lost. Of a cut file nothing is."""
    cut, config = tmp_path / "cut.gguf", tmp_path / "edged.toml"
    cut.write_bytes(small_model.read_bytes()[:-1000])
    config.write_text(f'[model]\npath = "{cut}"\n[paths]\nstate = "{cut}/state"\n')
    told = edged("calibrate", "--anyway", config=config)
    assert told.returncode == 1
    assert "the account of the service or root may write there" in told.stderr
    assert "may write" not in edged("calibrate", "--anyway", "--dry", config=config).stderr
    config.write_text(f'[model]\npath = "{small_model}"\n[paths]\nstate = "{cut}/state"\n')
    other = edged("calibrate", "--anyway", "--model", str(cut), config=config)
    assert "may write" not in other.stderr, "what was measured of the daemon's own model stays"


def test_bench(tmp_path: Path, small_model: Path) -> None:
    """llama-bench's terms, and as JSON with the share of the bandwidth; with another model's settings or none."""
    words = ("bench", "--model", str(small_model), "-p", "32", "-n", "8", "-r", "2", "-t", "1", "--anyway")
    config = tmp_path / "edged.toml"
    config.write_text(f'[model]\npath = "/models/another.gguf"\nsha256 = "{"0" * 64}"\n')
    told = edged(*words, config=config)
    assert told.returncode == 0, told.stderr
    assert "pp32" in told.stdout
    assert "±" in told.stdout
    assert "of the bandwidth limit" in " ".join(told.stdout.split())
    result = json.loads(edged(*words, "--json").stdout)
    assert [run["test"] for run in result["runs"]] == ["pp32", "tg8"]
    assert len(result["runs"][1]["tokens_per_s"]) == 2
    assert result["runs"][1]["bandwidth_share"] > 0


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    """No settings, no model, a damaged model: a sentence and an exit code, nothing written."""
    told = edged("calibrate")
    assert told.returncode == 78
    assert "model.path" in told.stderr
    told = edged("calibrate", "--model", str(tmp_path / "no.gguf"))
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "no.gguf" in told.stderr
    told = edged("calibrate", "--svg", str(tmp_path / "no/plot.svg"))
    assert (told.returncode, told.stderr.count("\n")) == (1, 1), "before anything is measured"
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    told = edged("bench", "--model", str(tmp_path / "bad.gguf"))
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)


def test_beside_a_busy_daemon(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path
) -> None:
    """While an engine answers on these cores nothing is measured, and what to do is said."""
    engine = {**ALONE, "decode_threads": 1, "prefill_threads": 1}
    node = daemon(broker, {"model": {"path": str(small_model)}, "engine": engine}).start()
    asking = device(broker, "c1")
    endless = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 9000}}}
    job = asking.ask("Write a story about the sea.", max_tokens=1500, response_format=endless)
    asking.wait_reply(job, "delta")
    told = edged("calibrate", "--quick", config=node.config)
    assert told.returncode == 75
    assert "--anyway" in told.stderr
    assert psutil.pid_exists(node.engine_pid())
    assert not (state_of(node) / "calibration.json").exists()
    asking.control("cancel", job)
    asking.answer(job).check()


def test_a_daemon_goes_by_its_calibration(
    node: DaemonProcess, device: MakeDevice, broker: Mosquitto, small_model: Path
) -> None:
    """Thread counts and first rates are the calibrated ones; `info` and `health` say so."""
    node.config.write_text(node.config.read_text().replace("decode_threads = 1\nprefill_threads = 1\n", ""))
    calibrated(node, small_model, notes=("other programs took 79% of the engine's cores",))
    node.start()
    assert "79%" in node.wait_log("calibration_doubtful")["notes"][0]
    info = node.wait_info(lambda info: info["engine"] == "ready")
    assert (info["decode_threads"], info["prefill_threads"]) == (1, 1)
    assert info["rates"] == {
        "decode_tokens_per_s": 100.0,
        "prefill_tokens_per_s": 100.0,
        "source": "calibration",
    }
    health = node.wait_health(lambda health: "calibrated_decode_tokens_per_s" in health)
    assert health["calibrated_decode_tokens_per_s"] == 100.0
    assert health["slow"] is False
    asking = device(broker, "c1")
    job = asking.ask("Say hello.", max_tokens=20)
    accepted = asking.wait_reply(job, "accepted")
    assert accepted["eta_ms"] <= 1000 * (accepted["prompt_tokens"] + 20) / 100 + 50
    asking.answer(job).check()
    assert node.log("calibration_ignored") == []


def thp_enabled(pid: int) -> bool:
    """Whether the kernel may give huge pages to this process (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("THP_enabled:")) == "1"


@pytest.mark.parametrize(
    ("setting", "measured", "given"),
    [
        ("auto", None, True),
        ("auto", Measured((10.0,), (12.0,)), False),
        ("on", Measured((10.0,), (12.0,)), True),
        ("off", None, False),
    ],
)
def test_huge_pages(  # noqa: PLR0917 - fixtures and a table
    broker: Mosquitto,
    daemon: MakeDaemon,
    small_model: Path,
    setting: str,
    measured: Measured | None,
    given: bool,  # noqa: FBT001 - a table
) -> None:
    """The engine has them unless they were measured to be slower or are set off, and the daemon is left alone."""
    sections: Sections = {"model": {"path": str(small_model)}, "engine": {"huge_pages": setting}}
    node = daemon(broker, sections, scripted=True)
    calibrated(node, small_model, huge_pages=measured)
    node.start()
    assert thp_enabled(node.engine_pid()) is given
    assert thp_enabled(node.pid)


def test_trials_with_and_without_huge_pages(small_model: Path) -> None:
    """What measures has them as an engine would."""
    for wanted in (True, False):
        with Trials(LoadTrial(str(small_model), None, 64, 64, (int(CORE),), 1, huge_pages=wanted)) as trials:
            assert thp_enabled(trials.pid) is wanted


@pytest.mark.parametrize(
    "damage", [lambda _: b"{", lambda content: content.replace(b'"board": ', b'"board": "x", "was": ')]
)
def test_a_calibration_that_cannot_be_used(node: DaemonProcess, small_model: Path, damage: Any) -> None:
    """It is ignored with one line that says what to do, and the node answers as without one."""
    calibrated(node, small_model)
    path = state_of(node) / "calibration.json"
    path.write_bytes(damage(path.read_bytes()))
    node.start()
    assert node.wait_info()["rates"]["source"] == "warm-up"
    [line] = node.log("calibration_ignored")
    assert line["severity"] == "warning"
    assert "edged calibrate" in line["mend"]


def test_a_stale_calibration(node: DaemonProcess, small_model: Path) -> None:
    """One of another llama.cpp is ignored."""
    made = calibrated(node, small_model)
    stale = msgspec.structs.replace(made, key=msgspec.structs.replace(made.key, llama_cpp="0.0.1"))
    calibration_file.write(state_of(node), stale)
    node.start()
    assert node.wait_info()["rates"]["source"] == "warm-up"
    assert "0.0.1" in node.wait_log("calibration_ignored")["reason"]


def test_cool_but_slow(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path) -> None:
    """A node that decodes far below its calibration says so once, in log, event and health, with suspects.

    A scripted model, which waits and leaves the processor to others.
    """
    node = daemon(broker, {"model": {"path": str(small_model)}, "health": {"interval_s": 1}}, scripted=True)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    trials = tuple(Trial(kind, cores, 1, (100_000.0,)) for kind in ("decode", "prefill"))
    calibrated(node, small_model, trials=trials)
    node.start()
    asking = device(broker, "c1")
    job = asking.ask("tokens=1500 step_ms=20")
    event = node.wait_event("slow", timeout_s=60.0)
    assert event["share"] < 0.7
    assert event["suspects"]
    assert node.wait_health(lambda health: health.get("slow"))["calibrated_share"] < 0.7
    asking.control("cancel", job)
    asking.answer(job).check()
    assert len(node.log("slow")) == 1


def test_another_model_is_not_held_to_it(
    broker: Mosquitto, daemon: MakeDaemon, small_model: Path, tmp_path: Path
) -> None:
    """An operator loads another file: its own rates count, and a slower model is no slow board."""
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    sections: Sections = {
        "model": {"path": str(small_model)},
        "admin": {"models": str(tmp_path)},
        "health": {"interval_s": 1},
    }
    node = daemon(broker, sections, scripted=True)
    calibrated(node, small_model)
    node.start()
    assert node.wait_info(lambda info: info["engine"] == "ready")["rates"]["source"] == "calibration"
    node.wait_health(lambda health: health.get("slow") is False)
    loaded = order(state_of(node) / "control.sock", "model", path="other.gguf")
    assert loaded.status == "ok", loaded
    node.wait_info(lambda info: info.get("rates", {}).get("source") == "warm-up")
    node.wait_health(lambda health: "calibrated_decode_tokens_per_s" not in health)
    assert "slow" not in node.wait_health(since=node.watcher.mark)
