"""Bounds of the contract that need settings of their own: context, queue, shares, pools, thinking, restarts."""

from __future__ import annotations

from broker import Mosquitto
from daemon_process import MakeDaemon
from device import MakeDevice

LONG = "tokens=400 step_ms=20"
"""An answer of eight seconds: long enough to do something to it, short enough if that fails."""
PROMPT_TOKENS = 1
"""What the scripted template adds."""


def test_end_reasoning(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """`end_reasoning` closes the thinking: what follows is text, and no reasoning is in it."""
    node = daemon(broker, {"engine": {"slots": 1}}, scripted=True, environment={"SCRIPTED_THINKS": "1"})
    node.start()
    asking = device(broker, "d15")
    job = asking.ask("x tokens=300 step_ms=10")
    asking.wait_reply(job, "reasoning", count=3)
    asking.control("end_reasoning", job)
    answer = asking.answer(job).check()
    assert answer.deltas("reasoning") == answer.last["reasoning"]
    assert answer.last["reasoning"].startswith("w0 w1 ")
    thought = answer.last["usage"]["reasoning_tokens"]
    assert 3 <= thought < 200
    assert answer.text.split()[0] == f"w{thought}"
    assert "think>" not in answer.text


def test_too_long(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A prompt beyond the context is refused with both numbers, not cut; one that fits is answered."""
    sections = {"engine": {"context_max": 256, "context_min": 256}}
    node = daemon(broker, sections, scripted=True).start()
    asking = device(broker, "d18")
    refused = asking.answer(asking.ask("word " * 300)).check()
    assert [reply["type"] for reply in refused.replies] == ["error"]
    assert refused.last["code"] == "too_long"
    assert refused.last["details"] == {"prompt_tokens": 300 + PROMPT_TOKENS, "context": 256}
    assert "301" in refused.last["message"]
    assert "256" in refused.last["message"]
    fits = asking.answer(asking.ask("tokens=500 " + "word " * 200)).check()
    assert fits.last["finish_reason"] == "length"
    usage = fits.last["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 256
    assert node.wait_health(lambda h: h["counts"]["errors"] == 1)


def test_busy_is_not_the_last_word(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Who is told to ask again later, because others go first, is answered then under the same id."""
    daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    asking, other = device(broker, "d28"), device(broker, "d29")
    for _ in range(2):  # from then on the rates are measured ones
        other.answer(other.ask("tokens=40 step_ms=20"))
    first = [other.ask(LONG) for _ in range(4)]
    for job in first:
        other.wait_reply(job, "accepted")
    job = asking.ask("tokens=3", id="patient", deadline_ms=300)
    refused = asking.answer(job)
    assert (refused.last["code"], refused.last["retry_after_ms"] > 0) == ("busy", True)
    for each in first:
        other.control("cancel", each)
        other.answer(each)
    asking.ask("tokens=3", id="patient", deadline_ms=30_000)
    assert asking.wait_reply("patient", "done")["text"] == "w0 w1 w2 "
    asking.ask("tokens=3", id="patient")
    assert asking.wait_reply("patient", "done", count=2)["text"] == "w0 w1 w2 "


def test_trimmed_history(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """`trim_history` drops the oldest turns, says how many messages, and keeps the last question."""
    sections = {"engine": {"context_max": 256, "context_min": 256}}
    node = daemon(broker, sections, scripted=True).start()
    asking = device(broker, "d19")
    messages = [
        {"role": "user", "content": "old " * 150},
        {"role": "assistant", "content": "older"},
        {"role": "user", "content": "new " * 120 + "tokens=7"},
    ]
    refused = asking.answer(asking.ask(messages=messages)).check()
    assert refused.last["code"] == "too_long"
    answer = asking.answer(asking.ask(messages=messages, overflow="trim_history")).check()
    assert answer.last["trimmed"] == 2
    assert answer.last["usage"]["prompt_tokens"] == 121 + PROMPT_TOKENS
    assert len(answer.text.split()) == 7
    assert node.running


def test_busy_when_the_queue_is_full(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A full queue answers `busy` with a time to come back, and takes questions again afterwards."""
    sections = {"engine": {"slots": 1}, "limits": {"queue_jobs": 3, "client_jobs": 3}}
    node = daemon(broker, sections, scripted=True).start()
    asking, other = device(broker, "d20"), device(broker, "e20")
    taken = [asking.ask(LONG) for _ in range(3)]
    for job in taken:
        asking.wait_reply(job, "accepted")
    refused = other.answer(other.ask("x")).check()
    assert refused.last["code"] == "busy"
    assert refused.last["retry_after_ms"] > 0
    assert refused.last["details"] == {"waiting": 3, "limit": 3}
    for job in taken:
        asking.control("cancel", job)
        asking.answer(job).check()
    assert other.answer(other.ask("x")).check().last["type"] == "done"
    assert node.running


def test_share_of_a_client(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """One client cannot fill the queue: beyond its share it is `busy` while others get in."""
    sections = {"engine": {"slots": 1}, "limits": {"queue_jobs": 10, "client_jobs": 2}}
    node = daemon(broker, sections, scripted=True).start()
    greedy, modest = device(broker, "greedy"), device(broker, "modest")
    jobs = [greedy.ask(LONG) for _ in range(3)]
    refused = greedy.answer(jobs[2]).check()
    assert refused.last["code"] == "busy"
    assert refused.last["details"] == {"waiting": 2, "limit": 2}
    assert refused.last["retry_after_ms"] > 0
    job = modest.ask("x", priority="interactive")
    modest.wait_reply(job, "accepted")
    greedy.control("cancel", jobs[0])
    assert modest.answer(job).check().text == "w0 w1 w2 "
    assert node.running


def test_pool_question(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A question to a pool is answered by a node of the pool."""
    node = daemon(broker, {"node": {"id": "n1", "pools": ["hall-3"]}}, scripted=True).start()
    asking = device(broker, "d22")
    asking.publish("edged/v1/pool/hall-3/ask/d22", b'{"id": "p1", "prompt": "x"}')
    assert asking.answer("p1").check().last["node"] == node.node


def test_a_name_with_colons_is_told_in_the_log(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """As an ESP32 writes its MAC address: nobody can be answered, so the log names what a name may hold."""
    node = daemon(broker, scripted=True).start()
    device(broker, "d30").publish("edged/v1/node/n1/ask/24:0A:C4:00:11:22", b"x")
    told = node.wait_log("message_dropped")
    assert told["topic"].endswith("24:0A:C4:00:11:22")
    assert told["reason"].endswith("characters A-Z a-z 0-9 _ . -")


def test_retained_question_is_ignored(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A question that is published retained is counted and not answered, now and at the next start."""
    node = daemon(broker, scripted=True).start()
    asking = device(broker, "d24")
    asking.publish(asking.ask_topic, b'{"id": "kept", "prompt": "x"}', retain=True)
    assert asking.answer(asking.ask("x")).check().last["type"] == "done"
    assert node.wait_health(lambda h: h["counts"]["done"])["counts"]["retained_ignored"] == 1
    assert "retain flag" in node.wait_log("message_dropped")["reason"]
    assert node.terminate() == 0
    node.start()
    assert asking.answer(asking.ask("x")).check().last["type"] == "done"
    assert "kept" not in asking.answers()
    asking.clear(asking.ask_topic)
