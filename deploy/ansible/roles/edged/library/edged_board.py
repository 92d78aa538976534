"""Ansible module: what a board is and which release of edged it has. Reads only; standard library only."""

from __future__ import annotations

DOCUMENTATION = """
module: edged_board
short_description: Looks at a board before edged is put on it
description: Reads architecture, memory, disk, clock, temperatures, and what is installed. Changes nothing.
author: edged
options:
  home: {type: path, required: true, description: Folder of releases and models.}
  model: {type: str, required: true, description: "The model's file name."}
  sys: {type: path, default: /sys, description: Root of sysfs.}
  now_s: {type: float, description: "Time of the machine that runs Ansible, seconds since 1970."}
  margin_c: {type: float, default: 10, description: How far below its first trip point a zone must be.}
  settings: {type: path, description: "The settings in use, to read what they name."}
  files: {type: list, elements: path, default: [], description: Files whose SHA-256 is wanted.}
"""

EXAMPLES = """
- edged_board: {home: /opt/edged, model: model.gguf}
"""

RETURN = """
hot: {description: "One text for each zone that is too near to its trip point.", type: list, returned: always}
settings: {description: "Tables model, node and mqtt of the settings in use.", type: dict, returned: always}
releases: {description: "Notes of the releases that this board's Python can run.", type: dict, returned: always}
models: {description: "Models that edged_model has brought, or begun to.", type: list, returned: always}
stale: {description: "Those for another Python, as after an upgrade of the system.", type: list, returned: always}
sums: {description: "SHA-256 of files; empty text where there is none.", type: dict, returned: always}
current: {description: "The release that answered last; empty where none did.", type: str, returned: always}
previous: {description: "The one before it.", type: str, returned: always}
linked: {description: "The one that the link names: another while a play goes over.", type: str, returned: always}
unfinished: {description: "Whether a play ended before the node had answered.", type: bool, returned: always}
"""

import hashlib
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

BRAKES = {"passive", "hot", "critical"}
"""Trips that slow a board down or switch it off. An `active` one starts a fan, at 50 C on a Raspberry Pi 5."""
BRAKES_C = 85.0
"""Where Raspberry Pis and mainline's RK3588 brake at the latest, also zones that tell only when they switch off."""


def existing(path: Path) -> Path:
    """The path or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def number(path: Path) -> float | None:
    """A file's number; None where there is none (zones may be disabled, and then cannot be read)."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def text(path: Path) -> str:
    """A file's text without its line end; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def hot(root: Path, margin_c: float) -> list[str]:
    """Zones within `margin_c` of where they brake: their first such trip (kernel: thermal/sysfs-api) or 85 C."""
    found = []
    for zone in sorted((root / "class/thermal").glob("thermal_zone*")):
        now = number(zone / "temp")
        trips = [
            value
            for kind in zone.glob("trip_point_*_type")
            if text(kind) in BRAKES
            and (value := number(kind.with_name(kind.name.replace("_type", "_temp")))) is not None
        ]
        trip_c = min((value / 1000 for value in trips if value > 0), default=BRAKES_C)
        trip_c = min(trip_c, BRAKES_C)
        if now is not None and now / 1000 > trip_c - margin_c:
            found.append(
                f"{text(zone / 'type') or zone.name} at {now / 1000:.1f} C, it brakes at {trip_c:.0f} C"
            )
    return found


def memory_mb() -> int:
    """All memory that the kernel has."""
    found = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) // 1024 if found else 0


def systemd() -> int:
    """Version of systemd; 0 where there is none."""
    try:
        shown = subprocess.run(["systemctl", "--version"], check=False, capture_output=True, text=True).stdout
    except OSError:
        return 0
    found = re.match(r"systemd (\d+)", shown)
    return int(found[1]) if found else 0


def target(link: Path) -> str:
    """Version that a link points to; empty where there is none."""
    return link.resolve().name if link.is_symlink() and link.exists() else ""


def brought(folder: Path) -> list[str]:
    """Models that edged_model has brought and nobody has touched since, as its notes tell, and parts of others."""
    names = [path.name for path in folder.glob("[!.]*.part")]
    for note in folder.glob(".*.verified"):
        model = folder / note.name[1:].removesuffix(".verified")
        try:
            stat = model.stat()
            if json.loads(note.read_text())[1:] == [stat.st_size, stat.st_mtime_ns, stat.st_ino]:
                names.append(model.name)
        except (OSError, ValueError, TypeError):
            continue
    return sorted(names)


def unfinished(home: Path) -> dict[str, str] | None:
    """What ran before a play that did not come to its end, as keep.yml notes it; None where all did."""
    try:
        told = json.loads((home / "unfinished").read_text())
        return {"current": told["current"], "previous": told["previous"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def settings(path: str | None) -> dict[str, object]:
    """Tables `model`, `node` and `mqtt` of the settings; empty where none are there or they cannot be read."""
    if path is None or sys.version_info < (3, 11):
        return {}
    import tomllib  # noqa: PLC0415 - a board with an older Python must come so far as to be refused

    try:
        found = tomllib.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return {name: found[name] for name in ("model", "node", "mqtt") if isinstance(found.get(name), dict)}


def digest(path: Path) -> str:
    """SHA-256 of a file; empty text where there is none."""
    if not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()  # small ones; file_digest is not in an older Python


def main() -> None:
    """Look and tell."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "model": {"type": "str", "required": True},
            "sys": {"type": "path", "default": "/sys"},
            "now_s": {"type": "float"},
            "margin_c": {"type": "float", "default": 10.0},
            "settings": {"type": "path"},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    home = Path(module.params["home"])
    now_s = module.params["now_s"]
    # Of the one that installs releases: Ansible may have found another for us.
    told = 'import sys; print("%d.%d" % sys.version_info[:2])'
    python = module.run_command(["python3", "-c", told], check_rc=True)[1].strip()
    folder = home / "releases"
    releases = {
        place.name: text(place / ".complete")
        for place in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if (place / ".complete").is_file()
    }
    stale = [name for name in releases if not (folder / name / "lib" / f"python{python}").is_dir()]
    linked = target(home / "current")
    before = unfinished(home)
    ran = before or {"current": linked, "previous": target(home / "previous")}
    module.exit_json(
        changed=False,
        architecture=platform.machine(),
        bits=8 * struct.calcsize("P"),
        python=python,
        systemd=systemd(),
        memory_mb=memory_mb(),
        writable=os.access(existing(home), os.W_OK),  # not so on a read-only card, for root either
        disk_free_mb=shutil.disk_usage(existing(home)).free // 1_000_000,
        clock_off_s=0 if now_s is None else round(abs(time.time() - now_s)),
        hot=hot(Path(module.params["sys"]), module.params["margin_c"]),
        model_there=(home / "models" / module.params["model"]).is_file(),
        linked=linked,
        unfinished=before is not None,
        **ran,
        releases={name: note for name, note in releases.items() if name not in stale},
        models=brought(home / "models"),
        stale=stale,
        settings=settings(module.params["settings"]),
        sums={name: digest(Path(os.fspath(name))) for name in module.params["files"]},
    )


if __name__ == "__main__":
    main()
