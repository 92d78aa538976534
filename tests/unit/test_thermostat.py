"""The thermostat among its parts: what it allows follows what the engine was really started with."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import boards
import pytest
from configured import configured
from kept_engine import KeptEngine

from edged.adapters.note import Note
from edged.adapters.vitals import Caps, VitalsReader
from edged.core.heat.edges import Edges
from edged.core.heat.heat import Heat
from edged.core.heat.margins import Margins
from edged.core.heat.policy import Ceiling
from edged.core.vitals import headroom_c
from edged.engine.client import EngineGone
from edged.node.clocks import Clocks
from edged.node.heat import NOTE_S, Thermostat
from edged.node.supervision import CONTEXT_STEP, Supervision

SETUP = configured(
    slots=2,
    context=2048,
    batch_tokens=256,
    decode_threads=4,
    prefill_threads=4,
    cores=(4, 5, 6, 7),
    reasoning_budget=192,
    delta_interval_s=0.1,
)
BIG = "bigcore0-thermal"


class Pools:
    """Membership that is nobody's business here."""

    def leave(self, reason: str) -> None:
        """Leave."""

    def rejoin(self, reason: str) -> None:
        """Come back."""


class Rig:
    """A thermostat on a ROCK 5B of files, for an engine that nothing else uses."""

    def __init__(self, folder: Path) -> None:
        self.root = boards.rk3588_mainline(folder / "board")
        self.now, self.oom_kills = 1000.0, 0
        self.reader = VitalsReader(self.root / "sys", self.root / "proc")
        self.supervision = Supervision(
            KeptEngine(), SETUP, 1024, 30.0, 60.0, lambda: self.now, lambda: self.oom_kills
        )
        note = Note(folder / "clocks")
        clocks = Clocks(Caps(self.root / "sys"), SETUP.cores, note, self.reader.boot_id())
        self.notes: list[str] = []
        self.thermostat = Thermostat(
            Heat(Margins(), edges=Edges("this-boot")),
            self.ceiling,
            self.supervision,
            Pools(),
            lambda _event, **_fields: None,
            clocks,
            self.notes.append,
        )
        self.supervision.start()

    def ceiling(self) -> Ceiling:
        """As the daemon has it."""
        setup = self.supervision.setup
        return Ceiling(setup.context, 1024, setup.slots, setup.decode_threads, setup.prefill_threads)

    def read(self, temp_c: float) -> int:
        """One reading; the context that it leads to."""
        boards.set_temp_c(self.root, BIG, temp_c)
        self.now += 2.0
        self.thermostat.read(self.reader.read(), self.now, busy=True)
        assert self.thermostat.limits is not None
        return self.thermostat.limits.context

    def dip(self) -> None:
        """A reading with a low supply, and one without."""
        for low in (True, False):
            self.now += 2.0
            vitals = replace(self.reader.read(), under_voltage=low)
            self.thermostat.read(vitals, self.now, busy=True)

    def caps(self) -> set[str]:
        """What stands in the big cores' caps."""
        policies = self.root.glob("sys/devices/system/cpu/cpufreq/policy[46]/scaling_max_freq")
        return {path.read_text().strip() for path in policies}


def test_a_context_that_shrank_is_the_ceiling_from_then_on(tmp_path: Path) -> None:
    """The kernel ended the engine for want of memory: warm is half-way from what is left."""
    rig = Rig(tmp_path)
    assert (rig.read(60.0), rig.read(75.0)) == (2048, 1536)
    for shrunk in (2048 - CONTEXT_STEP, 2048 - 2 * CONTEXT_STEP):
        rig.oom_kills += 1
        rig.supervision.gone(EngineGone(rig.supervision.run, -signal.SIGKILL))
        rig.now += 60.0
        rig.supervision.tick()
        assert rig.read(75.0) == (1024 + shrunk) // 2
        assert rig.supervision.limits is not None
        assert rig.supervision.limits.context == (1024 + shrunk) // 2


def test_a_pause_is_told_as_one(tmp_path: Path) -> None:
    """Health and dashboard say that the engine spends nothing, whatever it would go on with."""
    rig = Rig(tmp_path)
    rig.read(60.0)
    told = rig.thermostat.as_json()
    assert (told["pace"], told["effort"], told["paused"]) == (1.0, 1.0, False)
    for _ in range(3):
        rig.read(86.0)
    told = rig.thermostat.as_json()
    assert (told["pace"], told["effort"], told["paused"]) == (0.0, 0.0, True)


def test_a_lie_leaves_no_clock_lowered(tmp_path: Path) -> None:
    """A sensor that stands at a hot figure for ever lowers the caps for a while, and not for good."""
    rig = Rig(tmp_path)
    rig.read(86.0)
    rig.read(86.0)
    assert rig.caps() == {"1008000"}
    for _ in range(600):
        rig.read(86.0)
    verdict = rig.thermostat.verdict
    assert verdict is not None
    assert (verdict.sensors[BIG], rig.caps()) == ("stuck", {"2400000"})


def test_a_lie_is_not_shown(tmp_path: Path) -> None:
    """A sensor that says 127 C for ever is told as not believed: no screen shows a cool board as that hot."""
    rig = Rig(tmp_path)
    for _ in range(40):
        rig.read(127.0)
    vitals = rig.reader.read()
    assert headroom_c(vitals.zones) == 85.0 - 127.0
    shown = rig.thermostat.without_lies(vitals)
    assert {zone.name for zone in shown.zones if zone.temp_c is None} == {BIG}
    assert headroom_c(shown.zones) == pytest.approx(85.0 - 47.153)
    rig.read(50.0)
    rig.read(50.0)
    assert rig.thermostat.without_lies(vitals) == vitals


def test_dips_that_are_told_apart_wear_no_card(tmp_path: Path) -> None:
    """A question a minute on a weak supply is a beginning and an end a minute, but a note in ten."""
    rig = Rig(tmp_path)
    rig.dip()
    assert len(rig.notes) == 1, "the first is noted at once"
    for _ in range(30):
        for _ in range(28):
            rig.read(50.0)
        rig.dip()
    assert len(rig.notes) <= 2 + 1800 / NOTE_S
    rig.thermostat.close()
    assert Edges.after(rig.notes[-1], "this-boot").supply.count == 31


def test_dips_that_are_told_as_one_are_all_counted_on(tmp_path: Path) -> None:
    """A supply that dips with every question is one line for hours: its count outlives a restart in between."""
    rig = Rig(tmp_path)
    for _ in range(400):
        rig.dip()
    assert 2 <= len(rig.notes) <= 2 + 1600 / NOTE_S, "a card wears out with a write for each"
    rig.thermostat.close()
    after = Edges.after(rig.notes[-1], "this-boot")
    assert (after.supply.count, after.supply.told) == (400, True)
    noted = len(rig.notes)
    rig.thermostat.close()
    assert len(rig.notes) == noted
