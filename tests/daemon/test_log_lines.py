"""The daemon's log: JSON, one line a question with its figures, and nobody's words in it."""

from __future__ import annotations

import json

import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import MakeDevice

ASKED = "open-sesame-7391"


def test_one_line_a_question(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """A finished question is one line with id, client, tokens and durations; every line is JSON."""
    node = daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    asking = device(broker, "c1")
    done = asking.ask("one two tokens=20 step_ms=10")
    answer = asking.answer(done).check()
    running, waiting = asking.ask("tokens=400 step_ms=20"), asking.ask("x")
    asking.wait_reply(waiting, "accepted")
    asking.control("cancel", running)
    asking.answer(running).check()
    asking.answer(waiting).check()
    asking.answer(asking.ask("word " * 3000)).check()
    asking.answer(asking.ask("x", max_tokens=0)).check()
    assert node.terminate() == 0
    for raw in node.raw:
        entry = json.loads(raw)
        assert {"timestamp", "severity", "event"} <= set(entry)
        assert entry["event"].isidentifier()
        assert entry["event"].islower()
    ends = [
        line
        for line in node.lines
        if line["event"] in {"job_finished", "job_cancelled", "job_failed", "question_refused"}
    ]
    assert sorted(line["job_id"] for line in ends) == sorted(asking.answers())
    assert {line["client"] for line in ends} == {"c1"}
    (line,) = (line for line in ends if line["job_id"] == done)
    usage = answer.last["usage"]
    assert (line["prompt_tokens"], line["tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (line["attempt"], line["finish_reason"]) == (1, "stop")
    assert line["decode_ms"] >= 190
    assert {"queue_ms", "prefill_ms", "tokens_per_s"} <= set(line)
    assert 0.19 < line["duration_s"] < 10
    assert [line["event"] for line in node.lines][-2:] == ["stopping", "stopped"]


@pytest.mark.parametrize("level", ["info", "debug"])
def test_nobodys_words_are_logged(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, level: str
) -> None:
    """No line holds what was asked or answered, whatever became of the question."""
    node = daemon(broker, {"log": {"level": level}}, scripted=True).start()
    asking = device(broker, "c1")
    asking.answer(asking.ask(f"{ASKED} tokens=2")).check()
    asking.answer(asking.ask(messages=[{"role": "user", "content": ASKED}])).check()
    asking.answer(asking.ask(ASKED, max_tokens=-1)).check()
    asking.answer(asking.ask(f"{ASKED} " * 3000)).check()
    asking.answer(asking.ask(f"{ASKED} crash=SIGSEGV")).check()
    asking.ask_text(f"{ASKED} tokens=2")
    asking.publish(asking.ask_topic, b'{"prompt": "' + ASKED.encode() + b'", ')
    asking.publish(asking.ask_topic, b'{"prompt": "' + ASKED.encode() + b'\xff"}')
    asking.publish(asking.control_topic, ASKED.encode())
    asking.wait_for("/client/c1/text")
    asking.control("status", "end-of-the-line")
    asking.wait_reply("end-of-the-line", "status")
    assert node.terminate() == 0
    assert [line for line in node.raw if ASKED.encode() in line] == []
    said = b"".join(node.raw)
    assert b"w0 w1" not in said
    assert len(node.log("job_finished")) == 3
