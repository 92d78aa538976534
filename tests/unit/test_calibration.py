"""Calibrations: the choice from measurements, the file, whether it still holds; slowness; bars and plots."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from boards import pi5, rk3588_mainline, tree
from hypothesis import given
from hypothesis import strategies as st

from edged.adapters import calibration_file
from edged.adapters.vitals import VitalsReader
from edged.core import calibration
from edged.core.calibration import Calibration, Key, Step, Trial, gather, knee, misfit, plan, thread_counts
from edged.core.huge_pages import Measured
from edged.core.slowness import WINDOW_S, Slowness, judge, suspects
from edged.core.vitals import Clock, Vitals
from edged.engine.trial_client import Trials, used_sets
from edged.engine.trial_messages import LoadTrial, RunPasses
from edged.measuring import tables
from edged.measuring.benching import Bench, Run

BIG = (4, 5, 6, 7)
KEY = Key(1_070_000_000, 1, None, "Radxa ROCK 5B", BIG, "0.3.36")


def line(kind: calibration.Kind, *rates: float, cores: tuple[int, ...] = BIG) -> tuple[Trial, ...]:
    """Trials with one thread and more."""
    return tuple(Trial(kind, cores, count, (rate,)) for count, rate in enumerate(rates, 1))


def made(**changes: object) -> Calibration:
    """A calibration such as a Raspberry Pi 5 would have, on four cores."""
    trials = line("decode", 10.5, 12.4, 11.2, 9.9) + line("prefill", 29, 52, 73, 83)
    whole = Calibration(
        format=1,
        edged="0.1.0",
        made_unix_s=1_790_000_000,
        key=KEY,
        decode_threads=2,
        prefill_threads=4,
        decode_tokens_per_s=12.4,
        prefill_tokens_per_s=83.0,
        read_bytes_per_s=13.8e9,
        bytes_per_token=929_000_000,
        kv_bytes_per_token=28_672,
        others_share=0.01,
        notes=(),
        trials=trials,
    )
    return msgspec.structs.replace(whole, **changes)


# the choice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((10.5, 12.4, 11.2, 9.9), 2),  # Raspberry Pi 5, decode
        ((29.0, 52.0, 73.0, 83.0), 4),  # the same, prefill
        ((9.6, 9.8, 10.0, 9.9), 1),  # one is enough where one saturates the memory
        ((5.0, 9.4, 9.6, 10.0), 3),  # the smallest within five percent
        ((7.0,), 1),
    ],
)
def test_the_knee(rates: tuple[float, ...], chosen: int) -> None:
    """The smallest thread count within a few percent of the best rate."""
    assert knee(line("decode", *rates)).threads == chosen


def test_no_trial_no_knee() -> None:
    """Nothing measured is a defect of the caller."""
    with pytest.raises(ValueError, match="no trial"):
        knee(())


@given(st.integers(1, 256))
def test_thread_counts(cores: int) -> None:
    """From one to all cores, rising, never more; few enough that a minute is enough."""
    counts = thread_counts(cores)
    assert counts[0] == 1
    assert counts[-1] == cores
    assert list(counts) == sorted(set(counts))
    assert len(counts) <= 25


def test_the_plan_of_a_board_with_little_cores() -> None:
    """Rounds over all counts on the big cores, and all eight together, to show what the little ones cost."""
    steps = plan(BIG, range(8), 2)
    assert [step.threads for step in steps if step.kind == "memory"] == [1, 2, 3, 4]
    rest = [step for step in steps if step.kind != "memory"]
    assert rest[: len(rest) // 2] == rest[len(rest) // 2 :]
    assert Step("decode", tuple(range(8)), 8) in rest
    assert len(rest) == 2 * 2 * 5


def test_the_plan_where_engine_and_daemon_share() -> None:
    """With no other cores there is one set."""
    assert {step.cores for step in plan((0, 1), (0, 1), 1)} == {(0, 1)}


def test_gathering() -> None:
    """Rounds of a step become one trial with a median and a spread; memory's best rate stands alone."""
    steps = plan((0,), (0,), 3)
    trials, read = gather(steps, [5e9, *[10.0, 100.0, 30.0, 120.0, 20.0, 110.0]])
    decode = next(trial for trial in trials if trial.kind == "decode")
    assert (decode.rate, decode.spread) == (20.0, 10.0)
    assert read == 5e9


