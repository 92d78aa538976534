"""`engine.gpu_layers`: without a GPU it is said why nothing computes there; the rest needs one (`--gpu`).

A software driver will do for the rest: `GGML_VK_VISIBLE_DEVICES=0` has llama.cpp take Mesa's lavapipe.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import MakeDevice

from edged.engine import llama

NO_GPU = {"GGML_VK_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
"""Whatever llama.cpp was built for, it finds none."""


def sections(model: Path, **engine: Any) -> dict[str, dict[str, Any]]:
    """Settings with all layers on a GPU."""
    return {
        "model": {"path": str(model)},
        "engine": {"gpu_layers": 99, "slots": 2, "context_max": 512, "context_min": 512, **engine},
    }


def test_without_a_gpu(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path) -> None:
    """The node answers by its CPU, and one line of the log says so and what to change."""
    node = daemon(broker, sections(small_model), environment=NO_GPU).start()
    told = node.wait_log("gpu_not_used")
    assert told["severity"] == "warning"
    assert "the CPU computes all layers; " in told["reason"]
    assert "gpus" not in node.wait_log("engine_ready")
    c1 = device(broker, "c1")
    answer = c1.answer(c1.ask("What is the capital of France?", temperature=0, max_tokens=16)).check()
    assert "Paris" in answer.text


# with a GPU -------------------------------------------------------------------------------------------------

SLOW_S = 600.0
"""A software driver needs minutes for what a GPU does in a second."""
QUESTION = "What is the capital of France?"
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "schema": {
            "type": "object",
            "properties": {"hot": {"type": "boolean"}, "celsius": {"enum": [60, 85]}},
            "required": ["hot", "celsius"],
        }
    },
}


def small_passes(model: Path, **engine: Any) -> dict[str, dict[str, Any]]:
    """As `sections`, in passes that a software driver ends within seconds."""
    return sections(model, batch_tokens=32, **engine)


@pytest.mark.gpu
def test_a_gpu_answers(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path) -> None:
    """All kinds of questions, by a node whose layers are all on the GPU."""
    node = daemon(broker, small_passes(small_model)).start(timeout_s=SLOW_S)
    assert node.wait_log("engine_ready")["gpus"]
    assert node.log("gpu_not_used") == []
    assert node.wait_info()["rates"]["source"] == "warm-up"
    promised = node.wait_info()["rates"]["prefill_tokens_per_s"]
    c1 = device(broker, "c1")
    first = c1.answer(c1.ask(QUESTION, temperature=0, max_tokens=12), SLOW_S).check()
    assert "Paris" in first.text
    assert promised < 3 * first.last["timings"]["prefill_tokens_per_s"], "a pass is timed to its end"

    # Several together, one of them taken back; each has the answer that it gets alone.
    jobs = [c1.ask(QUESTION, temperature=0, max_tokens=12, cache="bypass", session=name) for name in "ab"]
    taken_back = c1.ask("Count to a hundred.", max_tokens=200)
    c1.wait_reply(taken_back, "accepted", timeout_s=SLOW_S)
    c1.control("cancel", taken_back)
    assert c1.answer(taken_back, SLOW_S).check().last["type"] == "cancelled"
    for job in jobs:
        assert "Paris" in c1.answer(job, SLOW_S).check().text

    # A conversation goes on from the cache; a schema and a deadline are kept.
    again = c1.answer(c1.ask("And of Italy?", session="s0", temperature=0, max_tokens=4), SLOW_S).check()
    more = c1.answer(c1.ask("And of Spain?", session="s0", temperature=0, max_tokens=4), SLOW_S).check()
    assert more.last["usage"]["cached_tokens"] >= again.last["usage"]["prompt_tokens"]
    formed = c1.answer(
        c1.ask("Is 85 C hot?", response_format=SCHEMA, max_tokens=32, temperature=0), SLOW_S
    ).check()
    assert formed.last["parsed"].keys() == {"hot", "celsius"}
    late = c1.answer(c1.ask("Tell me a long story.", max_tokens=400, deadline_ms=20_000), SLOW_S).check()
    assert late.last["finish_reason"] == "deadline"
    assert node.terminate() == 0


@pytest.mark.gpu
def test_a_state_outlives_its_gpu(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path
) -> None:
    """A conversation's cache, written from the GPU, is read by it after a restart, and by the CPU without it."""
    settings = small_passes(small_model, slots=1)
    node = daemon(broker, settings).start(timeout_s=SLOW_S)
    c1 = device(broker, "c1")
    said = (
        "Press 7 has a bearing at either end, a pump below it, and a fan above it that nobody has seen turn. "
    )
    first = c1.answer(c1.ask(said * 2, session="s", temperature=0, max_tokens=4), SLOW_S).check()
    node.wait_health(lambda h: h.get("prefix_store", {}).get("bytes"), timeout_s=SLOW_S)
    node.terminate()
    known = first.last["usage"]["prompt_tokens"]
    for layers in (99, 0):
        node.config.write_text(re.sub(r"gpu_layers = \d+", f"gpu_layers = {layers}", node.config.read_text()))
        node.start(timeout_s=SLOW_S)
        next_one = c1.answer(
            c1.ask("And what is below it?", session="s", temperature=0, max_tokens=8), SLOW_S
        )
        assert next_one.check().last["usage"]["cached_tokens"] >= known, f"{layers} layers"
        assert node.log("prefix_removed") == []
        assert node.terminate() == 0


@pytest.mark.gpu
def test_no_layer_on_the_gpu(small_model: Path) -> None:
    """With 0 layers a GPU is left alone, and the CPU has its own layout of the weights."""
    lines: list[str] = []
    llama.start(lambda _level, text: lines.append(text))
    assert llama.gpus()
    for layers in (0, 99):
        lines.clear()
        llama.Model(small_model, gpu_layers=layers).close()
        used = [line for line in lines if "using device" in line]
        assert bool(used) == (layers > 0), lines
