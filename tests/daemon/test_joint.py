"""The same question at the same time is computed once, and again is answered from what was said: each its own."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from broker import Mosquitto
from daemon_process import MakeDaemon
from device import MakeDevice

LONG = "tokens=300 step_ms=10"
WHOLE = "".join(f"w{n} " for n in range(300))


def test_eight_ask_and_one_is_computed(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Devices that join at any moment get all of the answer, under their own id, from seq 0 and with an end."""
    node = daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    devices = [device(broker, f"j{n}", version=5 - n % 2) for n in range(8)]
    first = devices[0].ask(LONG, temperature=0)
    devices[0].wait_reply(first, "delta", count=2)
    jobs = [first, *(each.ask(LONG, temperature=0, stream=n != 3) for n, each in enumerate(devices[1:], 1))]
    for number, (each, job) in enumerate(zip(devices, jobs, strict=True)):
        answer = each.answer(job).check(stream=number != 3)
        assert answer.text == WHOLE
        assert answer.last.get("cached") is (True if number else None)
        assert answer.last["usage"]["completion_tokens"] == 300
    since = node.watcher.mark
    health = node.wait_health(lambda h: h["counts"]["done"] == 8, since=since)
    assert health["counts"]["tokens"] == 300
    assert health["counts"]["cached"] == 7
    assert (health["active"], health["queue"]) == (0, 0)


def test_taking_one_back_leaves_the_others(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Also the one that began it; and when all have taken it back, the engine is free."""
    daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    one, two, three = (device(broker, f"c{n}") for n in range(3))
    first = one.ask(LONG, temperature=0)
    one.wait_reply(first, "delta", count=2)
    second, third = two.ask(LONG, temperature=0), three.ask(LONG, temperature=0)
    three.wait_reply(third, "delta")
    one.control("cancel", first)
    cancelled = one.answer(first).check()
    assert cancelled.last["type"] == "cancelled"
    assert cancelled.last["usage"]["completion_tokens"] >= len(cancelled.text.split()) > 0
    three.control("cancel", third)
    assert three.answer(third).check().last["type"] == "cancelled"
    assert two.answer(second).check().text == WHOLE
    # All of them: the slot is free for another question at once.
    jobs = [one.ask("tokens=9000 step_ms=10 all", temperature=0, id=f"all-{n}") for n in range(3)]
    one.wait_reply(jobs[2], "delta")
    for job in jobs:
        one.control("cancel", job)
    assert {one.answer(job).check().last["type"] for job in jobs} == {"cancelled"}
    assert two.answer(two.ask("tokens=2")).check().last["type"] == "done"


def test_each_has_its_own_deadline(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A short deadline ends one answer with what there is; who waits longer gets all, whoever came first."""
    daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    hasty, patient = device(broker, "hasty"), device(broker, "patient")
    short = hasty.ask(LONG, temperature=0, deadline_ms=1500)
    hasty.wait_reply(short, "delta")
    long = patient.ask(LONG, temperature=0, deadline_ms=60_000)
    patient.wait_reply(long, "delta")
    last = hasty.ask(LONG, temperature=0, deadline_ms=1000, id="third")
    for job in (short, last):
        cut = hasty.answer(job).check()
        assert cut.last["finish_reason"] == "deadline"
        assert WHOLE.startswith(cut.text)
        assert 0 < len(cut.text) < len(WHOLE)
    assert patient.answer(long).check().text == WHOLE


def test_who_joins_keeps_its_own_turn(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """An urgent question does not wait in the place of the one that it is the same as."""
    daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    busy, idle, urgent = (device(broker, name) for name in ("busy", "idle", "urgent"))
    running = busy.ask("tokens=100 step_ms=10")
    busy.wait_reply(running, "delta")
    same = idle.ask("tokens=3 same", temperature=0, priority="background")
    idle.wait_reply(same, "accepted")
    others = [busy.ask(f"tokens=30 step_ms=10 {n}") for n in range(3)]
    for job in others:
        busy.wait_reply(job, "accepted")
    answer = urgent.answer(urgent.ask("tokens=3 same", temperature=0, priority="interactive")).check()
    assert answer.last["cached"] is True
    assert not any(busy.answers()[job].terminals for job in others)
    assert idle.answer(same).check().text == answer.text


def test_a_crash_replays_all(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The engine is killed under a shared answer: all are answered, once each, as the second attempt."""
    node = daemon(broker, scripted=True).start()
    asking = device(broker, "crash-dev")
    jobs = [asking.ask(LONG, temperature=0) for _ in range(3)]
    asking.wait_reply(jobs[2], "delta")
    os.kill(node.engine_pid(), signal.SIGKILL)
    for job in jobs:
        answer = asking.answer(job).check()
        assert (answer.text, answer.last["attempt"]) == (WHOLE, 2)
    # One that crashes the engine each time is poison for all who share it, after three crashes in all.
    bad = [asking.ask("tokens=9 crash=SIGSEGV step_ms=5", temperature=0) for _ in range(3)]
    assert {asking.answer(job, 90).check().last["code"] for job in bad} == {"poison"}
    assert len(node.log("engine_gone")) <= 1 + 3 + 1


def test_answered_from_the_cache(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Again at temperature 0 or with the same seed; `use` takes what another sampled; `bypass` computes."""
    node = daemon(broker, {"admin": {"enabled": True}}, scripted=True).start()
    asking = device(broker, "cache-dev", extra_topics=("edged/v1/node/n1/admin/+/result",))
    first = asking.answer(asking.ask("tokens=7", temperature=0)).check().last
    again = asking.answer(asking.ask("tokens=7", temperature=0)).check().last
    assert (first.get("cached"), again["cached"]) == (None, True)
    assert (again["text"], again["usage"]) == (first["text"], first["usage"])
    computed: list[dict[str, Any]] = [
        {},
        {"temperature": 0, "cache": "bypass"},
        {"temperature": 0, "session": "s"},
    ]
    for fields in computed:
        assert "cached" not in asking.answer(asking.ask("tokens=7", **fields)).check().last
    asking.answer(asking.ask("tokens=8", cache="use"))
    assert asking.answer(asking.ask("tokens=8", cache="use")).check().last["cached"]
    asking.ask_text("tokens=7")
    node.wait_health(lambda h: h["counts"]["cached"] == 2)
    asking.publish("edged/v1/node/n1/admin/cache_clear", b'{"transaction": "k"}')
    result = asking.wait_for("/admin/cache_clear/result").json
    assert result["data"] == {"answers": 2}
    assert "cached" not in asking.answer(asking.ask("tokens=7", temperature=0)).check().last
    # A kept answer is journaled as any other: asked again under its id after a restart, it is the same.
    job = asking.ask("tokens=7", temperature=0)
    text = asking.answer(job).text
    assert node.terminate() == 0
    node.start()
    asking.publish(asking.ask_topic, json.dumps({"id": job, "prompt": "tokens=7", "temperature": 0}).encode())
    assert asking.wait_reply(job, "done", count=2)["text"] == text


def test_a_deadline_that_cannot_be_kept(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A question that could be shared is refused once too, and at once: most of its deadline is left."""
    node = daemon(broker, scripted=True).start()
    asking = device(broker, "d1")
    for number in range(4):  # so that the engine knows its rates
        asking.answer(asking.ask(f"x{number} " * 20 + "read_ms=20 tokens=30 step_ms=1"))
    refused = asking.answer(asking.ask("y " * 1500, temperature=0, deadline_ms=4000)).last
    assert refused["code"] == "expired"
    assert refused["details"]["deadline_ms"] > 1000
    assert len(node.log("job_failed")) == 1