def test_rates_of_other_counts() -> None:
    """Settings that name other counts find their own measured rates; counts that were not timed have none."""
    assert made().rates(2, 4) == (12.4, 83.0)
    assert made().rates(1, 1) == (10.5, 29.0)
    assert made().rates(2, 5) is None


def test_longer_contexts_are_expected_to_be_slower() -> None:
    """What is read for a token grows with the cache: 6 % at 2048 tokens of the 1.5B model."""
    assert made().expected_decode(12.4, 0) == 12.4
    assert made().expected_decode(12.4, 2048) == pytest.approx(12.4 / 1.0632, rel=1e-3)


# the file ---------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    """Written whole, readable by the service's account, and nothing else is left in the folder."""
    path = calibration_file.write(tmp_path / "state", made())
    assert calibration_file.read(tmp_path / "state") == made()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["calibration.json"]


def test_a_link_that_lies_there(tmp_path: Path) -> None:
    """Root calibrates in a folder of the service's: what has broken into that could lead it to any file."""
    shadow = tmp_path / "shadow"
    shadow.write_text("secret")
    shadow.chmod(0o600)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / f"{calibration_file.NAME}.{os.getpid()}.part").symlink_to(shadow)
    calibration_file.write(tmp_path / "state", made())
    assert calibration_file.read(tmp_path / "state") == made()
    assert (shadow.read_text(), shadow.stat().st_mode & 0o777) == ("secret", 0o600)


def test_what_a_later_release_adds() -> None:
    """A field that is not known yet is skipped: who goes back a release keeps what was measured."""
    content = calibration.encode(made()).replace(b'"format": 1', b'"format": 1, "colour": {"of": "the case"}')
    assert calibration.decode(content) == made()
    assert b"huge_pages" not in content, "a board without a choice has a file that earlier releases read"
    assert b"gpu_layers" not in content, "nor has one of the CPU what they do not know"


def test_no_file_is_no_calibration(tmp_path: Path) -> None:
    """A folder without one, or no folder, is nothing to complain of."""
    assert calibration_file.fitting(tmp_path, KEY) == (None, None)
    assert calibration_file.read(tmp_path / "no") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 50_000,
        b"{}",
        b" " * 100_000,
        calibration.encode(made())[:-20],
        calibration.encode(made()).replace(b'"format": 1', b'"format": 2'),
        calibration.encode(made()).replace(b'"decode_threads": 2', b'"decode_threads": 200'),
        calibration.encode(made()).replace(b'"decode_threads": 2', b'"decode_threads": 0'),
        calibration.encode(made()).replace(b"12.4", b"1e400"),
        calibration.encode(made()).replace(b"12.4", b"-1"),
    ],
)
def test_damaged_files_say_why(content: bytes, tmp_path: Path) -> None:
    """A file that cannot be used is told in a sentence and leaves the daemon without one."""
    (tmp_path / "calibration.json").write_bytes(content)
    found, reason = calibration_file.fitting(tmp_path, KEY)
    assert found is None
    assert reason
    assert len(reason) < 300


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(content: bytes) -> None:
    """No content of the file raises anything but the one error."""
    with pytest.raises(ValueError, match=r"damaged|longer"):
        calibration.decode(content)


def test_something_else_in_its_place(tmp_path: Path) -> None:
    """A folder or a pipe under that name neither blocks nor raises."""
    (tmp_path / "calibration.json").mkdir()
    assert calibration_file.fitting(tmp_path, KEY)[1]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "calibration.json").rmdir()
    (tmp_path / "pipe").rename(tmp_path / "calibration.json")
    assert calibration_file.fitting(tmp_path, KEY)[1]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"llama_cpp": "0.4.0"}, "llama-cpp-python"),
        ({"board": "Orange Pi 5"}, "Radxa"),
        ({"board": None}, "Radxa"),
        ({"cores": (0, 1)}, "cores"),
        ({"model_mtime_ns": 2}, "model"),
        ({"model_bytes": 2}, "model"),
        ({"gpu_layers": 99}, "gpu_layers = 0, this is 99"),
    ],
)
def test_a_stale_calibration_says_why(change: dict[str, object], word: str) -> None:
    """Another llama.cpp, board, set of cores or model makes it stale."""
    reason = misfit(KEY, msgspec.structs.replace(KEY, **change))
    assert reason is not None
    assert word in reason


