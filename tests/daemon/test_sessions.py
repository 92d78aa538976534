"""Conversations that go on, from end to end: what the engine is asked, what survives, what is forgotten.

The scripted engine counts words as tokens, so each prompt's length says what stood in it; the real model shows
that a fact is recalled, and that a conversation continues from exactly the tokens that the model chose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import Answer, Device, MakeDevice

ASKED = 2  # words of "tokens=3 hm"; three words of answer follow, and the template's one stands at the end


def go_on(device: Device, prompt: str = "tokens=3 hm", *, session: str = "s", **fields: Any) -> Answer:
    """Ask in a session; returns the whole answer."""
    return device.answer(device.ask(prompt, session=session, **fields)).check(
        stream=fields.get("stream", True)
    )


def words(answer: Answer) -> int:
    """Tokens of the prompt, the template's own left out."""
    return int(answer.last["usage"]["prompt_tokens"]) - 1


def test_a_conversation_goes_on(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Each question is asked with what was said before; other sessions, clients and questions are not."""
    node = daemon(broker, scripted=True).start()
    c1, c2 = device(broker, "c1"), device(broker, "c2")
    for turn in range(3):
        answer = go_on(c1)
        assert words(answer) == ASKED + turn * (ASKED + 3)
        assert answer.replies[0]["history"] == 2 * turn
    assert words(go_on(c1, session="t")) == ASKED
    assert words(go_on(c2)) == ASKED
    alone = c1.answer(c1.ask("tokens=3 hm")).check()
    assert words(alone) == ASKED
    assert "history" not in alone.replies[0]
    assert node.wait_health(lambda h: h["journal"]["sessions"] == 3)
    assert "session" in node.wait_info()["capabilities"]


def test_it_survives_restarts(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """After an orderly end, and after a crash in mid-answer, nothing is missing and nothing stands there twice."""
    node = daemon(broker, scripted=True).start()
    c1 = device(broker, "c1", persistent=True)
    go_on(c1)
    node.terminate()
    node.start()
    assert words(go_on(c1)) == ASKED + 5
    running = c1.ask("tokens=40 step_ms=30", session="s")
    behind = c1.ask("tokens=3 hm", session="s")
    c1.wait_reply(running, "delta", count=2)
    node.kill()
    node.start()
    first, second = c1.answer(running), c1.answer(behind).check()
    assert first.last["attempt"] == 2
    assert words(first) == 2 + 2 * 5
    assert words(second) == ASKED + 2 * 5 + 2 + 40
    asked_again = c1.ask("tokens=3 hm", session="s", id=behind)
    c1.wait_reply(asked_again, "done", count=2)
    assert words(go_on(c1)) == ASKED + 2 * 5 + 2 + 40 + 5  # the repetition is no turn of its own


def test_one_after_the_other(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """Questions of one session that come at once are answered in their order, each with the one before."""
    daemon(broker, {"engine": {"slots": 4}}, scripted=True).start()
    c1 = device(broker, "c1")
    jobs = [c1.ask(f"tokens={count} step_ms=5", session="s") for count in (30, 20, 10)]
    other = c1.ask("tokens=1 hm", session="t")
    answers = [c1.answer(job).check() for job in jobs]
    assert [words(answer) for answer in answers] == [2, 2 + 30 + 2, 2 + 30 + 2 + 20 + 2]
    assert c1.answer(other).heard[-1].at < answers[0].heard[-1].at


def test_no_answer_no_trace(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A question that was cancelled, or refused, leaves the conversation as it was; the next one is not held up."""
    daemon(broker, scripted=True).start()
    c1 = device(broker, "c1")
    go_on(c1)
    running, behind, last = (c1.ask("tokens=500 step_ms=20", session="s") for _ in range(3))
    c1.wait_reply(running, "delta")
    c1.control("cancel", behind)
    assert c1.answer(behind).last["type"] == "cancelled"
    c1.control("cancel", running)
    assert c1.answer(running).last["type"] == "cancelled"
    c1.wait_reply(last, "delta")
    c1.control("cancel", last)
    assert c1.answer(last).last["type"] == "cancelled"
    refused = c1.answer(c1.ask("word " * 3000, session="s")).last
    assert refused["code"] == "too_long"
    assert words(go_on(c1)) == ASKED + 5


def test_engine_lost_in_mid_answer(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The turn is asked anew with the same history, and stands in it once."""
    node = daemon(broker, scripted=True).start()
    c1 = device(broker, "c1")
    go_on(c1)
    poison = c1.ask("tokens=9 crash=SIGKILL at=4", session="s")
    behind = c1.ask("tokens=3 hm", session="s")
    refused = c1.answer(poison).last
    assert refused["code"] == "poison"
    assert words(c1.answer(behind)) == ASKED + 5
    assert len(node.log("engine_gone")) == 3


def test_a_full_context(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A history that outgrows the context is refused, or loses its oldest turns and says how many messages."""
    daemon(broker, {"engine": {"context_max": 256, "context_min": 256}}, scripted=True).start()
    c1 = device(broker, "c1")
    for _ in range(3):
        go_on(c1, "tokens=70 hm")
    refused = c1.answer(c1.ask("tokens=60 " + "hm " * 60, session="s")).last
    assert (refused["code"], refused["details"]["context"]) == ("too_long", 256)
    trimmed = go_on(c1, "tokens=60 hm", overflow="trim_history", max_tokens=100)
    assert trimmed.last["trimmed"] == 2
    assert words(trimmed) == ASKED + 2 * 72
    after = go_on(c1, "tokens=3 hm", overflow="trim_history")
    assert after.last["trimmed"] == 2  # a quarter of the context stays for the answer
    assert words(after) == ASKED + 72 + 62
    assert "trimmed" not in go_on(c1, "tokens=3 hm").last


def test_a_full_session(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """So does one that outgrows its bytes."""
    daemon(broker, {"sessions": {"max_bytes": 1024}}, scripted=True).start()
    c1 = device(broker, "c1")
    go_on(c1, "tokens=3 " + "hm " * 300)
    refused = c1.answer(c1.ask("tokens=3 " + "hm " * 100, session="s")).last
    assert (refused["code"], refused["details"]["limit"]) == ("too_large", 1024)
    assert "session s" in refused["message"]
    trimmed = go_on(c1, "tokens=3 " + "hm " * 100, overflow="trim_history")
    assert trimmed.last["trimmed"] == 2
    assert words(trimmed) == 101
    assert words(go_on(c1)) == ASKED + 101 + 3


def test_a_session_is_forgotten(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The device is told, the next question knows nothing of it; not while one runs, nor of another client's."""
    node = daemon(broker, scripted=True).start()
    c1, c2 = device(broker, "c1"), device(broker, "c2")
    first = go_on(c1)
    running = c1.ask("tokens=500 step_ms=20", session="s")
    c1.wait_reply(running, "delta")
    c1.control("forget", "f1", session="s")
    assert c1.wait_reply("f1", "status")["state"] == "running"
    c1.control("cancel", running)
    assert c1.answer(running).last["type"] == "cancelled"
    c2.control("forget", "f2", session="s")
    assert c2.wait_reply("f2", "status")["state"] == "unknown"
    assert words(go_on(c1)) == ASKED + 5
    c1.control("forget", "f3", session="s")
    assert c1.wait_reply("f3", "status")["state"] == "forgotten"
    assert node.wait_health(lambda h: h["journal"]["sessions"] == 0)
    again = c1.ask("tokens=3 hm", session="s", id=first.last["id"])
    done = c1.wait_reply(again, "done", count=2)
    assert done["usage"]["prompt_tokens"] == ASKED + 1, "it is computed anew, without what was said"
    c1.control("forget", "f4")
    assert node.wait_log("control_refused")["reason"].startswith("forget needs session")


@pytest.fixture(scope="module")
def talker(
    shared_broker: Mosquitto, small_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """A node with the real small model."""
    sections: dict[str, dict[str, Any]] = {
        "node": {"id": "talker"},
        "model": {"path": str(small_model)},
        "engine": {"context_max": 1024},
    }
    folder = tmp_path_factory.mktemp("talker")
    node = DaemonProcess(folder, shared_broker.host, shared_broker.port, sections)
    try:
        yield node.start()
        assert node.terminate() == 0
    finally:
        assert node.close() == []


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of an answer."""
    counts: dict[str, int] = answer.last["usage"]
    return counts


def test_a_fact_of_two_turns_before(
    shared_broker: Mosquitto, talker: DaemonProcess, device: MakeDevice
) -> None:
    """The model recalls what it was told, and reads of each turn only what is new."""
    assert talker.running
    c1 = device(shared_broker, "c1", node="talker")
    greedy: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
    told = go_on(c1, "My name is Anna. Say hello.", **greedy)
    between = go_on(c1, "What is the capital of France?", **greedy)
    recalled = go_on(c1, "What is my name?", **greedy)
    assert "Anna" in recalled.text, json.dumps(recalled.last)
    for before, after in ((told, between), (between, recalled)):
        # All that stood in the cache: the prompt and every token of the answer but one that was never read.
        stood = usage(before)["prompt_tokens"] + usage(before)["completion_tokens"]
        assert stood - 1 <= usage(after)["cached_tokens"] <= stood
    alone = c1.answer(c1.ask("What is my name?", **greedy))
    assert "Anna" not in alone.text


def test_tokens_that_no_tokenizer_would_choose(
    shared_broker: Mosquitto, talker: DaemonProcess, device: MakeDevice
) -> None:
    """Hot sampling cuts words as no tokenizer does: the conversation still goes on from those very tokens."""
    assert talker.running
    c1 = device(shared_broker, "c2", node="talker")
    for seed in range(4):
        session = f"seed-{seed}"
        before = go_on(
            c1, "Write nonsense.", session=session, temperature=2, top_p=1, seed=seed, max_tokens=24
        )
        after = go_on(c1, "Go on.", session=session, max_tokens=1, cache="use")
        stood = usage(before)["prompt_tokens"] + usage(before)["completion_tokens"]
        assert stood - 1 <= usage(after)["cached_tokens"] <= stood
