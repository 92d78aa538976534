"""The journal against kill -9, power cuts in mid-write, and disks that refuse.

The promise under test: what was reported as stored is there afterwards, whole; what was reported as finished has
its messages in the outbox until they were cleared; nothing is half there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.record import Trial
from journals import Desk, answer, desk, row

from edged.core.records import Publish

CHILD = Path(__file__).with_name("journal_child.py")
FAILPOINTS = ("before_accept_commit", "after_accept_commit", "before_finish_commit", "after_finish_commit")
SECTOR_BYTES = 512
LOG_HEADER_BYTES = 32  # sqlite.org/fileformat2.html, section 4.1
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{CHILD.parents[2]}:{CHILD.parents[1]}"}


pytestmark = pytest.mark.timeout(1800)  # enough for ten times the CI sizes on a slow card


FAULT = "power loss and torn writes"


def test_kill_at_failpoints(tmp_path: Path, trial: Trial) -> None:
    """Killed at each point around its commits, 20 times on one file, the journal keeps all that it promised."""
    path = tmp_path / "journal.db"
    stored: set[str] = set()
    done: set[str] = set()
    for turn in range(20 * trial.factor):
        failpoint = FAILPOINTS[turn % 4]
        first = turn * 1000
        child = subprocess.run(
            [sys.executable, CHILD, "load", path, str(first)],
            env={**ENVIRONMENT, "EDGED_FAILPOINT": f"{failpoint}:{turn // 4 % 8 + 1}"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        assert child.returncode == -signal.SIGKILL
        lines = [line.split() for line in child.stdout.splitlines()]
        stored |= {name for word, name in lines if word == "accepted"}
        done |= {name for word, name in lines if word == "finished"}
        with desk(path) as d:
            assert d.recovered.set_aside is None
            _check_whole(d, stored, done, clearable={name for name in stored if int(name[1:]) % 2 == 0})
            following = f"q{first + len([1 for word, _ in lines if word == 'accepted'])}"
            if failpoint.endswith(
                "accept_commit"
            ):  # the one in flight: there if its commit was, though never told
                expected = "unfinished" if failpoint.startswith("after") else None
                assert d.status(following).state == expected
    assert len(stored) >= 20
    assert len(done) >= 10
    trial.note(
        FAULT, 20 * trial.factor, "kills of the journal at failpoints", also=f"{len(stored)} questions"
    )


def test_kill_at_random_moments(tmp_path: Path, trial: Trial) -> None:
    """Killed at any moment under load, the journal keeps all that it promised."""
    path = tmp_path / "journal.db"
    rng = random.Random(7)  # noqa: S311 - moments, not secrets
    stored: set[str] = set()
    done: set[str] = set()
    for turn in range(10 * trial.factor):
        with subprocess.Popen(
            [sys.executable, CHILD, "load", path, str(turn * 100_000)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            seen = [child.stdout.readline().split() for _ in range(rng.randrange(1, 200))]
            child.kill()
            seen += [line.split() for line in child.stdout if line.endswith("\n")]
        stored |= {name for word, name in seen if word == "accepted"}
        done |= {name for word, name in seen if word == "finished"}
    with desk(path) as d:
        assert d.recovered.set_aside is None
        _check_whole(d, stored, done, clearable={name for name in stored if int(name[1:]) % 2 == 0})
    trial.note(FAULT, 10 * trial.factor, "kills of the journal under load", also=f"{len(stored)} questions")


def test_power_cut_at_every_commit(tmp_path: Path, trial: Trial) -> None:
    """At each of 200 commits the power goes, and what was being written is torn: nothing promised is lost."""
    rng = random.Random(11)  # noqa: S311 - tears, not secrets
    path, replay = tmp_path / "journal.db", tmp_path / "replay" / "journal.db"
    replay.parent.mkdir()
    stored: set[str] = set()
    done: set[str] = set()
    checkpoints = 0
    with desk(path) as d:
        acknowledged: int | None = None
        running: tuple[int, str] | None = None
        for turn in range(200 * trial.factor):
            promised = (set(stored), set(done))
            before = _files(path)
            if acknowledged is not None:
                d.journal.clear(acknowledged)  # rides with the commit that follows at once
                acknowledged = None
            if running is None:
                name = f"q{turn}"
                running = (d.accepted(row(name, text="q" * rng.randrange(60_000))), name)
                stored.add(name)
            else:
                number, name = running
                messages = d.finish(number, (*answer("a" * rng.randrange(10_000)), Publish("t", b"")))
                done.add(name)
                running = None
                if rng.random() < 0.5:
                    acknowledged = messages.outbox[0][0]
            after = _files(path)
            assert before[0] == after[0] or _header(before) == _header(after), (
                "more than one commit in a step"
            )
            checkpoints += before[0] != after[0]
            database, log = _torn(before, after, rng)
            replay.write_bytes(database)
            Path(f"{replay}-wal").write_bytes(log)
            with desk(replay) as again:
                assert again.recovered.set_aside is None
                _check_whole(again, *promised, clearable=stored)
    assert checkpoints >= 2 * trial.factor, "the database itself was never torn"
    trial.note(FAULT, 200 * trial.factor, "power cuts with torn writes", also=f"{len(stored)} questions")


def test_disk_full_at_every_write_point(tmp_path: Path) -> None:
    """On a full file system questions are refused, not lost; what was under way ends when room returns."""
    command = f'mount -t tmpfs -o size=8m tmpfs "$1" && exec {sys.executable} "$2" full "$1"'
    isolated = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here: a tiny file system cannot be made")
    child = subprocess.run(
        [*isolated, "sh", "-c", command, "sh", tmp_path, CHILD],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert child.returncode == 0, child.stderr
    figures = json.loads(child.stdout)
    assert figures["finished"] == figures["stored"] >= 20
    assert figures["refused"] >= 20


def test_io_error_while_writing(tmp_path: Path) -> None:
    """A file that may not grow gives I/O errors: the same, and nothing breaks."""
    child = subprocess.run(
        [sys.executable, CHILD, "limit", tmp_path / "journal.db"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout)["refused"] >= 1


def _check_whole(d: Desk, stored: set[str], done: set[str], clearable: set[str]) -> None:
    """Compare what stands in the journal with what was promised; `clearable` may have lost their first message."""
    waiting = {job.row.id: job for job in d.recovered.jobs}
    assert d.journal.depth().unfinished == len(waiting)
    for name in stored:
        found = d.status(name)
        assert found.state == ("unfinished" if name in waiting else "finished"), name
        assert name not in done or found.state == "finished", name
        assert name not in waiting or waiting[name].row.body, name
    owed: dict[int, list[int]] = {}
    for outbox_id, _ in d.recovered.outbox:
        owed.setdefault(outbox_id // 8, []).append(outbox_id % 8)
    for name in done:
        places = owed[d.status(name).number or 0]
        wanted = list(range(places[-1] + 1))
        assert places == wanted or (name in clearable and places == wanted[1:]), name


def _files(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes(), Path(f"{path}-wal").read_bytes()


def _torn(before: tuple[bytes, bytes], after: tuple[bytes, bytes], rng: random.Random) -> tuple[bytes, bytes]:
    """Return what the disk may hold when the power goes between two moments at which all was synchronised.

    Within one commit SQLite writes the log's header and synchronises it if the log starts over, then writes the
    log and synchronises it, then now and then copies the log into the database: so one thing is in transit, and
    of that any sectors may be old, new or rubbish. Not rubbish: the part of a sector before the bytes being
    written (SQLite's "powersafe overwrite": without that assumption it writes whole 4 KiB sectors, measured 1.4
    to 1.6 times the bytes).
    """
    if _header(before) != _header(after):
        if rng.random() < 0.5:
            return before[0], rng.randbytes(LOG_HEADER_BYTES) + before[1][LOG_HEADER_BYTES:]
        before = (before[0], _header(after) + before[1][LOG_HEADER_BYTES:])
    if before[0] != after[0] and rng.random() < 0.5:
        return _mixed(before[0], after[0], rng), after[1]
    return before[0], _mixed(before[1], after[1], rng)


def _header(files: tuple[bytes, bytes]) -> bytes:
    return files[1][:LOG_HEADER_BYTES]


def _mixed(old: bytes, new: bytes, rng: random.Random) -> bytes:
    size = rng.choice((len(old), len(new), rng.randint(*sorted((len(old), len(new))))))
    mixed = bytearray(max(len(old), len(new)))
    style = rng.random()  # some cuts take nearly all, some nearly nothing
    for start in range(0, len(mixed), SECTOR_BYTES):
        was, will = old[start : start + SECTOR_BYTES], new[start : start + SECTOR_BYTES]
        part = was if rng.random() < style else will
        if was != will and rng.random() < 0.05:
            same = next(
                (i for i, pair in enumerate(zip(was, will, strict=False)) if pair[0] != pair[1]), len(was)
            )
            part = will[:same] + rng.randbytes(SECTOR_BYTES - same)
        mixed[start : start + len(part)] = part
    return bytes(mixed[:size])
