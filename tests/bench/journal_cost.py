"""What a question costs on disk: milliseconds and bytes written, one at a time and in groups.

    python tests/bench/journal_cost.py [FOLDER] [--questions 1000] [--answer-bytes 400]

Bytes are `write_bytes` of /proc/self/io (proc(5)): what this process caused to be sent to the block layer, the
file system's own journal not included; zero on tmpfs, so choose a FOLDER on the medium in question. Each question
has a body of 200 bytes; it is accepted with its first attempt, finished, cleared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from journals import Desk, desk, row  # noqa: E402 - found through the path above

from edged.core.records import Accepted, Entered, Finished, Publish  # noqa: E402 - likewise

BODY = "q" * 200


def written_bytes() -> int:
    """Return what this process has caused to be written so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def run(d: Desk, questions: int, group: int, answer_bytes: int) -> None:
    """Take all the questions through their lives, `group` at a time."""
    answer = (Publish("edged/v1/client/c1/answer/1", b"a" * answer_bytes, {"correlation": b"12345678"}),)
    for first in range(0, questions, group):
        for i in range(first, first + group):
            d.journal.accept(i, row(f"line-{group}-{i:06}", client=f"device-{i % 20}", text=BODY), begun=True)
        numbers = [_accepted(d).number for _ in range(group)]
        for number in numbers:
            d.journal.finish(number, answer)
        for _ in numbers:
            d.journal.clear(d.next(Finished).outbox[0][0])


def _accepted(d: Desk) -> Accepted:
    while isinstance(event := d.events.get(timeout=20), Entered):
        pass  # told before the disk is waited for
    assert isinstance(event, Accepted), event
    return event


def main() -> None:
    """Print one line a group size."""
    parser = argparse.ArgumentParser(description="What a question costs on disk.")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--answer-bytes", type=int, default=400)
    given = parser.parse_args()
    print(f"{'in groups of':>12} {'ms/question':>12} {'KiB/question':>13} {'commits/question':>17}")
    for group in (1, 10, 100):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            path = Path(folder) / "journal.db"
            before, began_s = written_bytes(), time.monotonic()
            with desk(path) as d:
                run(d, given.questions, group, given.answer_bytes)
                took_s = time.monotonic() - began_s
                commits = d.journal.depth().commits
            written = written_bytes() - before
        n = given.questions
        print(f"{group:12} {took_s * 1000 / n:12.2f} {written / 1024 / n:13.1f} {commits / n:17.2f}")


if __name__ == "__main__":
    main()
