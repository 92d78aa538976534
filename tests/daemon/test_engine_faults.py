"""The engine process crashes, hangs, is killed: the daemon stays up, and every question still gets its answer.

The scripted engine does what the prompt says; signals from outside come from the test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from broker import Mosquitto
from daemon_process import TESTS, MakeDaemon, Sections
from device import MakeDevice

QUICK = {"engine": {"slots": 2, "hang_s": 5.0}}
ANSWER = "tokens=60 step_ms=20"
TEXT = "".join(f"w{n} " for n in range(60))


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL, signal.SIGSTOP], ids=lambda how: how.name)
def test_engine_lost_in_mid_answer(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, how: signal.Signals
) -> None:
    """Two answers are running when the engine is lost: both are answered whole as the second attempt."""
    node = daemon(broker, QUICK, scripted=True).start()
    engine = node.engine_pid()
    asking = [device(broker, f"c{n}") for n in range(2)]
    jobs = [each.ask(ANSWER) for each in asking]
    waiting = asking[0].ask("tokens=5")
    for each, job in zip(asking, jobs, strict=True):
        each.wait_reply(job, "delta", count=3)
    pid = node.pid
    os.kill(engine, how)
    for each, job in zip(asking, jobs, strict=True):
        answer = each.answer(job).check()
        assert (answer.text, answer.last["attempt"]) == (TEXT, 2)
        assert len(answer.attempts) == 2
        assert [attempt[0]["type"] for attempt in answer.attempts] == ["accepted", "accepted"]
        assert answer.attempts[1][0]["seq"] == 0
    late = asking[0].answer(waiting).check()
    assert (late.text, late.last["attempt"]) == ("w0 w1 w2 w3 w4 ", 1)
    event = node.wait_event("engine_gone")
    assert ("SIGKILL" if how == signal.SIGSTOP else how.name) in event["reason"]
    assert node.pid == pid
    assert node.engine_pid() != engine
    assert node.wait_health(lambda h: h["engine_restarts"])["engine_restarts"] == 1
    assert len(node.log("engine_ready")) == 2


def test_an_update_in_place(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """Its files are another version's when the engine is lost: the daemon ends for systemd to start that one.

    Engines of that version, started by this one, ended each time with a frame that they could not read.
    """
    shutil.copytree(TESTS.parent / "edged", tmp_path / "edged")
    place = ("env", "-C", str(tmp_path), f"PYTHONPATH={tmp_path}:{TESTS}")
    node = daemon(broker, QUICK, scripted=True, wrapper=place).start()
    asking = device(broker, "c1")
    job = asking.ask(ANSWER)
    asking.wait_reply(job, "delta")
    with (tmp_path / "edged" / "engine" / "messages.py").open("a") as file:
        file.write("# of the next version\n")
    os.kill(node.engine_pid(), signal.SIGKILL)
    assert node.wait_end() == os.EX_SOFTWARE
    assert "updated while it ran" in node.log("died")[0]["reason"]
    node.start()
    assert asking.answer(job).text == TEXT


@pytest.mark.parametrize("at", [0, 2], ids=["while the prompt is read", "in mid answer"])
def test_poison(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, at: int) -> None:
    """A question that crashes the engine is tried three times, then refused; those behind it are answered."""
    node = daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    bad, good = device(broker, "bad"), device(broker, "good")
    poison = bad.ask(f"crash=SIGSEGV at={at} tokens=9")
    behind = [good.ask(f"{n} tokens=4") for n in range(3)]
    answer = bad.answer(poison).check()
    assert (answer.last["type"], answer.last["code"]) == ("error", "poison")
    assert answer.last["details"] == {"attempts": 3}
    for job in behind:
        assert good.answer(job).check().text == "w0 w1 w2 w3 "
    crashes = node.log("engine_gone")
    assert [line["how"] for line in crashes] == ["SIGSEGV"] * 3
    pauses = [line["again_in_s"] for line in crashes]
    assert pauses == sorted(set(pauses)), "the pause before a restart does not grow"
    bad.ask(f"crash=SIGSEGV at={at} tokens=9", id=poison, reply_to="edged/v1/client/bad/again")
    assert bad.wait_for("/bad/again").json["code"] == "poison"
    assert len(node.log("engine_gone")) == 3


def test_poison_before_it_runs(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """One that crashes the engine while it is measured is found out as well, and nobody else is blamed."""
    node = daemon(broker, {"engine": {"slots": 4}}, scripted=True).start()
    bad, good = device(broker, "bad"), device(broker, "good")
    beside = [good.ask(f"{n} tokens=40 step_ms=50") for n in range(3)]
    for job in beside:
        good.wait_reply(job, "delta")
    poison = bad.ask("measure=SIGSEGV tokens=9")
    behind = good.ask("tokens=4")
    assert bad.answer(poison).check().last["code"] == "poison"
    for job in (*beside, behind):
        assert good.answer(job).check().last["type"] == "done"
    assert len(node.log("engine_gone")) == 3


def test_a_defect_in_measuring(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """It costs its question alone, and the log says where it is, but not what was asked."""
    node = daemon(broker, QUICK, scripted=True).start()
    engine = node.engine_pid()
    asking = device(broker, "c1")
    assert asking.answer(asking.ask("measure=defect secret")).check().last["code"] == "internal"
    assert asking.answer(asking.ask("tokens=2")).check().text == "w0 w1 "
    assert node.engine_pid() == engine
    line = node.wait_log("question_not_measured")
    assert ("RuntimeError" in line["reason"], "tokenize" in line["reason"]) == (True, True)
    assert not any(b"secret" in raw for raw in node.raw)


def test_measuring_without_end(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """What is measured for as long as an engine may be silent is poison, and nobody behind it waits for ever."""
    node = daemon(broker, QUICK, scripted=True).start()
    asking = device(broker, "c1")
    endless, behind = asking.ask("measure=endless tokens=2"), asking.ask("tokens=2")
    assert asking.answer(endless, 90).check().last["code"] == "poison"
    assert asking.answer(behind).check().text == "w0 w1 "
    assert len(node.log("engine_gone")) == 3


def test_poison_does_not_taint_its_neighbours(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """Questions that run beside one that crashes the engine are answered, not called poison with it."""
    node = daemon(broker, {"engine": {"slots": 4}}, scripted=True).start()
    bad, good = device(broker, "bad"), device(broker, "good")
    neighbours = [good.ask(f"{n} {ANSWER}") for n in range(3)]
    for job in neighbours:
        good.wait_reply(job, "delta")
    poison = bad.ask("crash=SIGABRT at=5 tokens=9 step_ms=20")
    assert bad.answer(poison).check().last["code"] == "poison"
    for job in neighbours:
        answer = good.answer(job).check()
        assert answer.last["type"] == "done", answer.last
        assert answer.text == TEXT
    assert node.running


def test_hang_is_noticed_while_questions_keep_coming(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """A model thread that hangs is noticed though the engine still measures what comes in."""
    node = daemon(broker, QUICK, scripted=True).start()
    asking = device(broker, "c1")
    hung = asking.ask("hang=yes tokens=9", deadline_ms=4000)
    asking.wait_reply(hung, "delta")
    begun = time.monotonic()
    others = []
    while not node.log("engine_hung"):
        assert time.monotonic() - begun < 60, "nobody noticed"
        others.append(asking.ask("tokens=2"))
        asking.wait_reply(others[-1], "accepted")
        node.wait_health(since=node.watcher.mark)
    assert time.monotonic() - begun > 4
    assert asking.answer(hung).check().last["code"] == "expired"
    for job in others:
        assert asking.answer(job).check().text == "w0 w1 "


def test_stopped_engine_does_not_stop_the_daemon(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """An engine that reads nothing any more: large questions pile up, and the daemon goes on serving."""
    sections: Sections = {"engine": {"slots": 1, "hang_s": 10.0}, "limits": {"client_jobs": 40}}
    node = daemon(broker, sections, scripted=True).start()
    asking = device(broker, "c1")
    engine = node.engine_pid()
    os.kill(engine, signal.SIGSTOP)
    jobs = [asking.ask("word" * 15_000 + f" {n} tokens=2") for n in range(30)]  # 60 kB each
    since = node.watcher.mark
    asking.control("status", "nobody")
    assert asking.wait_reply("nobody", "status", timeout_s=9)["state"] == "unknown"
    node.wait_health(lambda h: h["queue"] == 30, since=since, timeout_s=9)
    node.wait_log("engine_hung", timeout_s=60)
    for job in jobs:
        assert asking.answer(job).check().text == "w0 w1 "


def test_no_engine_outlives_a_killed_daemon(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """Even an engine that can do nothing for itself ends with its daemon."""
    node = daemon(broker, scripted=True).start()
    os.kill(node.engine_pid(), signal.SIGSTOP)
    node.kill()
    assert node.strays() == []


def test_engine_that_cannot_start(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """An engine that crashes at every start: the node is online, refuses with the reason, and recovers."""
    flag = tmp_path / "abort"
    flag.touch()
    node = daemon(broker, scripted=True, environment={"SCRIPTED_ABORT": str(flag)})
    node.start(engine="broken")
    asking = device(broker, "c1")
    refused = asking.answer(asking.ask("x")).check().last
    assert refused["code"] == "internal"
    assert "SIGABRT" in refused["message"]
    assert refused["retry_after_ms"] > 0
    reason = node.wait_info(lambda info: info["engine"] == "broken")["reason"]
    assert "SIGABRT while the model loaded" in reason
    assert "edged doctor" in reason
    since = node.watcher.mark
    flag.unlink()
    node.wait_info(lambda info: info["engine"] == "ready", since=since)
    assert asking.answer(asking.ask("x")).check().text == "w0 w1 w2 "


def test_engine_restart_keeps_the_order(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Questions that waited when the engine was lost are answered in the order of their acceptance."""
    node = daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    asking = device(broker, "c1")
    running = asking.ask(ANSWER)
    asking.wait_reply(running, "delta")
    jobs = [asking.ask(f"{n} tokens=2") for n in range(8)]
    asking.wait_reply(jobs[-1], "accepted")
    os.kill(node.engine_pid(), signal.SIGKILL)
    for job in jobs:
        asking.answer(job).check()
    done = [h.json["id"] for h in asking.heard if json.loads(h.payload)["type"] == "done"]
    assert done == [running, *jobs]
