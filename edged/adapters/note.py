"""A line of text that outlives a restart, in the state folder. Whatever thread owns it."""

from __future__ import annotations

from pathlib import Path

import structlog

from edged import whole_file

TEXT_MAX = 4096

log = structlog.get_logger()


class Note:
    """The line. A disk that refuses costs the note and nothing else; the log has each reason once.

    Args:
        path: its folder must be there when it is written.
        durable: what was written stands there after a power cut, too; whoever writes waits for the disk.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self._path = path
        self._durable = durable
        self._complained = ""

    def read(self) -> str:
        """What was noted last; empty for nothing."""
        try:
            with self._path.open(encoding="utf-8") as file:
                return file.read(TEXT_MAX).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def write(self, text: str) -> None:
        """Note this in place of the last, or nothing."""
        try:
            if text:
                beside = self._path.with_name(f".{self._path.name}")
                line = f"{text}\n".encode()
                whole_file.write(self._path, line, part=beside, mode=0o644, sync=self._durable)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._complained:
                log.warning("note_failed", file=str(self._path), reason=reason)
            self._complained = reason
            return
        self._complained = ""
