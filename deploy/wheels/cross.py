"""Cross-compiles llama-cpp-python on an x86 Debian into one wheel for all 64-bit Arm boards; kept in the cache.

The CPU's code is built four times, as plug-ins; the engine loads the best one that the board's CPU can run
(edged/engine/llama/library.py, ggml_backend_load_all_from_path). A part of `deploy/wheels/build`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import llama_wheel as native  # noqa: E402 - deploy/ holds scripts, not packages

VARIANTS = {
    "armv8.0_1": "",  # Cortex-A72 (Raspberry Pi 4), A53
    "armv8.2_1": "DOTPROD",  # some A55 and A75
    "armv8.2_2": "DOTPROD FP16_VECTOR_ARITHMETIC",  # A76: Raspberry Pi 5, RK3588
    "armv8.6_1": "DOTPROD FP16_VECTOR_ARITHMETIC MATMUL_INT8",  # i8mm: A710, A720 and newer
}
"""Names are llama.cpp's (ggml/src/CMakeLists.txt). Its list has SVE and SME besides: Debian 12's compiler does not
know SME, and on cores with 128-bit SVE that buys nothing over i8mm. Its armv8.6_1 asks for SVE; ours does not, so
that cores with i8mm alone have it too."""
CMAKE_ARGS = (
    *native.CMAKE_ARGS,
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
)
CPU_MINUTES = 7.0
OPENMP = Path("/usr/aarch64-linux-gnu/lib/libgomp.so.1")
"""GCC's OpenMP library (GPL-3 with the runtime exception), of the package libgomp1-arm64-cross. It goes into the
wheel, so that boards need no package for it."""
VARIANT_LINE = re.compile(r"^ +ggml_add_cpu_backend_variant\(armv\S+.*\)\n", re.MULTILINE)
GLIBC = re.compile(r"GLIBC_2\.(\d+)")


def key() -> str:
    """Name of the build: version, and a hash of all that shapes it."""
    compiler = subprocess.run(
        ["aarch64-linux-gnu-gcc", "-dumpfullversion"], check=True, capture_output=True, text=True
    ).stdout
    parts = [" ".join(CMAKE_ARGS), compiler, str(VARIANTS)]
    parts += [(HERE / name).read_text() for name in ("aarch64.cmake", "../llama.cmake", "source.txt")]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{native.version()}-boards-{digest[:12]}"


def wheel() -> Path:
    """The wheel, from the cache or newly built.

    Raises:
        SystemExit: the build failed; the text says why and where the log is.
    """
    folder = native.cache() / key()
    if there := sorted(folder.glob("*.whl")):
        return there[0]
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a build that was interrupted
    work.mkdir()
    workers = native.jobs()
    expected_s = 60 * CPU_MINUTES / workers + 30
    sys.stderr.write(
        f"edged: compiling llama.cpp for Arm boards, {len(VARIANTS)} kinds of CPU, {workers} at a time: "
        f"about {max(1, round(expected_s / 60))} minutes, once\n"
    )
    log = folder / "build.log"
    log.unlink(missing_ok=True)
    progress = native.Progress(expected_s)
    environment = os.environ | {
        "CMAKE_ARGS": " ".join(CMAKE_ARGS),
        "CMAKE_TOOLCHAIN_FILE": str(HERE / "aarch64.cmake"),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(workers),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(work),
    }
    pip = [sys.executable, "-m", "pip"]
    quiet = ["-v", "--progress-bar", "off", "--disable-pip-version-check", "--cache-dir", str(work / "pip")]
    fetch = ["download", "--no-deps", "--no-binary", native.NAME, "--require-hashes"]
    fetch += ["--requirement", str(HERE / "source.txt"), "--dest", str(work)]
    status = native.follow([*pip, *fetch, *quiet], environment, log, progress)
    sources = sorted(work.glob("*.tar.gz"))
    if not status and sources:
        patched = unpack(sources[0], work / "source")
        make = ["wheel", "--no-deps", "--wheel-dir", str(work), str(patched)]
        status = native.follow([*pip, *make, *quiet], environment, log, progress)
    made = sorted(work.glob("*.whl"))
    if status or not made:
        progress.end("compiling llama.cpp for Arm boards failed")
        shutil.rmtree(work, ignore_errors=True)
        reasons = "".join(f"  {line}\n" for line in native.telling(log))
        raise SystemExit(f"{reasons}edged: the whole log is {log}")
    kept = retag(made[0], work, folder)
    shutil.rmtree(work, ignore_errors=True)
    progress.end("llama.cpp for Arm boards is compiled and kept for later,")
    return kept


def unpack(source: Path, folder: Path) -> Path:
    """Unpack the source distribution, with our list of CPU variants in it."""
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    cmake = top / "vendor/llama.cpp/ggml/src/CMakeLists.txt"
    text = cmake.read_text()
    lines = list(VARIANT_LINE.finditer(text))
    if not lines or any(f"({name}" not in text for name in VARIANTS):
        raise SystemExit(
            f"edged: {cmake.name} of this llama.cpp lists its CPU variants in another way than ours"
        )
    ours = "".join(
        f"            ggml_add_cpu_backend_variant({name} {has})\n" for name, has in VARIANTS.items()
    )
    text = text[: lines[0].start()] + ours + text[lines[-1].end() :]
    cmake.write_text(text)
    return top


def retag(made: Path, work: Path, folder: Path) -> Path:
    """Give the wheel the tag of what it is for, put the OpenMP library into it, and move it to `folder`.

    The C library that it needs stands in its symbols: `manylinux_2_34_aarch64` has pip refuse it where it could not
    be loaded (PEP 600).
    """
    with zipfile.ZipFile(made) as wheel_file:
        names = wheel_file.namelist()
        files = {name: wheel_file.read(name) for name in names}
    files["llama_cpp/lib/libgomp.so.1"] = OPENMP.read_bytes()
    names = sorted(files, key=lambda name: (".dist-info/" in name, name))  # the list comes last (PEP 427)
    libraries = [name for name in names if ".so" in name]
    if len([name for name in libraries if "libggml-cpu-" in name]) != len(VARIANTS):
        raise SystemExit(f"edged: the wheel does not hold the {len(VARIANTS)} CPU variants: {libraries}")
    tag = f"manylinux_2_{max(glibc(files[name], work) for name in libraries)}_aarch64"
    (about,) = (name for name in names if name.endswith(".dist-info/WHEEL"))
    files[about] = re.sub(rb"(?m)^Tag: (\S+)-\w+$", rb"Tag: \1-" + tag.encode(), files[about])
    record = about.removesuffix("WHEEL") + "RECORD"
    files[record] = listing(files, record)
    done = folder / (made.name.rsplit("-", 1)[0] + f"-{tag}.whl")
    part = done.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as wheel_file:
        for name in names:
            wheel_file.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    part.rename(done)
    return done


def glibc(library: bytes, work: Path) -> int:
    """The least minor version of glibc 2 that a library can be loaded with: the newest of its versioned symbols."""
    path = work / "library.so"
    path.write_bytes(library)
    shown = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-T", str(path)], check=True, capture_output=True, text=True
    ).stdout
    return max((int(minor) for minor in GLIBC.findall(shown)), default=17)


def listing(files: dict[str, bytes], record: str) -> bytes:
    """A wheel's RECORD: name, hash and size of each file (PEP 427)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for name, content in files.items():
        if name == record:
            writer.writerow((name, "", ""))
            continue
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow((name, f"sha256={digest}", len(content)))
    return out.getvalue().encode()


if __name__ == "__main__":
    sys.stdout.write(f"{wheel()}\n")
