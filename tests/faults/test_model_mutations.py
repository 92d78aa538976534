"""Damaged model files: with a SHA-256 in the settings none is loaded, without one the daemon survives each."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from broker import Mosquitto
from device import Device
from faults.mutants import damaged, write_tiny_model
from faults.nursery import MakeNode
from faults.record import Trial

from edged.engine.loading import check_file
from edged.errors import ModelError

FAULT = "corrupt, truncated, swapped GGUF"
MUTANTS = 200
TESTS = Path(__file__).parents[1]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A good model."""
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_checked_by_sha256(tiny: Path, trial: Trial) -> None:
    """Not one of the damaged files passes the check that comes before llama.cpp sees it."""
    good = tiny.read_bytes()
    sha256 = hashlib.sha256(good).hexdigest()
    assert check_file(tiny, sha256) == len(good)
    rng = random.Random(1)  # noqa: S311 - damages, not secrets
    path = tiny.with_name("mutant.gguf")
    for _ in range(MUTANTS * trial.factor):
        _, bad = damaged(good, rng)
        path.write_bytes(bad)
        with pytest.raises(ModelError):
            check_file(path, sha256)
    trial.note(FAULT, MUTANTS * trial.factor, "files with a SHA-256", also="none was loaded")


def test_loaded_without_sha256(tiny: Path, trial: Trial) -> None:
    """Each is refused, or answers, or takes the engine process along and nothing else; none hangs it."""
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    environment = {**os.environ, "PYTHONPATH": paths}
    count = MUTANTS * trial.factor // 2
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "faults.mutants", str(tiny), str(seed), str(count)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        for seed in (1, 2)
    ]
    lines = [json.loads(line) for run in runs for line in run.communicate()[0].splitlines()]
    assert [run.returncode for run in runs] == [0, 0]
    good = [line["outcome"] for line in lines if line["kind"] == "good"]
    assert good == ["loaded and answered"] * 2
    outcomes = Counter(line["outcome"] for line in lines if line["kind"] != "good")
    assert sum(outcomes.values()) == 2 * count
    assert not outcomes["hung"]
    assert outcomes["refused"]
    words = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    trial.note(FAULT, 2 * count, "files without one", also=words)


@pytest.mark.parametrize("checked", [True, False])
def test_daemon_with_a_bad_file(
    broker: Mosquitto, node: MakeNode, tiny: Path, trial: Trial, *, checked: bool
) -> None:
    """It stays up, says what is wrong, refuses questions, and answers when the good file is there."""
    good = tiny.read_bytes()
    bad = good[:4] + bytes(4) + good[8:-4096]  # version 0, and cut short
    tiny.write_bytes(bad)
    model = {"path": str(tiny), **({"sha256": hashlib.sha256(good).hexdigest()} if checked else {})}
    engine = {"context_max": 256, "context_min": 256, "decode_threads": 1, "prefill_threads": 1}
    process = node(broker, "n1", {"model": model, "engine": engine}, forked=False, scripted=False)
    process.start(engine="failed")
    info = process.wait_info(lambda i: i.get("reason"))
    assert str(tiny) in info["reason"]
    asking = Device(broker.host, broker.port, "d1").start()
    refused = asking.answer(asking.ask("x")).check().last
    assert (refused["code"], refused["retry_after_ms"] > 0) == ("loading", True)
    since = process.watcher.mark
    tiny.write_bytes(good)
    process.wait_info(lambda i: i["engine"] == "ready", since=since)
    assert asking.answer(asking.ask("x", max_tokens=3)).check().last["type"] == "done"
    asking.stop()
    trial.note(
        FAULT, 1, f"bad file at a daemon, {'with' if checked else 'without'} SHA-256", also="mended live"
    )
