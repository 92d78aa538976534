"""A reasoning model from end to end: R1-Distill's tokenizer and template, told what to think and to answer.

The models follow a story token by token (see r1model.py), so every text here is exact.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from broker import Mosquitto, free_port
from daemon_process import DaemonProcess
from device import WAIT_S, Answer, Device
from r1model import SPECIALS, Story, write_model

ROUND = " one two three four"
ANSWER = "The bearing is fine."
ANSWER_TOKENS = 5
CLOSING_TOKENS = 3  # "\n", "</think>", "\n\n"
CONTEXT = 8192
"""Long enough that a thinking without end is still under way when a device steers it."""


numbers = itertools.count(1)


@contextlib.contextmanager
def running(
    broker: Mosquitto, folder: Path, story: Story, name: str, *, http_port: int | None = None, **engine: Any
) -> Iterator[DaemonProcess]:
    """A node of this name whose model follows a story."""
    write_model(folder / "model.gguf", story=story)
    sections = {"node": {"id": name}, "engine": {"slots": 1, "context_max": CONTEXT, **engine}}
    if http_port is not None:
        sections["http"] = {"enabled": True, "port": http_port}
    node = DaemonProcess(folder, broker.host, broker.port, sections)
    try:
        yield node.start()
        assert node.terminate() == 0
    finally:
        assert node.close() == []


@contextlib.contextmanager
def asking(broker: Mosquitto, node: str) -> Iterator[Device]:
    """A device with a name of its own: its ids are then new to the node."""
    device = Device(broker.host, broker.port, f"device-{next(numbers)}", node=node)
    try:
        yield device.start()
    finally:
        device.stop()


@pytest.fixture(scope="module")
def wanderer(shared_broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A node whose model thinks for ever, and answers once its thinking is closed for it."""
    folder = tmp_path_factory.mktemp("wanderer")
    with running(shared_broker, folder, Story(), "wanderer", reasoning_budget=CONTEXT // 2) as node:
        yield node


@pytest.fixture(scope="module")
def http_port() -> int:
    """Port of the one that closes its thinking."""
    return free_port()


@pytest.fixture(scope="module")
def closer(
    shared_broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory, http_port: int
) -> Iterator[DaemonProcess]:
    """A node whose model closes its thinking by itself."""
    folder = tmp_path_factory.mktemp("closer")
    with running(shared_broker, folder, Story(closes=True), "closer", http_port=http_port) as node:
        yield node


@pytest.fixture
def ask_wanderer(shared_broker: Mosquitto, wanderer: DaemonProcess) -> Iterator[Device]:
    """A device that asks the one."""
    assert wanderer.running
    with asking(shared_broker, "wanderer") as device:
        yield device


@pytest.fixture
def ask_closer(shared_broker: Mosquitto, closer: DaemonProcess) -> Iterator[Device]:
    """A device that asks the other."""
    assert closer.running
    with asking(shared_broker, "closer") as device:
        yield device


def ask(device: Device, *, budget: int | None = None, mode: str | None = None, **fields: Any) -> Answer:
    """Ask; return the whole answer, checked for what the contract promises of any."""
    named = {"budget": budget, "mode": mode}
    reasoning = {key: value for key, value in named.items() if value is not None}
    job = device.ask("Is it hot?", reasoning=reasoning, **fields)
    return device.answer(job).check(stream=fields.get("stream", True))


def test_the_output_starts_inside_the_reasoning(ask_closer: Device) -> None:
    """The first piece is reasoning though the model never wrote an opening tag; no tag shows anywhere."""
    answer = ask(ask_closer)
    kinds = [reply["type"] for reply in answer.attempts[-1]]
    assert kinds[:2] == ["accepted", "reasoning"]
    assert kinds.index("delta") > max(at for at, kind in enumerate(kinds) if kind == "reasoning")
    assert answer.deltas("reasoning") == ROUND
    assert answer.text == ANSWER
    assert "think>" not in json.dumps(answer.replies)


def test_done_repeats_the_reasoning_and_counts_it(ask_closer: Device) -> None:
    """`done` holds the thinking whole, and `usage` tells its tokens from those of the answer."""
    done = ask(ask_closer).last
    assert done["reasoning"] == ROUND
    assert done["finish_reason"] == "stop"
    assert done["usage"]["reasoning_tokens"] == 4 + 1  # the closing tag is the last of them
    assert done["usage"]["completion_tokens"] == 4 + 1 + 1 + ANSWER_TOKENS  # and an empty line


def test_a_thinking_without_end_is_closed_by_its_budget(ask_wanderer: Device) -> None:
    """When the budget is spent the thinking is closed, and an answer follows."""
    done = ask(ask_wanderer, budget=8).last
    assert done["reasoning"] == 2 * ROUND + "\n"
    assert done["text"] == ANSWER
    assert done["finish_reason"] == "stop"
    assert done["usage"]["reasoning_tokens"] == 8 + CLOSING_TOKENS
    assert done["usage"]["completion_tokens"] == 8 + CLOSING_TOKENS + ANSWER_TOKENS


def test_an_end_inside_the_thinking_still_brings_an_answer(shared_broker: Mosquitto, tmp_path: Path) -> None:
    """A model that stops in the middle of its thinking is made to answer."""
    node = running(shared_broker, tmp_path, Story(ends_thinking=True), "stopper")
    with node, asking(shared_broker, "stopper") as device:
        done = ask(device).last
        assert (done["reasoning"], done["text"]) == (ROUND + "\n", ANSWER)


def test_the_default_budget_is_a_third_of_the_context(shared_broker: Mosquitto, tmp_path: Path) -> None:
    """With no budget in question and settings, a third of the context may be thinking."""
    node = running(shared_broker, tmp_path, Story(), "thirds", context_max=1024, context_min=1024)
    with node, asking(shared_broker, "thirds") as device:
        done = ask(device).last
        assert done["usage"]["reasoning_tokens"] == 1024 // 3 + CLOSING_TOKENS
        assert done["text"] == ANSWER


def test_separate_streams_the_reasoning_in_messages_of_its_own(ask_wanderer: Device) -> None:
    """`separate`: `reasoning` messages join to the reasoning of `done`, deltas to its text."""
    answer = ask(ask_wanderer, budget=40, mode="separate")
    assert answer.deltas("reasoning") == answer.last["reasoning"] == 10 * ROUND + "\n"
    assert answer.deltas() == ANSWER


def test_hide_shows_no_reasoning(ask_wanderer: Device) -> None:
    """`hide`: no `reasoning` message, no reasoning in `done`; its tokens are still counted."""
    answer = ask(ask_wanderer, budget=8, mode="hide")
    assert {reply["type"] for reply in answer.replies} == {"accepted", "delta", "done"}
    assert "reasoning" not in answer.last
    assert answer.text == ANSWER
    assert answer.last["usage"]["reasoning_tokens"] == 8 + CLOSING_TOKENS


@pytest.mark.parametrize("node", ["wanderer", "closer"])
def test_inline_keeps_it_in_the_text_between_tags(request: pytest.FixtureRequest, node: str) -> None:
    """`inline`: the text is the thinking between tags, then the answer, in the deltas as in `done`."""
    answer = ask(request.getfixturevalue(f"ask_{node}"), budget=8, mode="inline")
    thought = 2 * ROUND + "\n" if node == "wanderer" else ROUND
    assert answer.text == answer.deltas() == f"<think>{thought}</think>\n\n{ANSWER}"
    assert "reasoning" not in {reply["type"] for reply in answer.replies}


@pytest.mark.parametrize("mode", ["separate", "hide", "inline"])
def test_an_answer_to_a_schema_behind_a_thinking(ask_closer: Device, mode: str) -> None:
    """`parsed` is the answer's value, also where the text has the thinking in front of it."""
    schema = {"type": "json_schema", "json_schema": {"schema": {"const": 85}}}
    done = ask(ask_closer, mode=mode, response_format=schema).last
    text = f"<think>{ROUND}</think>\n\n85" if mode == "inline" else "85"
    assert (done["text"], done.get("parsed")) == (text, 85)


@pytest.mark.parametrize("mode", ["separate", "hide", "inline"])
def test_without_streaming_only_done_comes(ask_closer: Device, mode: str) -> None:
    """`stream: false`: nothing between `accepted` and `done`, and `done` is the same."""
    done = ask(ask_closer, mode=mode, stream=False).last
    text = f"<think>{ROUND}</think>\n\n{ANSWER}" if mode == "inline" else ANSWER
    assert (done["text"], done.get("reasoning")) == (text, ROUND if mode == "separate" else None)


def test_plain_text_questions_hide_the_reasoning(ask_closer: Device) -> None:
    """A question in plain text gets the bare answer on the client's text topic."""
    since = ask_closer.mark
    ask_closer.ask_text("Is it hot?")
    heard = ask_closer.wait_for("/text", since=since)
    assert heard.payload.decode() == ANSWER


def test_budget_zero_answers_at_once(ask_wanderer: Device) -> None:
    """Budget 0: no thinking at all; the closed thinking is part of the prompt."""
    answer = ask(ask_wanderer, budget=0)
    thought = ask(ask_wanderer, budget=8).last["usage"]["prompt_tokens"]
    assert {reply["type"] for reply in answer.replies} == {"accepted", "delta", "done"}
    assert answer.text == ANSWER
    assert answer.last["usage"]["reasoning_tokens"] == 0
    assert (
        answer.last["usage"]["prompt_tokens"] == thought + CLOSING_TOKENS - 1
    )  # both newlines are one token


@pytest.mark.parametrize("max_tokens", [1, 6, 8, 9, 20])
def test_a_small_max_tokens_still_leaves_an_answer(ask_wanderer: Device, max_tokens: int) -> None:
    """`max_tokens` below the budget: the thinking is cut shorter, and at least half is answer."""
    done = ask(ask_wanderer, max_tokens=max_tokens).last
    answered = done["usage"]["completion_tokens"] - done["usage"]["reasoning_tokens"]
    assert done["usage"]["completion_tokens"] <= max_tokens
    assert answered >= min(max_tokens / 2, ANSWER_TOKENS)
    assert done["text"]
    assert ANSWER.startswith(done["text"])


def test_a_running_thinking_can_be_ended(ask_wanderer: Device) -> None:
    """`end_reasoning` closes the thinking that is under way; the answer follows."""
    job = ask_wanderer.ask("Is it hot?")
    ask_wanderer.wait_reply(job, "reasoning", count=2)
    ask_wanderer.control("end_reasoning", job)
    done = ask_wanderer.answer(job).check().last
    assert done["text"] == ANSWER
    assert 0 < done["usage"]["reasoning_tokens"] < CONTEXT // 2, "it ran until its budget was spent"


def test_a_thinking_can_be_ended_before_it_began(ask_wanderer: Device) -> None:
    """`end_reasoning` for a question that still waits holds once its turn comes."""
    first = ask_wanderer.ask("Is it hot?")
    second = ask_wanderer.ask("And now?")
    ask_wanderer.wait_reply(second, "accepted")
    ask_wanderer.control("end_reasoning", second)
    ask_wanderer.wait_reply(first, "reasoning")
    ask_wanderer.control("end_reasoning", first)
    done = ask_wanderer.answer(second).check().last
    assert done["text"] == ANSWER
    assert done["usage"]["reasoning_tokens"] <= 1 + CLOSING_TOKENS


def test_a_thinking_can_be_cancelled(ask_wanderer: Device) -> None:
    """`cancel` inside the thinking: the text so far is empty, the tokens are counted."""
    job = ask_wanderer.ask("Is it hot?")
    ask_wanderer.wait_reply(job, "reasoning")
    ask_wanderer.control("cancel", job)
    last = ask_wanderer.answer(job).check().last
    assert (last["type"], last["text"]) == ("cancelled", "")
    assert last["usage"]["reasoning_tokens"] > 0


def test_stop_strings_hold_for_the_answer_only(ask_closer: Device) -> None:
    """A stop string inside the thinking ends nothing; in the answer it does."""
    done = ask(ask_closer, stop=[" three", " is"]).last
    assert (done["reasoning"], done["text"]) == (ROUND, "The bearing")
    assert done["finish_reason"] == "stop"


@pytest.mark.parametrize("tag", ["<think>", "</think>", SPECIALS[151644][0], SPECIALS[151643][0]])
def test_tags_in_a_question_change_nothing(ask_closer: Device, tag: str) -> None:
    """A question full of tags is read as text: the thinking neither ends nor begins by it."""
    job = ask_closer.ask(f"{tag} Is it {tag}hot?{tag}")
    answer = ask_closer.answer(job).check()
    assert (answer.deltas("reasoning"), answer.text) == (ROUND, ANSWER)
    # As one token each the three tags would add three to the five of the template and the four of the text.
    assert answer.last["usage"]["prompt_tokens"] > 5 + 4 + 2 * 3


def test_the_node_says_that_its_model_reasons(closer: DaemonProcess) -> None:
    """`info` tells devices that they may expect reasoning."""
    assert closer.wait_info()["model"]["reasoning"] is True


def test_a_conversation_leaves_the_thinking_out(ask_closer: Device) -> None:
    """The next turn is asked without the earlier thinking, and continues from where that began."""
    first, second = (ask(ask_closer, session="talk").last["usage"] for _ in range(2))
    begin, opening, end = (
        1,
        2,
        1,
    )  # what stands first; `<think>` and a line break; what ends an earlier answer
    said = ANSWER_TOKENS + end
    assert second["prompt_tokens"] == first["prompt_tokens"] - opening + said + first["prompt_tokens"] - begin
    assert second["cached_tokens"] == first["prompt_tokens"] - opening


@pytest.mark.parametrize("stream", [False, True])
def test_openais_client_gets_it_apart(closer: DaemonProcess, http_port: int, stream: bool) -> None:  # noqa: FBT001 - a table
    """`reasoning_content` beside `content`, whole and in pieces, from the tokens of R1-Distill."""
    assert closer.running
    asked: Any = {"model": "edged", "messages": [{"role": "user", "content": "Is it hot?"}], "stream": stream}
    url = f"http://127.0.0.1:{http_port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=WAIT_S) as client:
        answer = client.chat.completions.create(**asked)
        told = [chunk.choices[0].delta for chunk in answer if chunk.choices] if stream else None
    parts = [answer.choices[0].message] if told is None else told
    assert "".join(getattr(part, "reasoning_content", None) or "" for part in parts) == ROUND
    assert "".join(part.content or "" for part in parts) == ANSWER