def test_a_hash_is_worth_more_than_a_date() -> None:
    """A model copied anew under the same SHA-256 is the same model; another hash is another."""
    named = msgspec.structs.replace(KEY, model_sha256="a" * 64)
    copied = msgspec.structs.replace(named, model_mtime_ns=99)
    assert misfit(named, copied) is None
    assert misfit(named, msgspec.structs.replace(named, model_sha256="b" * 64)) is not None
    assert misfit(KEY, KEY) is None
    assert misfit(KEY, named) is misfit(named, KEY) is None, (
        "set later, as the doctor has it, or taken out again"
    )


def test_the_key_of_a_file(tmp_path: Path) -> None:
    """Size and time of the model as it lies there; none without a model."""
    model = tmp_path / "model.gguf"
    assert calibration_file.key(model, None, "board", (0,), 0) is None
    model.write_bytes(b"GGUF")
    key = calibration_file.key(model, None, "b" * 1000, (0,), 0)
    assert key is not None
    assert key.model_bytes == 4
    assert key.llama_cpp
    assert len(key.board or "") == 256


# cool but slow ----------------------------------------------------------------------------------------------


def judged(shares: Sequence[float | None], step_s: float = 0.5) -> list[bool]:
    """The judgement after each of some samples, half a second apart."""
    state, told = Slowness(), []
    for number, share in enumerate(shares):
        state = judge(state, share, number * step_s)
        told.append(state.slow)
    return told


LONG = int(WINDOW_S / 0.5) + 2


