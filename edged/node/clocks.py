"""Lowers the clocks of the engine's cores for the thermostat, and gives them back whatever happens.

Belongs to the dispatcher thread. Which cap an effort buys, and whose a cap is, is decided in
`edged.core.heat.clocks`. What was there before us is noted on disk before the first cap is lowered: a daemon that
follows one that was killed, or the unit's `ExecStopPost=`, finds it there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from edged.core.heat.clocks import SAME, Cap, Found, Kept, Ladder, decode, encode, in_words, ladder
from edged.core.topology import format_cores
from edged.core.vitals import Vitals
from edged.node.note import Note

NOTE = "clocks"
"""The note's name in the state folder."""
OFF = "heat.clocks is off"
OTHERS = "another edged on this board lowers them"
NONE = "this machine tells no clocks of the engine's cores"
UNNOTED = "what stands there cannot be noted in paths.state"
NOTE_AGAIN = 30
"""Readings until a note that the disk refused is tried again: a minute, unless set otherwise."""
SAY_AGAIN = 300
"""Readings until another one's change of a cap is worth a line again: a program that sets it over and over would
fill the journal. Ten minutes, unless set otherwise."""

log = structlog.get_logger()


class Caps(Protocol):
    """`edged.adapters.vitals.Caps`, as far as it is needed here."""

    def look(self, cores: Collection[int]) -> tuple[Found, ...]:
        """The policies of these cores."""

    def write(self, name: str, hz: int) -> str:
        """Set a cap; why that failed, or nothing."""

    def claim(self) -> bool:
        """Whether no other process lowers them."""

    def there(self, name: str) -> bool:
        """Whether there is such a policy."""

    def right(self, name: str) -> str:
        """The command that gives the right to."""


