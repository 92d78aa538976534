"""Brings a model file from a URL or a path; after an interruption it goes on with what is there."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

import edged
from edged import whole_file
from edged.errors import ModelError

CHUNK_BYTES = 1 << 20
TRIES, PAUSE_S = 5, 2.0
"""A connection that breaks is made anew so often; each that brings something counts as a first one."""
SILENCE_S = 60.0
SPARE_BYTES = 64 << 20
"""Room that stays free on the disk: a journal that cannot write is worse than a missing model."""

CERTIFICATE = {
    "has expired": "set this machine's clock if that is wrong (timedatectl)",
    "not yet valid": "set this machine's clock if that is wrong (timedatectl)",
    "issuer": "if it is that of your network's proxy, name the file with its authority in SSL_CERT_FILE",
    "self-signed": "if it is that of your network's proxy, name the file with its authority in SSL_CERT_FILE",
}
"""Parts of OpenSSL's words on a server's certificate (X509_verify_cert_error_string) and what helps."""

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and how many it will be, where that is known."""


def is_url(source: str) -> bool:
    """Whether the source is fetched over the network."""
    return source.partition("://")[0].lower() in {"http", "https"}


def fetch(
    source: str,
    part: Path,
    progress: Progress,
    *,
    pause_s: float = PAUSE_S,
    spare_bytes: int = SPARE_BYTES,
) -> str:
    """Bring `source` into the file `part`, going on where an earlier call ended.

    Args:
        source: an http or https URL, or a path.
        part: where it grows; beside it `part`.from says what it is a part of.
        progress: told as it goes.
        pause_s: seconds before a broken connection is made anew; each time more.
        spare_bytes: of the disk that stay free, also of a source that tells no length.

    Returns:
        SHA-256 of the whole file.

    Raises:
        ModelError: it cannot be had; what was brought stays for the next call.
    """
    origin = part.with_name(f"{part.name}.from")
    try:
        if not is_url(source) and not Path(source).is_file():
            raise ModelError(f"{source}: no such file; give a path, or an address with http:// or https://")
        if is_url(source) and "@" in source.partition("://")[2].partition("/")[0]:
            raise ModelError(
                "an address with a name and password in it is not asked; fetch the file with curl, and add that"
            )
        if part.is_symlink() or not (part.exists() and _origin(origin)[0] == source):
            part.unlink(missing_ok=True)
            _remember(origin, source, "")
        if is_url(source):
            _download(source, part, origin, progress, pause_s=pause_s, spare_bytes=spare_bytes)
        else:
            _copy(source, part, origin, progress, spare_bytes)
        with part.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{error.filename or part}: {error.strerror}") from error


def discard(part: Path) -> None:
    """Remove a part and what is known of it."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.from").unlink(missing_ok=True)


def _origin(origin: Path) -> tuple[str, str]:
    """What `_remember` wrote; empty texts where it did not."""
    try:
        source, _, tag = origin.read_text("utf-8", "replace").partition("\n")
    except FileNotFoundError:
        return "", ""
    return source, tag.strip()


def _remember(origin: Path, source: str, tag: str) -> None:
    """Note which file a part is of: its source, and what tells that it is the same there."""
    new = origin.with_name(f"{origin.name}.new")
    whole_file.write(origin, f"{source}\n{tag}\n".encode(), part=new, sync=False)


def _grow(part: Path) -> IO[bytes]:
    """Open the part to go on; never what a link leads to, see `whole_file.write`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(part, flags, 0o666), "ab")


def _copy(source: str, part: Path, origin: Path, progress: Progress, spare_bytes: int) -> None:
    """Go on behind what is there if the source has the same size and time of change as then."""
    with Path(source).open("rb") as file, _grow(part) as out:
        found = os.fstat(file.fileno())
        size, tag = found.st_size, f"{found.st_size} {found.st_mtime_ns}"
        if _origin(origin)[1] != tag:
            out.truncate(out.seek(0))
        _remember(origin, source, tag)
        file.seek(out.tell())
        _pour(file, out, size, progress, spare_bytes)


def _download(
    url: str, part: Path, origin: Path, progress: Progress, *, pause_s: float, spare_bytes: int
) -> None:
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(url, part, origin, progress, spare_bytes)
        except urllib.error.HTTPError as error:
            raise ModelError(f"{url}: the server answers {error.code} {error.reason}") from error
        except (ValueError, http.client.InvalidURL) as error:
            raise ModelError(f"{url}: no address: {error}; write it as a browser copies it") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):  # it is the same in a minute
                verdict = reason.verify_message.rstrip(".")
                mend = next((f"; {mend}" for words, mend in CERTIFICATE.items() if words in verdict), "")
                raise ModelError(f"{url}: its certificate is not accepted: {verdict}{mend}") from error
            brought = part.stat().st_size if part.exists() else 0
            tries = 1 if brought > before else tries + 1
            if tries >= TRIES:
                reason = getattr(reason, "strerror", None) or reason
                raise ModelError(
                    f"{url}: {reason}; {brought} bytes are here, the same command goes on with them"
                ) from error
            time.sleep(pause_s * tries)
        else:
            return


def _request(url: str, part: Path, origin: Path, progress: Progress, spare_bytes: int) -> None:
    """One connection; goes on behind what is there if the server still has the same file (RFC 9110, 13.1.5)."""
    have = part.stat().st_size if part.exists() else 0
    tag = _origin(origin)[1]
    request = urllib.request.Request(url, headers={"User-Agent": f"edged/{edged.__version__}"})  # noqa: S310 - http(s)
    if have and tag:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=SILENCE_S)  # noqa: S310 - http(s), see is_url
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            error.close()
            return  # it is all here
        raise
    with answer, _grow(part) as out:
        if not isinstance(answer, http.client.HTTPResponse):  # urllib follows to ftp:// as well
            raise ModelError(f"{url}: it leads to {answer.url}, which is no http or https")
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            out.truncate(out.seek(0))
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _remember(origin, url, "")
            raise ConnectionError(
                f"the server sent other bytes than those from {have} on, which were asked for"
            )
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        _remember(origin, url, "" if tag.startswith("W/") else tag)
        total = None if answer.length is None else out.tell() + answer.length
        _pour(answer, out, total, progress, spare_bytes)
        if total is not None and out.tell() < total:
            raise ConnectionError(f"the connection ended after {out.tell()} of {total} bytes")


def _pour(source: IO[bytes], out: IO[bytes], total: int | None, progress: Progress, spare_bytes: int) -> None:
    folder = Path(str(out.name)).parent
    need(folder, 0 if total is None else total - out.tell(), spare_bytes)
    progress(out.tell(), total)
    while chunk := source.read(CHUNK_BYTES):
        if total is None:
            need(folder, len(chunk), spare_bytes)
        out.write(chunk)
        progress(out.tell(), total)


def need(folder: Path, size_bytes: int, spare_bytes: int = SPARE_BYTES) -> None:
    """See that so many bytes can be written and `spare_bytes` stay free.

    Raises:
        ModelError: they cannot.
    """
    free = shutil.disk_usage(folder).free
    if size_bytes + spare_bytes > free:
        raise ModelError(
            f"{folder}: {free >> 20} MiB are free and {(size_bytes + spare_bytes) >> 20} MiB needed; remove a "
            "model, or give another --folder"
        )
