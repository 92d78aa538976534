"""Metrics as a file for the textfile collector of Prometheus' node_exporter. Written by the dispatcher thread.

The collector reads `*.prom` at any moment, so the file is replaced whole, by rename; it runs as another user, so
everybody may read it. Nothing is synced: after a power cut the numbers are old anyway.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from edged import whole_file

MEND = "as a service it may write /run/edged: put the file there, and a link to it where node_exporter looks"

log = structlog.get_logger()


class Textfile:
    """The file.

    Args:
        path: its folder must be there; the name should end in `.prom`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = ""

    def write(self, text: str) -> None:
        """Replace its content; a disk that refuses is told in the log, once for each reason."""
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            whole_file.write(self._path, text.encode(), part=beside, mode=0o644, sync=False)
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._complained:
                log.warning("metrics_textfile_failed", file=str(self._path), reason=reason, mend=MEND)
            self._complained = reason
            return
        self._complained = ""

    def remove(self) -> None:
        """Take it away at the end: numbers of a node that has ended would look like those of one that lives."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("metrics_textfile_failed", file=str(self._path), reason=error.strerror)
