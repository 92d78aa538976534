"""The daemon ends, by a signal or by a power cut, and starts again: nothing that was asked is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon, Sections
from device import Device, Listener, MakeDevice

STOP_S = 10.0
"""The contract with systemd: an answer that runs has ended by then, or runs again after the next start."""
ONE_SLOT = {"engine": {"slots": 1}}


def status_of(broker: Mosquitto, node: DaemonProcess) -> str:
    """What a late comer finds on the status topic."""
    late = Listener(broker.host, broker.port, (f"edged/v1/node/{node.node}/status",), name="late").start()
    try:
        return late.wait_for("/status").payload.decode()
    finally:
        late.stop()


def end_in_time(node: DaemonProcess, how: signal.Signals = signal.SIGTERM) -> None:
    """End a node as systemd does, and see that it obeys."""
    begun = time.monotonic()
    assert node.end(how, 30.0) == 0
    assert time.monotonic() - begun < STOP_S
    assert node.strays() == []


def test_sigterm_lets_a_short_answer_finish(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """An answer with little left to write is finished before the daemon ends; `offline` is retained."""
    node = daemon(broker, ONE_SLOT, scripted=True).start()
    asking = device(broker, "c1")
    job = asking.ask("tokens=60 step_ms=20")
    asking.wait_reply(job, "delta", count=2)
    end_in_time(node)
    assert asking.answer(job).check().last["attempt"] == 1
    assert status_of(broker, node) == "offline"


def test_what_begins_while_the_daemon_ends_is_answered_once(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """The last answer ends and the next question begins: that one is the next start's, whatever the engine says.

    A broker that stands still meanwhile leaves time for the engine to say it.
    """
    node = daemon(broker, ONE_SLOT, scripted=True).start()
    asking = device(broker, "c1")
    first = asking.ask("tokens=40 step_ms=20")
    waiting = asking.ask("tokens=20 step_ms=20")
    asking.wait_reply(waiting, "accepted")
    asking.wait_reply(first, "delta", count=2)
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        end_in_time(node)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    node.start()
    assert asking.answer(first).last["type"] == "done"  # maybe twice: the broker could not acknowledge it
    assert asking.answer(waiting).check().last["type"] == "done"
    later = asking.ask("tokens=1 step_ms=1")  # what is told twice would have come before this
    asking.answer(later).check()
    asking.answer(waiting).check()


def test_sigterm_in_a_long_answer(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path
) -> None:
    """With the real model: a long answer is cut off in time and given whole after the next start."""
    sections: Sections = {"model": {"path": str(small_model)}, "engine": {"slots": 1, "context_max": 2048}}
    node = daemon(broker, sections).start()
    asking = device(broker, "c1")
    job = asking.ask("Count from one to one thousand in words.", max_tokens=450, temperature=0.0)
    asking.wait_reply(job, "delta", count=10)
    waiting = asking.ask("Is ice cold?", max_tokens=8)
    asking.wait_reply(waiting, "accepted")
    end_in_time(node)
    assert status_of(broker, node) == "offline"
    before = asking.answers()[job].terminals
    node.start()
    answer = asking.answer(job, timeout_s=60).check()
    assert before or answer.last["attempt"] == 2
    assert answer.text
    assert asking.answer(waiting).check().last["type"] == "done"
    assert node.log("job_finished")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_ends_at_once_when_idle(broker: Mosquitto, daemon: MakeDaemon, how: signal.Signals) -> None:
    """Without work the daemon ends within a second or two, by either signal."""
    node = daemon(broker, scripted=True).start()
    begun = time.monotonic()
    assert node.end(how, 10.0) == 0
    assert time.monotonic() - begun < 4


def test_sigterm_while_it_starts(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> None:
    """A signal while the model is being loaded ends daemon and engine in good order."""
    node = daemon(broker, {"model": {"path": str(small_model)}}).launch()
    node.wait_log("engine_starting")
    end_in_time(node)


def test_sigterm_without_a_broker(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The broker is gone: the daemon still ends in time, and the answer it could not deliver comes later."""
    node = daemon(broker, ONE_SLOT, scripted=True).start()
    asking = device(broker, "c1", persistent=True)
    job = asking.ask("tokens=60 step_ms=20")
    asking.wait_reply(job, "delta", count=2)
    broker.kill()
    end_in_time(node)
    broker.start()
    node.start()
    assert asking.answer(job).terminals[0]["text"] == "".join(f"w{n} " for n in range(60))


