"""Certificates that are renewed in their place: what connects from then on has the new ones, without a restart."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from edged.errors import SettingsError
from edged.small_file import Mark, mark

log = structlog.get_logger()


class Renewal:
    """The TLS context of some files as they were when they last fitted together.

    Args:
        files: certificates and key; those that are not set are left out.
        read: makes a context of them.

    Raises:
        SettingsError: they are not what they should be.
    """

    def __init__(self, *files: Path | None, read: Callable[[], ssl.SSLContext]) -> None:
        self._files = [file for file in files if file is not None]
        self._read = read
        self._seen = self._look()
        self.context = read()

    def follow(self) -> bool:
        """Look at the files before a connection; True where `context` is another one now.

        A certificate and its key are written one after the other: until both are there, that of before is kept.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen  # before they are read: what changes meanwhile is read again
        files = [str(file) for file in self._files]
        try:
            self.context = self._read()
        except SettingsError as error:
            log.warning("certificate_kept", files=files, reason=f"{error}; until then the one before is used")
            return False
        log.info("certificate_renewed", files=files)
        return True

    def _look(self) -> list[Mark]:
        return [mark(file) for file in self._files]
