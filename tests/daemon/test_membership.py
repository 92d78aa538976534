"""Pools: several nodes share a pool's questions over a real Mosquitto, without a coordinator.

Mosquitto deals a shared subscription's messages in turn, to members that are away too: their copy waits for
them. What a device needs to live with any node's death is its own deadline and the same id again.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import TERMINAL, WAIT_S, Device, MakeDevice
from faults.proxy import Proxy

from edged.client import Client
from edged.core.reply import Delta, Done, Reply

POOL = "hall"
LONG = "tokens=400 step_ms=20"
AGAIN_S = 2.0
"""After so long without a word a device asks again under the same id."""


def member(daemon: MakeDaemon, broker: Mosquitto, name: str, **sections: Any) -> DaemonProcess:
    """A node of the pool that is in it."""
    node = daemon(broker, {"node": {"id": name, "pools": [POOL]}, **sections}, scripted=True).start()
    node.wait_info(lambda info: info["membership"]["in"] == [POOL])
    return node


def ask(asking: Device, job: str, prompt: str, **fields: Any) -> str:
    """Ask the pool."""
    asked = {"id": job, "prompt": prompt, **fields}
    asking.publish(f"edged/v1/pool/{POOL}/ask/{asking.name}", json.dumps(asked).encode())
    return job


def ask_until_answered(asking: Device, job: str, prompt: str) -> dict[str, Any]:
    """What a device does that wants its answer: the same id again whenever nobody says anything."""
    end = time.monotonic() + 3 * WAIT_S
    while time.monotonic() < end:
        since = asking.mark
        ask(asking, job, prompt)
        while True:
            try:
                heard = asking.wait_for(f"/{job}", since=since, timeout_s=AGAIN_S)
            except AssertionError:
                break  # silence: ask again
            since = asking.mark
            if heard.json["type"] in TERMINAL:
                return dict(heard.json)
    raise AssertionError(f"{job} was never answered")


@pytest.fixture(scope="module")
def three(
    shared_broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[DaemonProcess]]:
    """Three nodes in a pool."""
    nodes = []
    for name in ("p1", "p2", "p3"):
        sections = {"node": {"id": name, "pools": [POOL]}}
        folder: Path = tmp_path_factory.mktemp(name)
        nodes.append(
            DaemonProcess(folder, shared_broker.host, shared_broker.port, sections, scripted=True).start()
        )
    try:
        for node in nodes:
            node.wait_info(lambda info: info["membership"]["in"] == [POOL])
        yield nodes
    finally:
        for node in nodes:
            node.close()


@pytest.mark.parametrize("version", [5, 4])
def test_questions_are_dealt_evenly(
    shared_broker: Mosquitto, three: list[DaemonProcess], device: MakeDevice, version: int
) -> None:
    """Thirty questions to a pool of three are ten for each, and each is answered once."""
    asking = device(shared_broker, f"even-{version}", version=version)
    jobs = [ask(asking, f"e{version}-{n}", "tokens=3") for n in range(30)]
    by = Counter(asking.answer(job).check().last["node"] for job in jobs)
    assert by == {node.node: 10 for node in three}


@pytest.mark.parametrize("version", [5, 4])
def test_a_node_dies_in_mid_answer(
    shared_broker: Mosquitto, three: list[DaemonProcess], device: MakeDevice, version: int
) -> None:
    """Kill -9 of whoever answers: asked again under the same id, another node answers."""
    asking = device(shared_broker, f"death-{version}", version=version)
    job = ask(asking, f"k{version}", LONG)
    begun = asking.wait_reply(job, "accepted")
    asking.wait_reply(job, "delta", count=3)
    (victim,) = [node for node in three if node.node == begun["node"]]
    victim.kill()
    done = ask_until_answered(asking, job, LONG)
    assert done["type"] == "done"
    assert done["node"] != victim.node
    assert len(done["text"].split()) == 400
    # The dead one comes back, knows its question from its journal and answers it too: harmless, by the contract.
    since = victim.watcher.mark
    victim.start()
    victim.wait_info(lambda info: info.get("membership", {}).get("in") == [POOL], since=since)
    again = asking.wait(
        lambda: next((r for r in asking.answers()[job].terminals if r["node"] == victim.node), None)
    )
    assert again["text"] == done["text"]


def test_a_client_that_comes_back_asks_who_has_its_question(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """Dealt once more it ran on two boards, and the answer shown was a mixture of both."""
    nodes = [member(daemon, broker, name) for name in ("n1", "n2", "n3")]
    proxy = Proxy(broker.port)
    try:
        with Client(port=proxy.port, pool=POOL) as client:
            answer = client.ask("tokens=60 step_ms=50", timeout_s=WAIT_S)
            told: list[Reply] = []
            for reply in answer:
                told.append(reply)
                if len(told) == 5:
                    proxy.set("refuse")
                    proxy.set("pass")
    finally:
        proxy.close()
    assert isinstance(told[-1], Done)
    assert "".join(one.text for one in told if isinstance(one, Delta)) == told[-1].text
    counts = [
        node.wait_health(lambda h: h["active"] == 0, since=node.watcher.mark)["counts"] for node in nodes
    ]
    assert sum(one["accepted"] for one in counts) == 1


def test_nodes_die_one_after_the_other(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Devices ask a pool of three without a pause while each node is killed in mid-answer: all are answered."""
    nodes = [member(daemon, broker, name) for name in ("d1", "d2", "d3")]
    over = threading.Event()
    told: list[dict[str, Any]] = []

    def live(number: int) -> None:
        asking = device(broker, f"die-{number}", version=5 if number % 2 else 4)
        for turn in itertools.count():
            told.append(ask_until_answered(asking, f"d-{number}-{turn}", "tokens=40 step_ms=20"))
            if over.is_set():
                return

    devices = [threading.Thread(target=live, args=(number,), daemon=True) for number in range(6)]
    for one in devices:
        one.start()
    for node in nodes:
        node.wait_health(lambda health: health["active"] > 0, since=node.watcher.mark)
        node.kill()
        since = node.watcher.mark
        node.start()
        node.wait_info(lambda info: info.get("membership", {}).get("in") == [POOL], since=since)
    over.set()
    for one in devices:
        one.join(4 * WAIT_S)
        assert not one.is_alive()
    assert len(told) >= len(devices)
    assert {done["type"] for done in told} == {"done"}
    assert {len(done["text"].split()) for done in told} == {40}


