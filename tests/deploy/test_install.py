"""deploy/wheels/install, with a made-up release of one wheel: what it puts where, and who may read it."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pip
import pytest

WHEELS = Path(__file__).parents[2] / "deploy" / "wheels"
VERSION = "0.1.0"
LIBRARY = "def start(log):\n    pass\n\n\ndef system_info():\n    return 'NEON = 1'\n"
FILES = {
    "edged/__init__.py": f"def main():\n    print('{VERSION}')\n",
    "edged/engine/__init__.py": "",
    "edged/engine/llama/__init__.py": "",
    "edged/engine/llama/library.py": LIBRARY,
    f"edged-{VERSION}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: edged\nVersion: {VERSION}\n",
    f"edged-{VERSION}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"edged-{VERSION}.dist-info/entry_points.txt": "[console_scripts]\nedged = edged:main\n",
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release as its archive unpacks."""
    top = tmp_path / "archive"
    (top / "wheels").mkdir(parents=True)
    wheel = top / "wheels" / f"edged-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        record = f"edged-{VERSION}.dist-info/RECORD"
        archive.writestr(record, "".join(f"{name},,\n" for name in (*FILES, record)))
    ours = Path(str(pip.__file__)).parent  # Debian has its wheel elsewhere than other Pythons
    with zipfile.ZipFile(top / "wheels" / "pip-1-py3-none-any.whl", "w") as archive:
        for file in ours.rglob("*"):
            if file.is_file() and file.suffix != ".pyc":
                archive.write(file, file.relative_to(ours.parent))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (top / "requirements.txt").write_text(f"edged=={VERSION} --hash=sha256:{digest}\n")
    (top / "VERSION").write_text(f"{VERSION}\n")
    shutil.copy(WHEELS.parents[1] / "systemd/edged.service", top)
    (top / "install").write_bytes((WHEELS / "install").read_bytes())
    return top


def readable(path: Path) -> bool:
    """Whether everybody may read a file, run it where its owner may, and enter a folder."""
    mode = stat.S_IMODE(path.stat().st_mode)
    wanted = 0o055 if mode & stat.S_IXUSR else 0o044
    return mode & wanted == wanted


def install(release: Path, home: Path, umask: int = 0o022) -> Path:
    """Install it; returns where it is."""
    home.mkdir(mode=0o755, exist_ok=True)
    command = ["sh", str(release / "install"), str(home), "noted"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, umask=umask)
    assert ended.returncode == 0, ended.stderr
    place = home / "releases" / VERSION
    assert (place / ".complete").read_text() == "noted\n"
    assert "NEON = 1" in (place / "cpu.txt").read_text()
    return place


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_service_may_read_what_root_installs(release: Path, tmp_path: Path, umask: int) -> None:
    """It runs as another account, whatever mask root has: hardened systems have 027 or 077."""
    place = install(release, tmp_path / "home", umask)
    found = [path for path in (place.parent, *place.parent.rglob("*")) if not path.is_symlink()]
    assert [path for path in found if not readable(path)] == []


def test_its_unit_starts_what_is_installed(release: Path, tmp_path: Path) -> None:
    """In another folder as well, of a larger disk."""
    home = tmp_path / "home"
    unit = (install(release, home) / "edged.service").read_text()
    (home / "current").symlink_to(f"releases/{VERSION}")
    started = re.findall(r"(?m)^Exec\w+=[-+]*(/\S+/edged) ", unit)
    assert len(started) == 2
    assert all(Path(program).is_file() for program in started), started


def test_again(release: Path, tmp_path: Path) -> None:
    """What is installed stays as it is, but where the system has another Python since: there nothing of it runs."""
    mark = install(release, tmp_path / "home") / "mark"
    mark.touch()
    place = install(release, tmp_path / "home")
    assert mark.exists()
    (ours,) = (place / "lib").iterdir()
    ours.rename(ours.with_name("python3.2"))
    install(release, tmp_path / "home")
    assert not mark.exists()
    assert subprocess.run([place / "bin" / "edged"], check=True, capture_output=True).stdout == b"0.1.0\n"
