"""One question, several rounds of the node's own tools: a model that counts, on the real grammar of calls."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from device import Answer, Device, MakeDevice

ROUNDS = 4


@pytest.fixture(scope="module")
def node(shared_broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A node whose model calls and calls."""
    sections: Sections = {
        "node": {"id": "counter"},
        "engine": {"slots": 2, "context_max": 8192},
        "tools": {"enabled": ["calculate"], "rounds": ROUNDS},
    }
    process = DaemonProcess(
        tmp_path_factory.mktemp("node"),
        shared_broker.host,
        shared_broker.port,
        sections,
        scripted=True,
        environment={"SCRIPTED_ENGINE": "calling_engine"},
    )
    try:
        process.start()
        yield process
        assert process.terminate() == 0
    finally:
        assert process.close() == []


@pytest.fixture
def asking(node: DaemonProcess, device: MakeDevice, shared_broker: Mosquitto) -> Device:
    """A device that asks it."""
    del node
    return device(shared_broker, f"d{time.monotonic_ns()}", node="counter")


def ended(answer: Answer) -> str:
    """The text of a question that came back once, with one `accepted` and nothing of a call."""
    done = answer.check().last
    assert [reply["type"] for reply in answer.replies].count("accepted") == 1
    assert (done["type"], done["finish_reason"]) == ("done", "stop")
    assert "tool_calls" not in done
    assert "".join(reply["text"] for reply in answer.replies if reply["type"] == "delta") == done["text"]
    assert "<tool_call>" not in done["text"]
    return str(done["text"])


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_as_many_rounds_as_it_takes(node: DaemonProcess, asking: Device, choice: str) -> None:
    """Each result is what the next call builds on; after three of them the model answers by itself."""
    since = len(node.log("tool_ran"))
    answer = asking.answer(asking.ask("Count from 0", tools=["calculate"], tool_choice=choice), 60)
    assert ended(answer) == "It is 3."
    ran = node.log("tool_ran")[since:]
    assert [(run["tool"], run["failed"]) for run in ran] == [("calculate", False)] * 3


def test_the_bound_is_reached(node: DaemonProcess, asking: Device) -> None:
    """A model that would call for ever is let to call `tools.rounds` times; then only text is left to it."""
    since = len(node.log("tool_ran"))
    answer = asking.answer(asking.ask("Count from 1000", tools=["calculate"]), 60)
    assert ended(answer)
    assert len(node.log("tool_ran")[since:]) == ROUNDS
    # The session of the engine is sound after it: the next question counts from the start.
    assert ended(asking.answer(asking.ask("Count from 2", tools=["calculate"]), 60)) == "It is 3."


def test_rounds_in_a_session(node: DaemonProcess, asking: Device) -> None:
    """A session keeps calls and results of all rounds: the next question has them in its history."""
    del node
    first = asking.answer(asking.ask("Count from 1", session="s", tools=["calculate"]), 60)
    assert ended(first) == "It is 3."
    second = asking.answer(asking.ask("And from 2?", session="s", tools=["calculate"]), 60)
    assert ended(second) == "It is 3."
    # The question, two rounds of a call and a result, and the answer.
    assert second.replies[0]["history"] == 6
