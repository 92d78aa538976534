"""What the fault tests share: the size and record of a trial, nodes that start fast, crowds that ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections, close_all
from faults.load import Load, MakeLoad
from faults.nursery import ForkedDaemon, MakeNode, Nursery
from faults.record import Trial, soak_factor

HERE = Path(__file__).parent
TIMEOUT_S = 180


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give long runs the time they need."""
    factor = soak_factor(soak=config.getoption("--soak"))
    for item in items:
        if factor > 1 and item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S * factor))


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    """The size to run, and where to note what ran."""
    return Trial(request.node.name, soak=request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that daemons are forked from."""
    made = Nursery({**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(HERE.parents[1])))})
    yield made
    made.close()


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[MakeNode]:
    """Makes nodes: forked ones with the scripted engine, or processes of their own; at the end all are ended."""
    made: list[DaemonProcess] = []

    def make(
        broker: Mosquitto,
        name: str = "n1",
        sections: Sections | None = None,
        *,
        port: int | None = None,
        forked: bool = True,
        **options: Any,
    ) -> DaemonProcess:
        folder = tmp_path_factory.mktemp("node")
        merged = {**(sections or {}), "node": {**(sections or {}).get("node", {}), "id": name}}
        options.setdefault("scripted", True)
        place = (folder, broker.host, port or broker.port, merged)
        process = ForkedDaemon(nursery, *place, **options) if forked else DaemonProcess(*place, **options)
        made.append(process)
        return process

    yield make
    close_all(made)


@pytest.fixture
def load() -> Iterator[MakeLoad]:
    """Makes crowds of devices."""
    made: list[Load] = []

    def make(broker: Mosquitto, **options: Any) -> Load:
        made.append(Load(broker.host, broker.port, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
