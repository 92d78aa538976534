"""Builds llama-cpp-python for this machine's CPU once, and keeps the wheel (a script of deploy/setup.sh).

PyPI has the source distribution only, and compiling it takes minutes: three on two x86 cores, ten or more on
a small board. The wheel stays in `$XDG_CACHE_HOME/edged/wheels/` under a key made of everything it depends
on: version, build options, C library and the CPU's instruction sets (the compiler uses all that this CPU has,
so a card moved from one board to another gets its own build). Standard library only: edged is not there yet.

    llama_wheel.py key     print the key
    llama_wheel.py find    print the wheel's path; exit 1 when there is none yet
    llama_wheel.py build   print the wheel's path, building it first when there is none (needs pip and g++)

Progress goes to standard error: one line that rewrites itself on a terminal, else a line every 20 s.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "llama-cpp-python"
CMAKE_ARGS = (
    "-DLLAVA_BUILD=OFF",  # no pictures: text questions only
    "-DLLAMA_OPENSSL=OFF",  # llama.cpp downloads nothing for us
    # Both of llama-cpp-python's install rules then name one place: else the wheel holds every library twice.
    "-DCMAKE_INSTALL_LIBDIR=llama_cpp/lib",
    "-DCMAKE_INSTALL_BINDIR=llama_cpp/lib",
    "-DCMAKE_INSTALL_INCLUDEDIR=llama_cpp/include",
)
CPU_MINUTES = {"x86_64": 5.5}
"""Compile time of one core, measured on a 2.8 GHz Xeon; other CPUs count as three times slower, a guess."""
JOB_BYTES = 1_200_000_000
"""Memory of one compiler at its worst (llama.cpp's sources are compiled in a few large units)."""
LINE_EVERY_S = 20.0
STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")
TELLING = re.compile(
    r"error|fatal|FAILED|Killed|No space left|No module|Could not|not found|timed out", re.IGNORECASE
)


def version() -> str:
    """The pinned version, from pyproject.toml: the only place that names it."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        if requirement.startswith(f"{NAME}=="):
            return str(requirement.removeprefix(f"{NAME}==")).strip()
    raise SystemExit(f"edged: pyproject.toml pins no version of {NAME}")


def cpu() -> str:
    """The instruction sets of all cores in /proc/cpuinfo: `flags` on x86, `Features` and parts on Arm."""
    names = ("flags", "Features", "CPU implementer", "CPU part")
    lines = {
        " ".join(line.split())
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        if line.startswith(names)
    }
    return "\n".join(sorted(lines))


def key() -> str:
    """Name of this machine's build: version, architecture, and a hash of all else that shapes the code."""
    parts = [
        cpu(),
        " ".join(platform.libc_ver()),
        " ".join(CMAKE_ARGS),
        os.environ.get("CMAKE_ARGS", ""),
        (HERE / "llama.cmake").read_text(),
    ]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{version()}-{platform.machine()}-{digest[:12]}"


def cache() -> Path:
    """Where wheels are kept: `edged/wheels` in the user's cache (XDG base directory specification)."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edged" / "wheels"


def find() -> Path | None:
    """The wheel built earlier for this machine, if there is one."""
    return next(iter(sorted((cache() / key()).glob("*.whl"))), None)


def jobs() -> int:
    """How many compilers at once: one for each usable core, as far as the memory reaches."""
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    room = int(available[1]) * 1024 // JOB_BYTES if available else 1
    return max(1, min(len(os.sched_getaffinity(0)), room))


class Progress:
    """Tells how far the build is; `expected_s` is a guess that the build's own pace corrects."""

    def __init__(self, expected_s: float) -> None:
        self._expected_s = expected_s
        self._begun = time.monotonic()
        self._told = self._begun
        self._fraction = 0.0
        self._terminal = sys.stderr.isatty()

    def line(self, text: str) -> None:
        """Take one line of pip's output; ninja counts its steps in it: `[12/79] ...`."""
        if step := STEP.match(text):
            self._fraction = int(step[1]) / int(step[2])

    def tell(self) -> None:
        """Say how far it is, when it is time to."""
        now = time.monotonic()
        if now - self._told < (0.5 if self._terminal else LINE_EVERY_S):
            return
        self._told = now
        elapsed_s = now - self._begun
        compiling = f"compiling llama.cpp: {self._fraction:4.0%}"
        what = compiling if self._fraction else "fetching llama.cpp's source"
        expected_s = self._expected_s
        if self._fraction > 0.5:  # noqa: PLR2004 - half done: by now the pace says more than the guess
            expected_s = elapsed_s / self._fraction
        minutes = max(1, round(max(expected_s, elapsed_s) / 60))
        text = f"edged: {what}, {int(elapsed_s) // 60}:{int(elapsed_s) % 60:02} of about {minutes} min"
        sys.stderr.write(f"\r\033[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def end(self, text: str) -> None:
        """Close the line with how it went."""
        clear = "\r\033[K" if self._terminal else ""
        seconds = int(time.monotonic() - self._begun)
        sys.stderr.write(f"{clear}edged: {text} after {seconds // 60}:{seconds % 60:02}\n")


def build() -> Path:
    """Compile the wheel and keep it.

    Raises:
        SystemExit: it failed; the text holds the log's last telling lines and where the log is.
    """
    folder = cache() / key()
    folder.mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("edged: another set-up is compiling llama.cpp: waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        return find() or _build(folder)


def _build(folder: Path) -> Path:
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a build that was interrupted
    work.mkdir()
    workers = jobs()
    expected_s = 60 * CPU_MINUTES.get(platform.machine(), 16.5) / workers + 20
    sys.stderr.write(
        f"edged: compiling llama.cpp for this CPU, {workers} at a time: "
        f"about {max(1, round(expected_s / 60))} minutes, once\n"
    )
    environment = os.environ | {
        "CMAKE_ARGS": " ".join((*CMAKE_ARGS, os.environ.get("CMAKE_ARGS", ""))).strip(),
        "CMAKE_TOOLCHAIN_FILE": str(HERE / "llama.cmake"),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(workers),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(work),  # /tmp may be memory, and too small
    }
    # A cache of its own: pip's usual one may hold a wheel of this version that was built with other options.
    places = ["--cache-dir", str(work / "pip"), "--wheel-dir", str(work)]
    quiet = ["--progress-bar", "off", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", "-v", *quiet, *places]
    command += ["--no-deps", "--no-binary", NAME, f"{NAME}=={version()}"]
    log = folder / "build.log"
    log.unlink(missing_ok=True)
    progress = Progress(expected_s)
    status = follow(command, environment, log, progress)
    wheels = sorted(work.glob("*.whl"))
    if status or not wheels:
        progress.end("compiling llama.cpp failed")
        shutil.rmtree(work, ignore_errors=True)
        reasons = "".join(f"  {line}\n" for line in telling(log))
        if "No matching distribution" in reasons or "onnection" in reasons:
            reasons += "edged: pip could not fetch it: no network, or not on your package index?\n"
        raise SystemExit(f"{reasons}edged: the whole log is {log}")
    wheel = wheels[0].rename(folder / wheels[0].name)  # same file system: it is there whole or not at all
    shutil.rmtree(work, ignore_errors=True)
    progress.end("llama.cpp is compiled and kept for later,")
    return wheel


def follow(command: list[str], environment: dict[str, str], log: Path, progress: Progress) -> int:
    """Run a build, keep what it prints in `log` and tell how far it is; returns its exit code."""
    with (
        log.open("a") as record,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as running,
    ):

        def read() -> None:
            for line in running.stdout or ():
                record.write(line)
                progress.line(line)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            while reader.is_alive():  # one compiler may run for minutes without a line
                reader.join(timeout=0.5)
                progress.tell()
        except BaseException:
            running.terminate()
            raise
    return running.returncode


def telling(log: Path, count: int = 15) -> list[str]:
    """The last lines of a build's log that look like its reason, with the two after each; else its last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    found = [number for number, line in enumerate(lines) if TELLING.search(line) and not STEP.match(line)]
    chosen = sorted({near for number in found for near in range(number, min(number + 3, len(lines)))})
    return [lines[number][:200] for number in chosen[-count:]] or [line[:200] for line in lines[-count:]]


def main() -> None:
    """See the module's text."""
    match sys.argv[1:]:
        case ["key"]:
            sys.stdout.write(f"{key()}\n")
        case ["find"]:
            if (wheel := find()) is None:
                sys.exit(1)
            sys.stdout.write(f"{wheel}\n")
        case ["build"]:
            sys.stdout.write(f"{find() or build()}\n")
        case _:
            sys.exit("usage: llama_wheel.py key|find|build")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the set-up says that it was interrupted
