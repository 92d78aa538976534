"""The store of prompts on disk: states of the KV cache that a later prompt begins with, also after a restart.

The longest common beginning decides what a prompt gets, and only where reading is faster than computing. Files
of another model, shape of the cache or llama.cpp, and damaged ones, are removed. Read from the intake thread,
written by a thread of its own while the model rests.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.core.wear import Allowance
from edged.engine import state_file
from edged.engine.slots import Stored, common, useful
from edged.engine.state_file import SUFFIX, UNFINISHED, UnfitError

TOKENS_MIN = 64
"""Fewer tokens than this are computed: a file, a hash and two system calls are not worth it."""
MARGIN = 2.0
"""Reading must be so much faster than computing: an estimate may be wrong, and a card slow."""
GROWTH_SHARE = 4
"""What is known already is written again only when a quarter of it is new."""
WAITING_MAX = 2
"""States in memory for questions that wait; those that begin alike share one. Each is as large as a KV stream."""
READ_BYTES_PER_S = 40e6
"""Before the first read: a common SD card (UHS-I, class A1)."""
MEASURED_S = 3600.0
"""So long after the last read the disk counts as no slower than that: where it was busy with a backup nothing was
read any more, so nothing told that this was over."""
HEAD_TOKEN_BYTES = 8
"""Four in the file's head, and a generous share of the rest of it."""
PAUSE_S = 3600.0
"""Nothing is written for so long after the disk refused, or the day's allowance was used up."""

SPARE_BYTES = 96 * 2**20
"""Left free on the disk for the journal, 64 MiB by default and its log: without it no question is taken."""

ALLOWANCE = "allowance"
"""File with the bytes that may still be written: a node that crashes over and over must not write for ever."""

Log = Callable[[str, str, dict[str, Any]], None]
"""Takes level, event and fields of a line."""


@dataclass(slots=True)
class Entry:
    """One file; `used` grows with each use, the smallest goes first."""

    path: Path
    tokens: list[int]
    size: int
    used: int


