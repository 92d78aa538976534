"""The wire contract, point by point, against one node for all tests; the scripted engine makes the timing exact.

Clients' names are their test's own, so that no test sees another one's answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess
from device import Listener, MakeDevice

LONG = "tokens=400 step_ms=20"
"""An answer of eight seconds: long enough to do something to it, short enough if that fails."""
PROMPT_TOKENS = 1
"""What the scripted template adds."""

Node = DaemonProcess


@pytest.fixture(scope="module")
def broker(shared_broker: Mosquitto) -> Mosquitto:
    """The broker that no test harms."""
    return shared_broker


@pytest.fixture(scope="module")
def node(shared_broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with one slot, so that the second question waits."""
    folder = tmp_path_factory.mktemp("node")
    sections = {"engine": {"slots": 1}}
    process = DaemonProcess(folder, shared_broker.host, shared_broker.port, sections, scripted=True)
    try:
        yield process.start()
        assert process.running
    finally:
        process.close()


def finished(node: Node, client: str) -> int:
    """How many runs of this client's questions came to their end; the last line of one may still be under way."""
    node.wait_log("job_finished", lambda line: line["client"] == client)
    return sum(line["client"] == client for line in node.log("job_finished"))


@pytest.mark.parametrize("version", [5, 4])
def test_json_question(broker: Mosquitto, node: Node, device: MakeDevice, version: int) -> None:
    """A JSON question gets `accepted`, deltas and `done` on its default topic, with the figures promised."""
    asking = device(broker, f"json-{version}", version=version)
    answer = asking.answer(asking.ask("one two three tokens=9 step_ms=20", id="c1-000042")).check()
    assert {h.topic for h in answer.heard} == {f"edged/v1/client/json-{version}/answer/c1-000042"}
    accepted, done = answer.replies[0], answer.last
    assert accepted["node"] == node.node
    assert (accepted["prompt_tokens"], accepted["context"]) == (5 + PROMPT_TOKENS, 2048)
    assert accepted["position"] == 0
    assert 0 < accepted["deadline_ms"] <= 600_000
    assert done["text"] == "".join(f"w{n} " for n in range(9))
    assert (done["finish_reason"], done["attempt"], done["level"]) == ("stop", 1, "cool")
    assert done["usage"]["completion_tokens"] == 9
    assert done["usage"]["prompt_tokens"] == 5 + PROMPT_TOKENS
    assert done["timings"]["decode_ms"] >= 8 * 20
    assert 30 < done["timings"]["decode_tokens_per_s"] <= 50
    qos = {h.json["type"]: h.qos for h in answer.heard}
    assert qos == {"accepted": 1, "delta": 0, "done": 1}


@pytest.mark.parametrize("version", [5, 4])
def test_plain_text_question(broker: Mosquitto, node: Node, device: MakeDevice, version: int) -> None:
    """A plain-text question is answered in JSON and as plain text on the client's `text` topic."""
    asking = device(broker, f"text-{version}", version=version)
    asking.ask_text("how warm is it? tokens=4")
    heard = asking.wait_for(f"/client/text-{version}/text")
    assert heard.payload == b"w0 w1 w2 w3 "
    assert heard.qos == 1
    (answer,) = asking.answers().values()
    assert asking.answer(answer.id).check().text == "w0 w1 w2 w3 "
    assert node.running