def test_a_full_node_leaves_and_comes_back(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """With its queue nearly full a node gets nothing more of the pool; with room it is dealt questions again."""
    full = member(daemon, broker, "f1", engine={"slots": 1}, limits={"queue_jobs": 8, "client_jobs": 8})
    free = member(daemon, broker, "f2")
    asking = device(broker, "filler", node="f1")
    since = full.watcher.mark
    held = [asking.ask(LONG) for _ in range(7)]
    left = full.wait_event("pools_left", since=since)
    assert left["reasons"] == ["full"]
    assert full.wait_health(lambda h: h["membership"]["out"], since=since)["membership"] == {
        "in": [],
        "out": [POOL],
        "reasons": ["full"],
    }
    jobs = [ask(asking, f"f-{n}", "tokens=2") for n in range(8)]
    assert {asking.answer(job).check().last["node"] for job in jobs} == {free.node}
    since = full.watcher.mark
    for job in held[1:]:
        asking.control("cancel", job)
    full.wait_event("pools_joined", since=since)
    asking.control("cancel", held[0])
    jobs = [ask(asking, f"g-{n}", "tokens=2") for n in range(8)]
    assert Counter(asking.answer(job).check().last["node"] for job in jobs) == {"f1": 4, "f2": 4}


def test_a_node_without_a_model_draws_nothing(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """A node whose engine does not come up stays out; one that was in and loses it leaves, over a restart too."""
    abort = tmp_path / "abort"
    settings = {"node": {"id": "m1", "pools": [POOL]}}
    sick = daemon(broker, settings, scripted=True, environment={"SCRIPTED_ABORT": str(abort)}).start()
    sick.wait_info(lambda info: info["membership"]["in"] == [POOL])
    well = member(daemon, broker, "m2")
    abort.touch()
    since = sick.watcher.mark
    assert sick.terminate() == 0  # its session, with the pool's subscription, stays at the broker
    sick.start(engine="broken")
    sick.wait_info(
        lambda info: info["membership"]["reasons"] == ["loading"] and info["engine"] == "broken", since=since
    )
    asking = device(broker, "m-dev")
    jobs = [ask(asking, f"m-{n}", "tokens=2") for n in range(6)]
    assert {asking.answer(job).check().last["node"] for job in jobs} == {well.node}


def test_a_pool_that_the_settings_no_longer_name(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """The broker remembers the old pool: what it deals is answered once more, and the subscription given up."""
    node = member(daemon, broker, "o1")
    assert node.terminate() == 0
    broker_memory = device(broker, "o-dev")
    node.config.write_text(node.config.read_text().replace(f'"{POOL}"', '"lab"'))
    since = node.watcher.mark
    node.start()
    node.wait_info(lambda info: info.get("membership", {}).get("in") == ["lab"], since=since)
    # An orderly end gave the pool up already; so nobody is in it now, and the question waits for its device.
    ask(broker_memory, "o-1", "tokens=2")
    broker_memory.publish("edged/v1/pool/lab/ask/o-dev", b'{"id": "o-2", "prompt": "tokens=2"}')
    assert broker_memory.answer("o-2").check().last["node"] == "o1"
    assert "o-1" not in broker_memory.answers()
    # After kill -9 the broker still has it.
    node.kill()
    node.config.write_text(node.config.read_text().replace('"lab"', f'"{POOL}"'))
    since = node.watcher.mark
    node.start()
    node.wait_info(lambda info: info.get("membership", {}).get("in") == [POOL], since=since)
    broker_memory.publish("edged/v1/pool/lab/ask/o-dev", b'{"id": "o-3", "prompt": "tokens=2"}')
    assert broker_memory.answer("o-3").check().last["node"] == "o1"
    node.wait_log("foreign_pool_left", lambda line: line["pool"] == "lab")
