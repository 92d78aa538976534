"""Fixtures for tests of the whole daemon: `daemon` starts nodes, `device` connects devices; both clean up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon, Sections, close_all
from device import Device, MakeDevice
from secured import Account, MakeAccount, ShippedBroker


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeDaemon]:
    """Makes nodes; at the end all are ended."""
    made: list[DaemonProcess] = []

    def make(
        broker: Mosquitto,
        sections: Sections | None = None,
        *,
        scripted: bool = False,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> DaemonProcess:
        folder: Path = tmp_path_factory.mktemp("node")
        made.append(
            DaemonProcess(
                folder,
                broker.host,
                broker.port,
                sections,
                scripted=scripted,
                environment=environment,
                wrapper=wrapper,
            )
        )
        return made[-1]

    yield make
    close_all(made)


@pytest.fixture
def device() -> Iterator[MakeDevice]:
    """Makes connected devices."""
    made: list[Device] = []

    def make(broker: Mosquitto, name: str, **options: Any) -> Device:
        made.append(Device(broker.host, broker.port, name, **options))
        return made[-1].start()

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def account(shipped: ShippedBroker) -> Iterator[MakeAccount]:
    """Makes clients with accounts at the file's own `shipped` broker, not connected yet."""
    made: list[Account] = []

    def make(name: str, **options: Any) -> Account:
        made.append(Account(shipped, name, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()
