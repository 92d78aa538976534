"""Tools from end to end: the device's own over the wire, the node's own in a process that may hang or crash."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from device import Device, MakeDevice

LAMP = {
    "type": "function",
    "function": {
        "name": "set_lamp",
        "description": "Switch a lamp on or off.",
        "parameters": {
            "type": "object",
            "properties": {"lamp": {"enum": ["hall", "yard"]}, "on": {"type": "boolean"}},
            "required": ["lamp", "on"],
        },
    },
}
PLUGIN = """
import os, time
from edged.tools import LocalTool

NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}

def hang(arguments, surroundings):
    time.sleep(3600)

def crash(arguments, surroundings):
    print("a word on standard output")
    os._exit(3)

def fail(arguments, surroundings):
    raise RuntimeError("the sensor is not there")

HANG, CRASH, FAIL = (LocalTool("For tests.", NOTHING, run) for run in (hang, crash, fail))
"""
ENTRIES = "[edged.tools]\nhang = trial_tools:HANG\ncrash = trial_tools:CRASH\nfail = trial_tools:FAIL\n"
LIMIT_S = 1.0


def named(tool: str) -> dict[str, Any]:
    """A `tool_choice` that leaves no choice."""
    return {"type": "function", "function": {"name": tool}}


@pytest.fixture(scope="module")
def node(
    shared_broker: Mosquitto, small_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """A node with the small model, and with tools that an installed package brings beside its own."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("node")
    (site / "trial_tools.py").write_text(PLUGIN)
    info = site / "trial_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trial-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    enabled = ["calculate", "clock", "vitals", "hang", "crash", "fail"]
    sections: Sections = {
        "node": {"id": "toolbox"},
        "model": {"path": str(small_model)},
        "engine": {"slots": 2, "decode_threads": 1, "prefill_threads": 1},
        "tools": {"enabled": enabled, "limit_s": LIMIT_S},
    }
    process = DaemonProcess(
        folder,
        shared_broker.host,
        shared_broker.port,
        sections,
        environment={"PYTHONPATH": str(site)},
    )
    try:
        process.start().wait_online(timeout_s=120)
        assert process.wait_info(lambda info: "model" in info)["tools"] == enabled
        yield process
        assert process.terminate() == 0
    finally:
        assert process.close() == []


@pytest.fixture
def asking(node: DaemonProcess, device: MakeDevice, shared_broker: Mosquitto) -> Device:
    """A device that asks it."""
    del node
    return device(shared_broker, f"d{time.monotonic_ns()}", node="toolbox")


def test_device_answers_a_call(asking: Device) -> None:
    """A call goes to the device, its result comes back in the conversation, and an answer follows."""
    question = {"role": "user", "content": "Switch on the lamp in the hall."}
    first = asking.answer(
        asking.ask(messages=[question], tools=[LAMP], tool_choice=named("set_lamp"), seed=1), 120
    ).check()
    kinds = [reply["type"] for reply in first.replies]
    assert kinds == ["accepted", "tool_call", "done"]
    done = first.last
    assert done["finish_reason"] == "tool_calls"
    assert done["tool_calls"] == first.replies[1]["tool_calls"]
    [call] = done["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "set_lamp"
    parameters: Any = LAMP["function"]["parameters"]  # type: ignore[index]
    jsonschema.validate(json.loads(call["function"]["arguments"]), parameters)
    turns = [
        question,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "The lamp is on."},
    ]
    last = asking.answer(asking.ask(messages=turns, tools=[LAMP], tool_choice="none", max_tokens=30), 120)
    assert last.check().last["finish_reason"] in {"stop", "length"}
    assert last.text


