"""When systemd hears that the node is well."""

from __future__ import annotations

from edged.node.feeding import Feeding


class Systemd:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self) -> bool:
        """The node answers."""
        return self._note("ready")

    def watchdog(self) -> bool:
        """The node is well."""
        return self._note("well")

    def extend_start(self, seconds: float) -> bool:
        """The node is still starting."""
        return self._note(f"{seconds:g} s more")

    def status(self, text: str) -> bool:
        """A line for people."""
        return self._note(text)

    def reloading(self) -> bool:
        """The settings are read again."""
        return self._note("reloading")

    def stopping(self) -> bool:
        """It ends."""
        return self._note("stopping")

    def _note(self, word: str) -> bool:
        self.told.append(word)
        return True


def fed(well: list[bool], *, online: bool = True) -> list[int]:
    """At which of these seconds a watchdog that wants to be fed every 30 s is fed."""
    systemd = Systemd()
    feeding = Feeding(systemd, 30.0, 0.0)
    times = []
    for now, is_well in enumerate(well):
        before = systemd.told.count("well")
        feeding.tick(float(now), well=is_well, online=online)
        times += [now] if systemd.told.count("well") > before else []
    return times


def test_regularly() -> None:
    """Every half of its patience, and no more often."""
    assert fed([True] * 91) == [30, 60, 90]


def test_one_unlucky_look_kills_nobody() -> None:
    """It is fed as soon as all is well again, long before its patience of 60 s is over."""
    assert fed([True] * 30 + [False] * 5 + [True] * 40) == [35, 65]


def test_not_while_a_part_stands_still() -> None:
    """Then systemd starts the process again."""
    assert fed([True] * 31 + [False] * 100) == [30]


def test_the_start_takes_its_time() -> None:
    """While the model loads, each feeding asks for more time as well."""
    systemd = Systemd()
    Feeding(systemd, 30.0, 0.0).tick(30.0, well=True, online=False)
    assert systemd.told == ["well", "60 s more"]
