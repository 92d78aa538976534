"""The journal's own protocol: fields to ask for, told apart whatever is in them, and a way out where it fails."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged import journald

PROGRAM = """
import pathlib, sys, structlog
from edged import logs
logs.configure("info", sys.argv[1], journal_socket=pathlib.Path(sys.argv[2]))
log = structlog.get_logger()
log.info("job_finished", job_id="press-7-0001", client="press-7", tokens=12, cores=[2, 3], thinking=None)
log.warning("mqtt_failed", reason="refused", password="s3cret")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("engine_broke")
log.error("too_much", items=["x" * 4000] * 60)
"""

MANY_LINES = """
import pathlib, sys, structlog
from edged import logs
logs.configure(journal_socket=pathlib.Path(sys.argv[1]))
log = structlog.get_logger()
for number in range(2000):
    log.info("job_finished", job_id=f"press-7-{number}", text="x" * 200)
print("all said", flush=True)
sys.stdin.readline()
log.info("mended")
"""


def fields(data: bytes) -> dict[str, str]:
    """Take a datagram apart as the journal does."""
    found: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[name.decode()] = value.decode()
        data = rest
    return found


class FakeJournal:
    """A socket where systemd-journald's would be."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)

    def taken(self) -> list[dict[str, str]]:
        """All that came so far."""
        found = []
        while True:
            try:
                found.append(fields(self._socket.recv(1 << 20)))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """End it."""
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FakeJournal]:
    """One, listening."""
    made = FakeJournal(tmp_path)
    yield made
    made.close()


def run(folder: Path, form: str, path: Path) -> str:
    """Log as a service of systemd does; returns what went to standard error."""
    stderr = folder / "stderr"
    with stderr.open("wb") as file:
        stat = os.fstat(file.fileno())
        environment = os.environ | {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        command = [sys.executable, "-c", PROGRAM, form, str(path)]
        subprocess.run(command, stderr=file, env=environment, check=True, timeout=60)
    return stderr.read_text()


def test_fields_and_priorities(tmp_path: Path, journal: FakeJournal) -> None:
    """People read a line, `journalctl EDGED_JOB_ID=...` finds it; secrets stay out; too large goes another way."""
    errors = run(tmp_path, "auto", journal.path)
    finished, failed, broke = journal.taken()
    assert finished == {
        "MESSAGE": "job_finished job_id=press-7-0001 client=press-7 tokens=12 cores=[2,3] thinking=null",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "edged",
        "EDGED_EVENT": "job_finished",
        "EDGED_JOB_ID": "press-7-0001",
        "EDGED_CLIENT": "press-7",
        "EDGED_TOKENS": "12",
        "EDGED_CORES": "[2,3]",
    }  # fmt: skip
    assert failed["PRIORITY"] == "4"
    assert "s3cret" not in str(failed)
    assert broke["PRIORITY"] == "3"
    assert "ZeroDivisionError" in broke["MESSAGE"]
    assert broke["EDGED_EXCEPTION"].startswith("Traceback")
    assert errors.startswith("<3>{")
    assert json.loads(errors[3:])["event"] == "too_much"


def test_json_as_message(tmp_path: Path, journal: FakeJournal) -> None:
    """With log.format `json` programs read the message, and the fields are there all the same."""
    run(tmp_path, "json", journal.path)
    finished = journal.taken()[0]
    assert json.loads(finished["MESSAGE"])["job_id"] == finished["EDGED_JOB_ID"] == "press-7-0001"


def test_a_journal_that_is_gone(tmp_path: Path, journal: FakeJournal) -> None:
    """Nobody listens at the socket any more: lines with priorities, through standard error."""
    journal.close()
    errors = run(tmp_path, "auto", journal.path).splitlines()
    assert [line[:3] for line in errors] == ["<6>", "<4>", "<3>", "<3>"]


def test_a_journal_that_hangs(journal: FakeJournal) -> None:
    """While its card stalls it reads neither of its sockets: no line waits, and later it hears how many."""
    ours, theirs = socket.socketpair()
    stat = os.fstat(theirs.fileno())
    environment = os.environ | {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
    program = subprocess.Popen(
        [sys.executable, "-c", MANY_LINES, str(journal.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs.fileno(),
        env=environment,
    )
    with ours, theirs, program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == b"all said\n"
        before = journal.taken()
        program.stdin.write(b"go on\n")
        program.stdin.close()
        assert program.wait(60) == 0
        ours.setblocking(False)
        aside = ours.recv(1 << 24).count(b"\n")
    after = journal.taken()
    assert [line["EDGED_EVENT"] for line in after] == ["mended", "log_lines_left_out"]
    assert len(before) + aside + int(after[1]["EDGED_COUNT"]) == 2000
    assert after[1]["PRIORITY"] == "4"


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.booleans(), max_size=5))
def test_no_value_escapes_its_field(message: str, values: dict[str, object]) -> None:
    """Whatever stands in a value, line ends and equals signs too, the journal sees the fields that were meant."""
    found = fields(journald.datagram(message, 6, values))
    assert found["MESSAGE"].encode("utf-8", "replace") == message.encode("utf-8", "replace")
    assert set(found) - {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"} <= {
        name for name in found if name.startswith("EDGED_")
    }
    assert all(len(name) <= journald.NAME_CHARACTERS_MAX for name in found)