def test_call_in_a_session(asking: Device) -> None:
    """In a session the device sends the result alone."""
    choice = named("set_lamp")
    first = asking.answer(asking.ask("Hall lamp on!", session="s", tools=[LAMP], tool_choice=choice), 120)
    [call] = first.check().last["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "The lamp is on."}
    second = asking.answer(asking.ask(messages=[result], session="s", max_tokens=20, temperature=0), 120)
    assert second.check().replies[0]["history"] == 2
    assert second.last["usage"]["prompt_tokens"] > first.last["usage"]["completion_tokens"]
    wrong = asking.answer(asking.ask(messages=[{**result, "tool_call_id": "wrong"}], session="s"), 120)
    assert wrong.check().last["code"] == "bad_request"


def test_required_and_cut_short(asking: Device) -> None:
    """A call that has no room is an error, and nothing of it is shown."""
    answer = asking.answer(asking.ask("Lamp!", tools=[LAMP], tool_choice="required", max_tokens=8), 120)
    assert answer.check().last["code"] == "too_long"
    assert [reply["type"] for reply in answer.replies] == ["accepted", "error"]


@pytest.mark.parametrize("tool", ["clock", "vitals", "calculate", "fail", "crash", "hang"])
def test_node_answers_a_call(node: DaemonProcess, asking: Device, tool: str) -> None:
    """A tool of the node runs between two rounds of one question, and whatever it does the model goes on."""
    since = len(node.log("tool_ran"))
    job = asking.ask(
        "Use the tool, then tell me what it says.",
        tools=[tool],
        tool_choice=named(tool),
        max_tokens=120,
        temperature=0,
    )
    answer = asking.answer(job, 120)
    ran = node.log("tool_ran")[since:]
    if answer.last["type"] == "error":
        # 120 tokens may be too few for a small model's expression, or for a second call in its answer.
        assert answer.last["code"] == "too_long", answer.last
        assert ran or tool == "calculate"
        return
    done = answer.check().last
    assert done["finish_reason"] in {"stop", "length"}
    assert "tool_calls" not in done
    assert [reply["type"] for reply in answer.replies].count("accepted") == 1
    assert done["usage"]["prompt_tokens"] > 2 * answer.replies[0]["prompt_tokens"]
    assert done["usage"]["completion_tokens"] <= 120
    assert ran[0]["tool"] == tool
    assert ran[0]["failed"] == (tool in {"fail", "crash", "hang"}) or tool == "calculate"
    assert ran[0]["duration_s"] < (LIMIT_S + 10)


def test_cancel_and_deadline_while_a_tool_hangs(asking: Device) -> None:
    """A question whose tool hangs ends when its device or its deadline wants it to."""
    late = asking.ask("Use it.", tools=["hang"], tool_choice=named("hang"), deadline_ms=900)
    ending = asking.answer(late).check().last
    assert ending.get("finish_reason") == "deadline" or ending["code"] == "expired"
    job = asking.ask("Use it.", tools=["hang"], tool_choice=named("hang"))
    asking.wait_reply(job, "accepted")
    asking.control("cancel", job)
    assert asking.answer(job).check().last["type"] == "cancelled"
    assert asking.answer(asking.ask("Hello", max_tokens=4), 120).check().last["type"] == "done"


def test_unknown_tool(asking: Device) -> None:
    """A tool that the node does not have is refused by name."""
    error = asking.answer(asking.ask("What is 2 + 2?", tools=["abacus"])).check().last
    assert error["code"] == "unsupported"
    assert "abacus" in error["message"]
    assert "calculate" in error["message"]


def test_wrong_tool_in_the_settings(shared_broker: Mosquitto, small_model: Path, tmp_path: Path) -> None:
    """The operator hears at the start which tools there are."""
    sections: Sections = {"model": {"path": str(small_model)}, "tools": {"enabled": ["abacus"]}}
    process = DaemonProcess(tmp_path, shared_broker.host, shared_broker.port, sections)
    try:
        process.launch()
        assert process.wait_end(60) == 78
        assert b"abacus" in b"".join(process.raw)
        assert b"calculate" in b"".join(process.raw)
    finally:
        assert process.close() == []