def test_slow_after_a_window_of_work() -> None:
    """Below 70 % all the time: said once the window is full, not before."""
    told = judged([0.5] * LONG)
    assert told[LONG // 2] is False
    assert told[-1] is True


def test_work_that_does_not_compare_proves_nothing() -> None:
    """Several questions at once neither accuse nor acquit: the evidence goes on where it stood."""
    half = [0.5] * (LONG // 2)
    assert judged([*half, *[None] * 200])[-1] is False
    assert judged([*half, *[None] * 200, *half, 0.5, 0.5])[-1] is True


def test_one_good_sample_clears_the_evidence() -> None:
    """A neighbour's burst is over before anything is said."""
    assert True not in judged(([0.5] * 20 + [0.9]) * 10)


def test_between_the_borders_nothing_changes() -> None:
    """At 75 % a slow board stays slow and a well one well; at 85 % it is well again."""
    assert True not in judged([0.75] * 200)
    told = judged([0.5] * LONG + [0.75] * 200 + [0.85] * LONG)
    assert told[LONG + 199] is True
    assert told[-1] is False


def test_a_sample_after_a_long_silence_stands_for_two_seconds() -> None:
    """Two slow words an hour apart are no hour of slowness."""
    state = judge(Slowness(), 0.5, 0.0)
    state = judge(state, 0.5, 3600.0)
    assert not state.slow
    assert state.against_s == 2.0


@given(st.lists(st.none() | st.floats(0.01, 2.0), max_size=120))
def test_the_bell_rings_at_most_once_a_window(shares: list[float | None]) -> None:
    """Whatever the rates do, two changes lie a window apart."""
    told = judged(shares)
    changes = [n for n, (a, b) in enumerate(zip([False, *told], told, strict=False)) if a != b]
    assert all(b - a >= WINDOW_S / 0.5 for a, b in itertools.pairwise(changes))


def test_suspects_of_a_capped_board(tmp_path: Path) -> None:
    """The capped clock and the sleepy governor of the engine's cores are named; those of others are not."""
    root = rk3588_mainline(tmp_path)
    policies = root / "sys/devices/system/cpu/cpufreq"
    tree.put(policies / "policy4/scaling_max_freq", "1608000\n")
    tree.put(policies / "policy4/scaling_cur_freq", "408000\n")
    tree.put(policies / "policy4/scaling_governor", "powersave\n")
    tree.put(policies / "policy0/scaling_governor", "powersave\n")
    found = suspects(VitalsReader(root / "sys", root / "proc").read(), BIG)
    assert found == [
        "the clock of cores 4-5 is capped at 1.61 GHz of 2.40 GHz",
        "the governor of cores 4-5 is powersave",
    ]


def test_other_suspects(tmp_path: Path) -> None:
    """A weak supply comes first; load and a kernel that throttles are named; a well board has none."""
    root = pi5(tmp_path)
    assert suspects(VitalsReader(root / "sys", root / "proc").read(), (0, 1, 2, 3)) == []
    vitals = Vitals(under_voltage=True, throttled=True, load_1m=9.0)
    found = suspects(vitals, (0, 1))
    assert [one.split()[1] for one in found] == ["supply", "kernel", "programs"]


def test_intel_s_powersave_at_full_clock_is_no_suspect() -> None:
    """intel_pstate calls its usual governor powersave."""
    clock = Clock((0,), 4_600_000_000, 4_700_000_000, 4_700_000_000, "powersave")
    assert suspects(Vitals(clocks=(clock,)), (0,)) == []


@pytest.mark.parametrize("told_hz", [(None, 1, 1), (1, None, 1), (1, 1, None)])
def test_a_clock_that_the_kernel_does_not_tell_is_no_suspect(
    told_hz: tuple[int | None, int | None, int | None],
) -> None:
    """A virtual machine, or a driver that tells but some of it: of now, allowed and possible."""
    clock = Clock((0,), *told_hz, governor="powersave")
    assert suspects(Vitals(clocks=(clock,)), (0,)) == []


# for people -------------------------------------------------------------------------------------------------


def test_passes_fit_the_context(small_model: Path) -> None:
    """A pass of more rows than the context has tokens would end llama.cpp: `engine.batch_tokens` may be larger."""
    cores = tuple(sorted(os.sched_getaffinity(0)))[:1]
    with Trials(
        LoadTrial(str(small_model), None, batch_tokens=96, context=64, cores=cores, threads=1)
    ) as trials:
        assert trials.passes(RunPasses("prefill", cores, 1, 128)).amount == 128


def test_words_and_plot() -> None:
    """The sentences name counts, rates and the bandwidth's share; the SVG is well-formed and marks the choice."""
    words = " ".join(tables.calibration_words(made()))
    assert "12.4 tokens/s with 2 threads" in words
    assert "memory reads at 13.8 GB/s; decoding reads 929 MB a token: 83% of that limit" in words
    assert "huge pages" not in words
    slower = made(huge_pages=Measured((10.0, 10.0), (12.0, 13.0)))
    assert "does without; one answer is 1.25 times as fast" in " ".join(tables.calibration_words(slower))
    assert calibration.decode(calibration.encode(slower)) == slower
    odd = made(key=msgspec.structs.replace(KEY, board="<&>"), notes=("a <busy> machine",))
    root = ET.fromstring(tables.calibration_svg(odd))  # noqa: S314 - ours
    filled = [one for one in root.iter("{http://www.w3.org/2000/svg}circle") if one.get("fill") != "white"]
    assert len(filled) == 2
    heights = {
        one.text or "": float(one.get("y", "0")) for one in root.iter("{http://www.w3.org/2000/svg}text")
    }
    heading = next(y for text, y in heights.items() if text.startswith("decode"))
    assert min(heights["12.4"], heights["83.0"]) - heading >= 12, "figures stand clear of the heading"
    assert "doubtful: a <busy> machine" in heights


def test_faster_with_all_cores_is_said() -> None:
    """Where little cores help after all, by more than a twentieth, the setting that would use them is named."""
    everything = tuple(range(8))
    prefill = Trial("prefill", everything, 8, (90.0,))
    for rate, said in (20.0, True), (12.9, False):
        trials = *made().trials, Trial("decode", everything, 8, (rate,)), prefill
        words = " ".join(tables.calibration_words(made(trials=trials)))
        assert ('engine.cores = "0-7" would use them' in words) is said


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, ""), (1.0, "████"), (0.5, "██"), (2.0, "████"), (0.03125, "▏")]
)
def test_bars(share: float, text: str) -> None:
    """Eighths of a character."""
    assert tables.bar(share, 4) == text


def test_bench_in_words() -> None:
    """The share of the bandwidth limit, and the instruction sets as llama.cpp tells them."""
    run = Run("tg128", 2, (12.0, 12.8), 931_000_000)
    result = Bench("Pi", BIG, "qwen2 Q4_0", 1, 1, "0.3.36", "NEON", 13.8e9, (run,), 0.0, ())
    assert list(tables.bench_words(result))[1] == (
        "tg128: 931 MB read a token, 11.5 of the 13.8 GB/s that reading memory gives: 84% of the bandwidth limit"
    )
    assert json.loads(msgspec.json.encode(result))["runs"][0]["test"] == "tg128"
    assert used_sets("CPU : NEON = 1 | SVE = 0 | DOTPROD = 1 | REPACK = 1 | ") == (
        "NEON",
        "DOTPROD",
        "REPACK",
    )
    assert used_sets("") == ()
