"""Runs the fault tests and prints what they prove, as one table.

    python tests/faults/report.py                 run all, then print Markdown (arguments after -- go to pytest)
    python tests/faults/report.py --recorded      print what the last run recorded, run nothing
    python tests/faults/report.py --json FILE     write the figures there as well

The bound: when none of N independent trials loses anything, at most 3/N of all such trials do, at 95 % ("rule of
three": (1 - p)^N = 0.05). It speaks for trials like these ones and no others. "Lost" means lost by the node; what a
broker forgot that it had acknowledged stands beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from faults.record import RECORD, Figures, recorded  # noqa: E402 - found through the path above

BOUND_FROM = 10
"""Fewer trials bound nothing worth a number."""


def table(rows: list[Figures]) -> str:
    """The table in Markdown, the rows of a fault together."""
    faults = list(dict.fromkeys(row.fault for row in rows))
    lines = ["| fault | ran | lost by the node | proves at 95 % | besides | s |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: faults.index(row.fault)):
        cells = (row.fault, f"{row.trials:,} {row.unit}", row.lost, bound(row), row.also, round(row.seconds))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def bound(row: Figures) -> str:
    """What a row without losses proves."""
    if row.lost or row.trials < BOUND_FROM:
        return ""
    return f"at most {300 / row.trials:.2g} %"


def main() -> int:
    """Run, print; returns pytest's exit code."""
    parser = argparse.ArgumentParser(description="What the fault tests prove.")
    parser.add_argument("--recorded", action="store_true", help="do not run the tests")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    given = parser.parse_args()
    code = 0
    if not given.recorded:
        RECORD.unlink(missing_ok=True)
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/faults", *given.pytest],
            cwd=ROOT,
            stdout=sys.stderr,
            check=False,
        ).returncode
    if not RECORD.exists():
        print("nothing is recorded: run the fault tests", file=sys.stderr)
        return code or 1
    rows = recorded()
    print(table(rows))
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