class Prefixes:
    """All files of one folder.

    Args:
        folder: made (0700) if absent; its parent must exist.
        key: names model, shape of the cache and llama.cpp; see `edged.engine.loading`.
        max_bytes: of all files together, and of what is written in a day of running.
        log: takes lines for the daemon's log.
        clock: monotonic seconds.
        token_bytes: of a state, about, for each of its tokens: what would be too large is not made. One that was
            too large all the same corrects it.
        spare_bytes: of the disk, which are not taken.
        least: how many of a file's tokens a prompt must begin with to go on from it, by their number.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        max_bytes: int,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        *,
        token_bytes: int = 0,
        spare_bytes: int = SPARE_BYTES,
        least: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self._folder = folder
        self._key = key
        self._max_bytes = max_bytes
        self._log = log
        self._clock = clock
        self._token_bytes = token_bytes
        self._spare_bytes = spare_bytes
        self._least = least
        self._guard = threading.Lock()
        self._entries: dict[Path, Entry] = {}
        self._waiting: weakref.WeakValueDictionary[Path, Stored] = weakref.WeakValueDictionary()
        self._uses = 0
        self._read_bytes_per_s, self._read_at = READ_BYTES_PER_S, clock()
        self._writer: threading.Thread | None = None
        self._resume_at = 0.0
        self._allowance = Allowance(max_bytes, float(max_bytes), clock())
        self._usable = self._open()
        self.loads = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        with self._guard:
            return sum(entry.size for entry in self._entries.values())

    # reading --------------------------------------------------------------------------------------------

    def fetch(self, tokens: Sequence[int], have: int, read_s: float) -> Stored | None:
        """What a prompt can begin with, if it is worth reading; takes as long as the disk does. Intake thread.

        Args:
            tokens: the prompt.
            have: how many of them the cache holds already.
            read_s: seconds to compute one token.
        """
        best, shared = self._best(tokens)
        gain = shared - have
        if best is None or gain < TOKENS_MIN or gain * read_s < MARGIN * best.size / self._expected():
            return None
        known = self._waiting.get(best.path)
        if known is not None or len(self._waiting) >= WAITING_MAX:
            return known
        begun = self._clock()
        try:
            state = state_file.read(best.path, self._key, best.tokens)
        except (OSError, UnfitError) as error:
            self._remove(best.path, str(error))
            return None
        self._read_at = self._clock()
        took_s = max(1e-6, self._read_at - begun)
        self._read_bytes_per_s += 0.5 * (len(state) / took_s - self._read_bytes_per_s)
        with self._guard:
            self._uses += 1
            best.used = self._uses
            self.loads += 1
        found = Stored(best.tokens, state, lambda: self._remove(best.path, "llama.cpp does not take it"))
        self._waiting[best.path] = found
        return found

    def _expected(self) -> float:
        """Bytes that the disk is expected to give in a second."""
        old = self._clock() - self._read_at >= MEASURED_S
        return max(self._read_bytes_per_s, READ_BYTES_PER_S) if old else self._read_bytes_per_s

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether a file with these tokens would be worth its writing."""
        if not self._usable or len(tokens) < TOKENS_MIN:
            return False
        if len(tokens) * (self._token_bytes + HEAD_TOKEN_BYTES) > self._max_bytes:
            return False
        new = len(tokens) - self._best([*tokens, 0])[1]
        return new >= max(TOKENS_MIN, len(tokens) // GROWTH_SHARE)

    def _best(self, tokens: Sequence[int]) -> tuple[Entry | None, int]:
        """The file that begins most like a prompt, and how many tokens they share."""
        with self._guard:
            known = [*self._entries.values()]
        shared = [(useful(one.tokens, tokens, self._least(len(one.tokens))), one) for one in known]
        count, best = max(shared, key=lambda one: one[0], default=(0, None))
        return best, count

    # writing --------------------------------------------------------------------------------------------

    @property
    def writing(self) -> bool:
        """Whether a file is being written, or none may be just now."""
        busy = self._writer is not None and self._writer.is_alive()
        return busy or not self._usable or self._clock() < self._resume_at

    def put(self, tokens: Sequence[int], state: bytearray) -> None:
        """Write a file, in a thread of its own, if the allowance has room for it. Model thread, at rest."""
        if len(state) + HEAD_TOKEN_BYTES * len(tokens) > self._max_bytes:
            self._token_bytes = max(self._token_bytes, -(-len(state) // len(tokens)))
            self._log("debug", "prefix_too_large", {"tokens": len(tokens), "bytes": len(state)})
            return
        if not self._allowance.take(len(state), self._clock()):
            self._resume_at = self._clock() + PAUSE_S
            self._log("info", "prefix_allowance_used_up", {"bytes": len(state)})
            return
        self._writer = threading.Thread(
            target=self._write, args=(list(tokens), state), name="prefixes", daemon=True
        )
        self._writer.start()

    def clear(self) -> bool:
        """Remove all files; the allowance stays what it is. False where the disk refuses. Model thread."""
        self.settle()
        with self._guard:
            paths = list(self._entries)
        try:
            for path in paths:
                self._drop(path)
        except OSError as error:
            self._log("warning", "prefixes_not_forgotten", {"reason": str(error)})
            return False
        self._log("info", "prefixes_forgotten", {"files": len(paths)})
        return True

    def settle(self) -> None:
        """Wait until what is being written is on disk."""
        if self._writer is not None:
            self._writer.join()

    def _write(self, tokens: list[int], state: bytearray) -> None:
        path = self._folder / state_file.name_of(tokens)
        try:
            size = len(state) + HEAD_TOKEN_BYTES * len(tokens)
            outdated = self._outdated(tokens, size)
            self._leave_room(size - sum(entry.size for entry in outdated))
            state_file.place(self._folder / ALLOWANCE, b"%d" % self._allowance.left_bytes)
            for entry in outdated:
                self._drop(entry.path)
            size = state_file.write(path, self._key, tokens, state)
        except OSError as error:
            self._resume_at = self._clock() + PAUSE_S
            self._log("warning", "prefix_not_written", {"reason": str(error)})
            return
        self._add(path, tokens, size)
        self._log("debug", "prefix_written", {"tokens": len(tokens), "bytes": size})

    def _leave_room(self, size: int) -> None:
        found = os.statvfs(self._folder)
        if found.f_bavail * found.f_frsize - size < self._spare_bytes:
            spare = f"the last {self._spare_bytes / 2**20:.0f} MiB of the disk are the journal's"
            raise OSError(f"{spare}; make room (df {self._folder})")

    def _outdated(self, tokens: list[int], size: int) -> list[Entry]:
        """Files whose tokens all stand in a new one; then the oldest, until there is room."""
        with self._guard:
            entries = sorted(self._entries.values(), key=lambda entry: entry.used)
        outdated = [e for e in entries if common(e.tokens, [*tokens, 0]) == len(e.tokens)]
        rest = [entry for entry in entries if entry not in outdated]
        while rest and sum(entry.size for entry in rest) + size > self._max_bytes:
            outdated.append(rest.pop(0))
        return outdated

    # the folder -----------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Look through the folder, before any other thread does; False where it cannot be used."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._folder.chmod(0o700)
            for path in sorted(self._folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns):
                if path.suffix == SUFFIX:
                    self._look(path)
                elif path.suffix == UNFINISHED:
                    path.unlink()
            self._allowance.left_bytes = min(self._max_bytes, self._left())
            for entry in self._outdated([], 0):  # the bound may be another one now
                self._drop(entry.path)
        except OSError as error:
            self._log("warning", "prefixes_unusable", {"folder": str(self._folder), "reason": str(error)})
            return False
        return True

    def _left(self) -> int:
        """What the last life left of the allowance; all of it before the first, none where it is unreadable."""
        try:
            return int((self._folder / ALLOWANCE).read_text("ascii"))
        except FileNotFoundError:
            return self._max_bytes
        except ValueError:
            return 0

    def _look(self, path: Path) -> None:
        """Take a file in by its header, or remove it; its state is checked when it is read."""
        try:
            header, size = state_file.look(path)
        except (OSError, UnfitError) as error:
            self._remove(path, str(error))
            return
        if header.key == self._key:
            self._add(path, header.tokens, size)
        else:
            self._remove(path, "it belongs to another model, shape of the cache or version of llama.cpp")

    def _add(self, path: Path, tokens: list[int], size: int) -> None:
        with self._guard:
            self._uses += 1
            self._entries[path] = Entry(path, tokens, size, self._uses)

    def _remove(self, path: Path, why: str) -> None:
        self._log("warning", "prefix_removed", {"file": path.name, "reason": why})
        with suppress(OSError):
            self._drop(path)

    def _drop(self, path: Path) -> None:
        with self._guard:
            self._entries.pop(path, None)
        path.unlink(missing_ok=True)


def erase(folder: Path) -> None:
    """Remove what a store has left: it was switched off."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in {SUFFIX, UNFINISHED} or path.name == ALLOWANCE:
                path.unlink()
        folder.rmdir()