def test_sigterm_with_a_frozen_broker(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The broker takes no more packets, not even an answer's last: the daemon ends in time all the same."""
    node = daemon(broker, scripted=True).start()
    asking = device(broker, "c1")
    job, short = asking.ask("tokens=320 step_ms=20"), asking.ask("tokens=80 step_ms=20")
    asking.wait_reply(job, "delta", count=2)
    asking.wait_reply(short, "delta", count=2)
    mosquitto = broker_process(broker)
    mosquitto.suspend()
    try:
        end_in_time(node)
    finally:
        mosquitto.resume()
    node.start()
    assert asking.answer(short).last["attempt"] == 1
    # Deltas are lost with the connection; the end is not, whichever attempt it is of.
    assert [end["type"] for end in asking.answer(job).terminals] == ["done"]


def broker_process(broker: Mosquitto) -> psutil.Process:
    """The broker's process: the child of ours that listens on its port."""
    for child in psutil.Process().children():
        if any(
            c.status == psutil.CONN_LISTEN and c.laddr.port == broker.port for c in child.net_connections()
        ):
            return child
    raise LookupError("no child of ours listens there")


def test_sigkill(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A killed daemon: the last will says `offline`, its engine is gone too, its questions are answered later."""
    node = daemon(broker, ONE_SLOT, scripted=True).start()
    asking = device(broker, "c1")
    running = asking.ask("tokens=100 step_ms=20")
    waiting = [asking.ask(f"{n} tokens=3") for n in range(4)]
    asking.wait_reply(running, "delta", count=3)
    asking.wait_reply(waiting[-1], "accepted")
    since = node.watcher.mark
    node.kill()
    assert node.strays() == [], "the engine lives on"
    node.wait_offline(since, timeout_s=5)
    assert status_of(broker, node) == "offline"
    node.start()
    answer = asking.answer(running).check()
    assert answer.last["attempt"] == 2
    assert answer.text == "".join(f"w{n} " for n in range(100))
    for job in waiting:
        assert asking.answer(job).check().text == "w0 w1 w2 "


def test_many_orderly_restarts_are_no_poison(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """A long question that is cut off by three restarts is answered: it never crashed the engine."""
    node = daemon(broker, ONE_SLOT, scripted=True)
    asking = device(broker, "c1")
    node.start()
    job = asking.ask("tokens=160 step_ms=40")
    asking.wait_reply(job, "delta")
    for count in range(2, 5):
        if count == 2:
            node.terminate()
        else:
            node.kill()
        node.start()
        since = asking.mark
        asking.wait_reply(job, "accepted", "error", count=count)
        asking.wait_for(f"/{job}", lambda h: h.json["type"] == "delta", since=since)
        # The count of a run may reach the disk after its first delta: what is accepted later is written later.
        asking.wait_reply(asking.ask("tokens=1"), "accepted")
    assert asking.answer(job).check().last["attempt"] == 4


def test_questions_sent_while_it_is_away(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """What is asked while the daemon is down waits at the broker and is answered after the start."""
    node = daemon(broker, scripted=True).start()
    node.kill()
    new: Device = device(broker, "new")
    old: Device = device(broker, "old", version=4)
    jobs = [(each, each.ask(f"{n} tokens=2")) for n in range(10) for each in (new, old)]
    node.start()
    for each, job in jobs:
        assert each.answer(job).check().text == "w0 w1 "
    end_in_time(node)
    new.ask("x tokens=2", id="after-stop")
    node.start()
    assert new.answer("after-stop").check().text == "w0 w1 "