@dataclass(slots=True)
class Clocks:
    """The clocks of the engine's cores.

    Attributes:
        caps: reads and writes them.
        cores: of the engine.
        note: what was there before us.
        boot_id: of this boot, after which the kernel has forgotten all caps; None leaves the clocks alone.
        wanted: whether the settings allow it.
        reason: why the clocks are left alone just now; empty while they are used.
        mend: the command that would allow it; empty where there is none.
    """

    caps: Caps
    cores: tuple[int, ...]
    note: Note
    boot_id: str | None
    wanted: bool = True
    reason: str = OFF
    mend: str = ""
    _recovered: bool = False
    _recovery_failed: bool = False
    _others: bool = False
    _found: dict[str, Found] = field(default_factory=dict)
    _known: dict[str, Cap] = field(default_factory=dict)
    _broken: dict[str, str] = field(default_factory=dict)
    _lately: dict[tuple[int, ...], int] = field(default_factory=dict)
    _before: dict[tuple[int, ...], int] = field(default_factory=dict)
    _noted: str = ""
    _note_in: int = 0
    _quiet: dict[str, int] = field(default_factory=dict)
    _left_out: int = 0

    @property
    def lowered(self) -> bool:
        """Whether a cap of ours holds, or did at the last reading."""
        return bool(self._lately or self._before)

    def recover(self) -> bool:
        """Give back what a daemon before this one left lowered; True when nothing is left to give back."""
        text = self.note.read()
        kept = decode(text)
        if kept is not None and kept.boot_id == self.boot_id:
            owners = {name: hz for name, hz in kept.owners_hz.items() if self.caps.there(name)}
            failed = {name: why for name, hz in owners.items() if (why := self.caps.write(name, hz))}
            if failed:
                # What its owner has again is his: the next try writes the rest alone.
                left = {name: owners[name] for name in failed}
                if left != kept.owners_hz:
                    self.note.write(encode(replace(kept, owners_hz=left)))
                if not self._recovery_failed:
                    first = next(iter(failed))
                    mend = self.caps.right(first)
                    log.warning("clocks_not_restored", caps=in_words(left), reason=failed[first], mend=mend)
                self._recovery_failed = True
                return False
            log.info("clocks_restored", caps=in_words(owners))
        if text:
            self.note.write("")
        return True

    def ladders(self, *, hot: bool) -> tuple[Ladder, ...]:
        """Read the caps; what may be lowered now. `hot`: the kernel may throttle by itself."""
        self._recovered = self._recovered or self.recover()
        there = self._recovered and self.wanted and self.boot_id is not None
        found = self.caps.look(self.cores) if there else ()
        self._others = any(one.writable for one in found) and not self.caps.claim()
        self._found = {} if self._others else {one.name: one for one in found}
        for one in self._found.values():
            known = self._known.setdefault(one.name, Cap())
            if known.look(one, hot=hot):
                self._say_changed(one)
                if self._noted:
                    self._keep()
        self._quiet = {name: left - 1 for name, left in self._quiet.items() if left > 1}
        if self._note_in:
            self._note_in -= 1
            if not self._note_in:
                self._keep()
        before, self.reason = self.reason, self._objection()
        if self.reason != before:
            mend = {"mend": self.mend} if self.mend else {}
            if self.reason:
                log.info("clocks_left_alone", reason=self.reason, **mend)
            else:
                log.info("clocks_used", policies=sorted(self._found))
        return () if self.reason else tuple(self._ladders())

    def apply(self, caps_hz: Mapping[str, int]) -> None:
        """Write the caps that differ; all that are not named get their owner's back."""
        for name in self._found:
            known = self._known[name]
            wanted_hz = caps_hz.get(name, known.owner_hz)
            hz = None if wanted_hz is None else known.wish(wanted_hz)
            if hz is None or (hz != known.owner_hz and (self._note_in or not self._keep())):
                continue
            why = self.caps.write(name, hz)
            if not why:
                known.wrote(hz)
            elif name not in self._broken:
                log.warning("clock_cap_failed", policy=name, reason=why)
                self._broken[name] = why
        self._before = self._lately
        self._lately = {
            one.cores: hz for name, one in self._found.items() if (hz := self._known[name].ours_hz)
        }

    def restore(self) -> None:
        """Give all caps back: the daemon ends."""
        if not self._noted:
            return
        for name, known in self._known.items():
            if known.ours_hz and known.owner_hz and not self.caps.write(name, known.owner_hz):
                known.wrote(known.owner_hz)
        left = [name for name, known in self._known.items() if known.ours_hz and self.caps.there(name)]
        if left:
            log.error("clocks_not_restored", policies=left, mend=self.caps.right(left[0]))
            return
        self.note.write("")
        self._noted = ""

    def without_ours(self, vitals: Vitals) -> Vitals:
        """The vitals as they would be without our caps: a clock that we hold down is not throttled.

        A reading may be older than our last order, so the one before counts as well.
        """
        if not vitals.throttled or not self.lowered or vitals.cpu_cooling:
            return vitals
        ours: dict[tuple[int, ...], int] = {}
        for cores, hz in (*self._lately.items(), *self._before.items()):
            ours[cores] = min(hz, ours.get(cores, hz))
        owners = any((self._known[name].owner_hz or 0) < one.highest_hz for name, one in self._found.items())
        others = owners or any(
            clock.max_hz < (1 - SAME) * ours.get(clock.cores, clock.hardware_max_hz)
            for clock in vitals.clocks
            if clock.max_hz and clock.hardware_max_hz
        )
        return replace(vitals, throttled=others)

    def as_json(self) -> dict[str, int]:
        """Caps that hold, by cores: the owner's where ours does not; nothing while the clocks are left alone."""
        if self.reason:
            return {}
        caps = {one.cores: self._known[name] for name, one in self._found.items()}
        return {format_cores(cores): cap.ours_hz or cap.owner_hz or 0 for cores, cap in caps.items()}

    def about(self) -> dict[str, Any]:
        """For `info`: whether heat may lower the clocks; why not, and the command that would let it."""
        if not self.reason:
            return {"lowered": True}
        told: dict[str, Any] = {"lowered": False, "reason": self.reason}
        return {**told, "mend": self.mend} if self.mend else told

    def _say_changed(self, one: Found) -> None:
        if one.name in self._quiet:
            self._left_out += 1
            return
        self._quiet[one.name] = SAY_AGAIN
        others = {"left_out": self._left_out} if self._left_out else {}
        log.info("clock_cap_changed_by_another", policy=one.name, cap_hz=one.cap_hz, **others)
        self._left_out = 0

    def _objection(self) -> str:
        """Why the clocks must be left alone; empty when they may be lowered."""
        found = self._found.values()
        barred = [one.name for one in found if not one.writable]
        self.mend = self.caps.right(barred[0] if len(barred) == 1 else "policy*") if barred else ""
        broken = [self._broken[one.name] for one in found if one.name in self._broken]
        unread = [one.name for one in found if self._known[one.name].owner_hz is None]
        objections = {
            OFF: not self.wanted,
            "what an earlier daemon lowered could not be given back": not self._recovered,
            "the kernel tells no boot id": self.boot_id is None,
            OTHERS: self._others,
            NONE: not found,
            UNNOTED: self._note_in,
            f"{' and '.join(barred)} may not be written": barred,
            "".join(broken[:1]): broken,
            "the kernel throttles, and shows its own caps in place of the owner's": unread,
        }
        return next((why for why, stands in objections.items() if stands), "")

    def _ladders(self) -> list[Ladder]:
        return [ladder(one, hz) for name, one in self._found.items() if (hz := self._known[name].owner_hz)]

    def _keep(self) -> bool:
        """Note the owners' caps; without the note on disk nothing is lowered, and heat takes threads and time."""
        owners = {name: known.owner_hz for name, known in self._known.items() if known.owner_hz}
        text = encode(Kept(self.boot_id or "", owners))
        if self.note.read() != text:  # also where somebody gave the clocks back beside us, and took the note
            self.note.write(text)
            if self.note.read() != text:
                self._note_in = NOTE_AGAIN
                return False
        self._noted, self._note_in = text, 0
        return True
