"""Packs a release for boards: our wheel, the cross-compiled llama.cpp and all they need, each with its hash.

A part of `deploy/wheels/build`. The archive holds `wheels/`, `requirements.txt` (every wheel with its SHA-256, for
`pip install --no-index --require-hashes`), `install`, `edged.service`. The same checkout packs the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

import cross

ROOT = cross.HERE.parents[1]
LOCK = cross.HERE / "boards.txt"
EXTRAS = ("http",)
PYTHONS = ("3.11", "3.13")
"""Of Debian 12 and 13, and of the Raspberry Pi OS and Armbian made from them."""
GLIBC_MAX = 36
"""Debian 12 has glibc 2.36: wheels that ask for more would not load there."""
LOCK_HEAD = """\
# What a board installs beside edged and llama.cpp, with the SHA-256 of the wheels for Python {pythons} on aarch64.
# Made by `deploy/wheels/build --lock`; pip refuses whatever does not fit a hash here.
"""
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def say(text: str) -> None:
    """One line for people."""
    sys.stderr.write(f"edged: {text}\n")


def pip(*arguments: str) -> str:
    """Run pip; returns what it prints.

    Raises:
        SystemExit: it failed; the text has its last lines.
    """
    ended = subprocess.run(
        [*PIP, *arguments], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if ended.returncode:
        last = "\n  ".join(ended.stderr.strip().splitlines()[-8:])
        raise SystemExit(f"edged: pip {arguments[0]} failed:\n  {last}")
    return ended.stdout


def for_boards(python: str) -> list[str]:
    """Options with which pip looks for wheels that run on a board with this Python."""
    platforms = [
        "manylinux2014_aarch64",
        *(f"manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC_MAX + 1)),
    ]
    chosen = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    return [*chosen, *(f"--platform={name}" for name in platforms)]


def version() -> str:
    """Of this checkout."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "edged/__init__.py").read_text())
    if found is None:
        raise SystemExit("edged: edged/__init__.py names no version")
    return found[1]


def wanted() -> list[str]:
    """Requirements of edged on a board, but for llama.cpp; pip itself installs them there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]]
    return [
        *(one for one in project["dependencies"] if not one.startswith(cross.native.NAME)),
        *extras,
        "pip",
    ]


def lock(llama: Path) -> None:
    """Choose versions for the oldest Python, find the wheels of all, write them down with their hashes."""
    pinned: dict[str, set[str]] = {}
    asked = [*wanted(), str(llama)]
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            pip("install", "--dry-run", "--ignore-installed", "--target", folder, "--report", str(report),
                *for_boards(python), *asked)  # fmt: skip
            for item in json.loads(report.read_text())["install"]:
                about, source = item["metadata"], item["download_info"]
                name = re.sub(r"[-_.]+", "-", about["name"]).lower()
                if name != cross.native.NAME:
                    pin = f"{name}=={about['version']}"
                    pinned.setdefault(pin, set()).add(source["archive_info"]["hashes"]["sha256"])
        asked = [*wanted(), *pinned, str(llama)] if python == PYTHONS[0] else asked
    lines = [LOCK_HEAD.format(pythons=" and ".join(PYTHONS))]
    for pin, hashes in sorted(pinned.items()):
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{one}" for one in sorted(hashes))]) + "\n")
    LOCK.write_text("".join(lines))
    say(f"{LOCK.relative_to(ROOT)}: {len(pinned)} packages")


def pack(llama: Path) -> Path:
    """Make the archive."""
    name = f"edged-{version()}-aarch64"
    place = ROOT / "dist/boards"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        top = Path(folder) / name
        wheels = top / "wheels"
        wheels.mkdir(parents=True)
        say("building edged's own wheel")
        pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
        shutil.copyfile(llama, wheels / llama.name)
        kept = cross.native.cache() / "boards"
        for python in PYTHONS:
            say(f"fetching what it needs, for Python {python} on a board")
            listed = ["--no-deps", "--require-hashes", "--requirement", str(LOCK)]
            pip("download", *listed, "--dest", str(kept / python), *for_boards(python))
            known = LOCK.read_text()
            for wheel in sorted((kept / python).glob("*.whl")):
                if digest(wheel) in known:  # the rest is of an older list
                    shutil.copyfile(wheel, wheels / wheel.name)
        ours = [(one, digest(one)) for one in sorted(wheels.glob("edged-*.whl"))]
        ours.append((llama, digest(llama)))
        lines = [f"{one.name.split('-')[0].replace('_', '-')}=={one.name.split('-')[1]} --hash=sha256:{sum_}\n"
                 for one, sum_ in ours]  # fmt: skip
        needed = re.sub(r"(?m)^pip==.*\n( .*\n)*", "", LOCK.read_text())  # pip runs out of its wheel
        (top / "requirements.txt").write_text(needed + "".join(lines))
        (top / "VERSION").write_text(f"{version()}\n")
        shutil.copyfile(ROOT / "systemd/edged.service", top / "edged.service")
        shutil.copyfile(cross.HERE / "install", top / "install")
        done = place / f"{name}.tar"
        part = done.with_suffix(".part")
        with tarfile.open(part, "w") as archive:
            archive.add(top, name, filter=plain)
        part.rename(done)
    say(f"{done.relative_to(ROOT)}: {done.stat().st_size / 1e6:.0f} MB, SHA-256 {digest(done)}")
    return done


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner, time and mask: they would make two archives of the same release differ."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        prog="deploy/wheels/build", description="A release for 64-bit Arm boards."
    )
    parser.add_argument("--lock", action="store_true", help="choose versions anew first")
    options = parser.parse_args()
    os.environ.setdefault(
        "SOURCE_DATE_EPOCH", "1580601600"
    )  # of files in our wheel: what hatchling takes anyway
    llama = cross.wheel()
    if options.lock:
        lock(llama)
    sys.stdout.write(f"{pack(llama)}\n")


if __name__ == "__main__":
    main()