def test_no_stream(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """`stream` false gets `accepted` and `done`, nothing between."""
    asking = device(broker, "d3")
    answer = asking.answer(asking.ask("x tokens=20 step_ms=5", stream=False)).check(stream=False)
    assert [reply["type"] for reply in answer.replies] == ["accepted", "done"]
    assert answer.text.startswith("w0 w1 ")
    assert node.running


def test_response_topic_and_correlation(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """Response Topic and Correlation Data of MQTT 5 are honoured on every reply, refusals too."""
    asking = device(broker, "d4")
    topic = "edged/v1/client/d4/inbox/7"
    properties = {"ResponseTopic": topic, "CorrelationData": b"\x00\xffabc"}
    good = asking.answer(asking.ask("x tokens=5 step_ms=10", properties=properties)).check()
    bad = asking.answer(asking.ask("x", max_tokens=0, properties=properties)).check()
    assert bad.last["code"] == "bad_request"
    for heard in (*good.heard, *bad.heard):
        assert heard.topic == topic
        assert heard.properties["CorrelationData"] == b"\x00\xffabc"
        assert heard.properties["ContentType"] == "application/json"
    assert node.running


def test_correlation_serves_as_id(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """Without an id the Correlation Data is the id, so a second copy is recognised."""
    asking = device(broker, "d5")
    for kind in ("accepted", "done"):
        asking.ask_text("x tokens=30 step_ms=10", CorrelationData=b"job:7")
        asking.wait_reply("job:7", kind)
    answer = asking.answer("job:7").check()
    assert [reply.get("duplicate") for reply in answer.replies if reply["type"] == "accepted"] == [None, True]
    assert finished(node, "d5") == 1


def test_same_id_while_running_joins(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """A second copy of a running question joins it: one run, one terminal message, to where it asked last."""
    asking = device(broker, "d6")
    job = asking.ask("x tokens=50 step_ms=20", id="same")
    asking.wait_reply(job, "delta")
    asking.ask("x tokens=50 step_ms=20", id="same", reply_to="edged/v1/client/d6/moved")
    answer = asking.answer(job).check()
    assert [r["type"] for r in answer.replies].count("accepted") == 2
    assert answer.heard[-1].topic == "edged/v1/client/d6/moved"
    assert finished(node, "d6") == 1


def test_a_copy_is_told_where_it_stands(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """Asked again while others go first, a question was told that it is next, and the time of an average one."""
    asking = device(broker, "d25")
    jobs = [asking.ask(LONG, id=f"q{number}") for number in range(3)]
    first = asking.wait_reply("q2", "accepted")
    asking.ask(LONG, id="q2")
    again = asking.wait_reply("q2", "accepted", count=2)
    assert (first["position"], again["position"], again["duplicate"]) == (2, 2, True)
    assert 0 < again["eta_ms"] <= first["eta_ms"]
    asking.wait_reply("q0", "delta")
    asking.ask(LONG, id="q0")
    assert asking.wait_reply("q0", "accepted", count=2)["position"] == 0
    for job in jobs:
        asking.control("cancel", job)
        asking.wait_reply(job, "cancelled")
    assert node.running


def test_same_id_after_the_end_gets_the_stored_answer(
    broker: Mosquitto, node: Node, device: MakeDevice
) -> None:
    """A copy of a finished question gets its answer again without a run, wherever it listens now."""
    asking = device(broker, "d7")
    first = asking.answer(asking.ask("x tokens=6", id="same")).check()
    asking.ask("x tokens=6", id="same", reply_to="edged/v1/client/d7/later")
    again = asking.wait_for("/client/d7/later")
    assert again.json == first.last
    assert finished(node, "d7") == 1


def test_plain_text_copy_after_the_end(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """The stored answer of a plain-text question comes again on both topics."""
    asking = device(broker, "d8")
    for count in (1, 2):
        asking.ask_text("x tokens=6", CorrelationData=b"same")
        asking.wait_reply("same", "done", count=count)
        asking.wait(lambda count=count: len(asking.texts()) == count)  # type: ignore[misc]
    assert finished(node, "d8") == 1


def test_used_id_with_another_payload(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """Another question under a used id is `bad_request`, while the first one runs and after its end."""
    asking = device(broker, "d9")
    topics = [f"edged/v1/client/d9/other/{n}" for n in range(2)]
    job = asking.ask("x tokens=40 step_ms=20", id="same")
    asking.wait_reply(job, "delta")
    asking.ask("y", id="same", reply_to=topics[0])
    assert asking.wait_for(topics[0]).json["code"] == "bad_request"
    asking.wait_reply(job, "done")
    asking.ask("y", id="same", reply_to=topics[1])
    assert asking.wait_for(topics[1]).json["code"] == "bad_request"
    other = device(broker, "e9")
    assert other.answer(other.ask("y tokens=1", id="same")).check().text == "w0 "
    assert node.running


def test_cancel_waiting_and_running(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """A cancelled question ends at once with `cancelled`, the running one with the text so far."""
    asking = device(broker, "d10")
    running = asking.ask(LONG)
    asking.wait_reply(running, "delta", count=3)
    waiting = asking.ask(LONG)
    assert asking.wait_reply(waiting, "accepted")["position"] == 1
    asking.control("cancel", waiting)
    cancelled = asking.answer(waiting, timeout_s=3).check()
    assert (cancelled.last["type"], cancelled.text) == ("cancelled", "")
    asking.control("cancel", running)
    cancelled = asking.answer(running, timeout_s=3).check()
    assert cancelled.last["type"] == "cancelled"
    assert cancelled.text.startswith("w0 w1 ")
    assert cancelled.last["usage"]["completion_tokens"] == len(cancelled.text.split())
    after = asking.ask("x")
    assert asking.answer(after).check().text == "w0 w1 w2 "
    assert node.wait_health(lambda h: h["counts"]["done"], since=node.watcher.mark)["active"] == 0


def test_cancel_while_the_prompt_is_read(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """A cancel stops a prefill in the middle of a pass; the next question gets the slot."""
    asking = device(broker, "d11")
    job = asking.ask("read_ms=100 " + "word " * 250)  # a pass of 25 s
    asking.wait_reply(job, "accepted")
    node.wait_health(lambda h: h["active"] == 1, since=node.watcher.mark)
    begun = time.monotonic()
    asking.control("cancel", job)
    assert asking.answer(job, timeout_s=5).check().last["type"] == "cancelled"
    assert time.monotonic() - begun < 3
    assert asking.answer(asking.ask("x"), timeout_s=5).check().text == "w0 w1 w2 "


def test_nobody_steers_another_clients_question(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """A cancel through another client's control topic does nothing to the question."""
    asking, other = device(broker, "d12"), device(broker, "e12")
    job = asking.ask("x tokens=50 step_ms=20")
    asking.wait_reply(job, "delta")
    other.control("cancel", job)
    assert other.wait_reply(job, "status")["state"] == "unknown"
    assert asking.answer(job).check().last["type"] == "done"
    assert node.running


def test_status(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """`status` tells where a question stands: running, waiting, finished, unknown."""
    asking = device(broker, "d13")
    running = asking.ask("x tokens=60 step_ms=20")
    asking.wait_reply(running, "delta", count=2)
    waiting = asking.ask("x tokens=2")
    asking.wait_reply(waiting, "accepted")
    asking.control("status", running)
    told = asking.wait_reply(running, "status")
    assert (told["state"], told["attempt"], told["node"]) == ("running", 1, node.node)
    assert told["seq"] >= 2
    asking.control("status", waiting)
    assert asking.wait_reply(waiting, "status")["state"] == "waiting"
    asking.answer(waiting).check()
    asking.control("status", waiting)
    assert asking.wait_reply(waiting, "status", count=2)["state"] == "finished"
    asking.control("status", "never-asked")
    assert asking.wait_reply("never-asked", "status")["state"] == "unknown"


def test_resume(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """`resume` sends the deltas from `from_seq` on again, while the answer goes on."""
    asking = device(broker, "d14")
    job = asking.ask("x tokens=60 step_ms=20")
    asking.wait_reply(job, "delta", count=8)
    asking.control("resume", job, from_seq=5)
    asking.wait_reply(job, "done")
    deltas = [r for r in asking.answers()[job].replies if r["type"] == "delta"]
    by_seq: dict[int, list[str]] = {}
    for delta in deltas:
        by_seq.setdefault(delta["seq"], []).append(delta["text"])
    twice = {seq for seq, texts in by_seq.items() if len(texts) == 2}
    assert {5, 6, 7, 8} <= twice
    assert not twice & {1, 2, 3, 4}
    assert all(len(set(texts)) == 1 for texts in by_seq.values())
    assert node.running


def test_deadlines(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """A deadline ends a running answer with `deadline` and a waiting question with `expired`, in time.

    Who was told `expired` may give the same question longer: it is answered then. Where answers were long so far,
    the second question would rightly be `busy` at once, so short ones come first.
    """
    asking = device(broker, "d16")
    for _ in range(4):  # the average moves by a tenth with each
        for short in [asking.ask("x tokens=1") for _ in range(10)]:
            asking.answer(short)
    begun = time.monotonic()
    running = asking.ask(LONG, deadline_ms=1500)
    asking.wait_reply(running, "delta")
    waiting = asking.ask("x", deadline_ms=500)
    assert asking.answer(waiting, timeout_s=5).check().last["code"] == "expired"
    answer = asking.answer(running, timeout_s=5).check()
    assert answer.last["finish_reason"] == "deadline"
    assert answer.text.startswith("w0 ")
    assert 1.4 < time.monotonic() - begun < 5
    asking.ask("x", id=waiting, deadline_ms=30_000)
    assert asking.wait_reply(waiting, "done")
    assert node.running


def test_message_expiry_is_a_deadline(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """Message Expiry of MQTT 5 counts as deadline; with both, the earlier one."""
    asking = device(broker, "d17")
    expiry = {"MessageExpiryInterval": 2}
    text = asking.ask("x tokens=400 step_ms=20", properties=expiry)
    assert asking.wait_reply(text, "accepted")["deadline_ms"] <= 2000
    assert asking.answer(text, timeout_s=6).check().last["finish_reason"] == "deadline"
    both = asking.ask("x tokens=400 step_ms=20", deadline_ms=300, properties=expiry)
    assert asking.wait_reply(both, "accepted")["deadline_ms"] <= 300
    assert asking.answer(both, timeout_s=6).check().last["finish_reason"] == "deadline"
    assert node.running


def test_info_health_and_status_for_late_comers(broker: Mosquitto, node: Node, device: MakeDevice) -> None:
    """Whoever comes later finds status, info and health retained; health goes stale by itself."""
    asking = device(broker, "d23")
    asking.answer(asking.ask("x")).check()
    node.wait_health(lambda h: not h["journal"]["unfinished"], since=node.watcher.mark)
    late = Listener(broker.host, broker.port, ("edged/v1/node/n1/+",), name="late").start()
    try:
        status, info, health = (late.wait_for(f"/n1/{name}") for name in ("status", "info", "health"))
    finally:
        late.stop()
    assert all(heard.retained for heard in (status, info, health))
    assert status.payload == b"online"
    assert {"version", "contract", "boot_id", "model", "context_max", "slots", "cores", "rates"} <= set(
        info.json
    )
    assert {"decode_threads", "prefill_threads", "capabilities", "pools", "limits"} <= set(info.json)
    assert info.json["model"]["name"] == "scripted"
    assert 0 < health.properties["MessageExpiryInterval"] <= 3
    assert {"level", "queue", "active", "context", "uptime_s", "memory", "journal"} <= set(health.json)
    assert health.json["memory"]["daemon_rss_bytes"] > 1_000_000
    assert health.json["memory"]["engine_rss_bytes"] > 1_000_000
    assert health.json["journal"]["unfinished"] == 0
