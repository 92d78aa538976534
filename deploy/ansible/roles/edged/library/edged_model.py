"""Ansible module: a model's file, fetched or put together from pieces, used only when its SHA-256 fits."""

from __future__ import annotations

DOCUMENTATION = """
module: edged_model
short_description: Brings a large file to a board, goes on after an interruption, verifies it before use
description:
  - With url, the board fetches the file into FILE.part; a transfer that broke off goes on where it was, also in a
    later run. With pieces, the files in that folder are put together in the order of their names.
  - FILE appears only with the right SHA-256. A file that is there with another is replaced.
author: edged
options:
  path: {type: path, required: true, description: The file.}
  sha256: {type: str, required: true, description: 64 hexadecimal digits.}
  url: {type: str, description: http or https address.}
  pieces: {type: path, description: Folder with the pieces; it is removed afterwards.}
  tries: {type: int, default: 5, description: Times that a broken transfer is taken up again.}
  spare_mb: {type: int, default: 128, description: Room that stays free for a node's journal.}
"""

EXAMPLES = """
- edged_model: {path: /opt/edged/models/model.gguf, sha256: "...", url: "http://files.lan/model.gguf"}
"""

RETURN = """
have: {description: Whether the right file is there., type: bool, returned: always}
"""

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

CHUNK_BYTES = 1 << 20
WAIT_S = 60


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(path: Path) -> Path:
    """Where stands which file was verified: hashing a gigabyte at each run takes half a minute on SD."""
    return path.with_name(f".{path.name}.verified")


def mark(path: Path, sha256: str) -> str:
    """What the note says while nobody touches the file."""
    stat = path.stat()
    return json.dumps([sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino])


def have(path: Path, sha256: str) -> bool:
    """Whether the right file is there."""
    if not path.is_file():
        return False
    kept = note(path)
    if kept.is_file() and kept.read_text() == mark(path, sha256):
        return True
    return digest(path) == sha256


class FullError(OSError):
    """The disk has no room for it, beside what must stay free."""


def need(part: Path, size: int, spare: int) -> None:
    """See that there is room for so many bytes more.

    Raises:
        FullError: there is none.
    """
    free = shutil.disk_usage(part.parent).free
    if size + spare > free:
        raise FullError(
            f"{free // 10**6} MB are free in {part.parent}, and {(size + spare) // 10**6} MB are needed for what "
            "is to come and the journal of the node; look whether it is the right address, or make room"
        )


def fetch(url: str, part: Path, spare: int) -> None:
    """Fetch `url` to `part`, going on after what is there.

    Raises:
        FullError: it would fill the disk, of whatever length it is or says to be.
        OSError: it broke off (urllib.error.URLError, TimeoutError among them).
        HTTPException: it broke off in the midst of a chunk or a head.
    """
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})  # noqa: S310 - preflight let http and https through alone
    try:
        answer = urllib.request.urlopen(request, timeout=WAIT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:  # noqa: PLR2004 - Range Not Satisfiable: all of it is there
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:  # noqa: PLR2004 - Partial Content
        length = answer.length  # None where none is told, or what is told is no number
        need(part, length or 0, spare)
        got = 0
        while data := answer.read(CHUNK_BYTES):
            if length is None:
                need(part, len(data), spare)
            file.write(data)
            got += len(data)
    if length is not None and got < length:
        raise TimeoutError(f"the server ended after {got} of {length} bytes")


def bring(module: AnsibleModule, part: Path) -> None:
    """Fetch until it is whole; ends the module where it cannot be had."""
    for attempt in range(module.params["tries"]):
        try:
            fetch(module.params["url"], part, module.params["spare_mb"] * 10**6)
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == module.params["tries"] or isinstance(error, FullError):
                module.fail_json(
                    msg=f"{module.params['url']}: {error}; what came so far is kept in {part}: run the "
                    "play again and it goes on there"
                )
            time.sleep(2**attempt)
        else:
            return


def join(pieces: Path, part: Path) -> None:
    """Put the pieces together."""
    with part.open("wb") as whole:
        for piece in sorted(pieces.iterdir()):
            with piece.open("rb") as file:
                shutil.copyfileobj(file, whole, CHUNK_BYTES)


def main() -> None:
    """Bring it."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "url": {"type": "str"},
            "pieces": {"type": "path"},
            "tries": {"type": "int", "default": 5},
            "spare_mb": {"type": "int", "default": 128},
        },
        mutually_exclusive=[("url", "pieces")],
        supports_check_mode=True,
    )
    path, sha256 = Path(module.params["path"]), module.params["sha256"]
    if have(path, sha256):
        if not module.check_mode and not (
            note(path).is_file() and note(path).read_text() == mark(path, sha256)
        ):
            note(path).write_text(mark(path, sha256))
        module.exit_json(changed=False, have=True)
    if module.check_mode or (module.params["url"] is None and module.params["pieces"] is None):
        module.exit_json(changed=module.params["url"] is not None or module.check_mode, have=False)
    part = path.with_name(f"{path.name}.part")
    if module.params["pieces"] is not None:
        join(Path(module.params["pieces"]), part)
    else:
        begun = part.exists()
        bring(module, part)
        # What was begun may be of another file, which the address or the name had before.
        if begun and digest(part) != sha256:
            part.unlink()
            bring(module, part)
    found = digest(part)
    if found != sha256:
        part.unlink()
        module.fail_json(
            msg=f"{module.params['url'] or path}: its SHA-256 is {found}, the inventory says {sha256}; look which "
            "one is right. It was removed, and what runs is as before"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())  # boards lose power: the name must not stand before the content
    part.chmod(0o644)
    part.replace(path)
    note(path).write_text(mark(path, sha256))
    if module.params["pieces"] is not None:
        shutil.rmtree(module.params["pieces"])
    module.exit_json(changed=True, have=True)


if __name__ == "__main__":
    main()
