"""A board whose larger server is somebody else's program: llama-cpp-python's own, with the real small model."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from broker import Mosquitto, free_port
from daemon_process import MakeDaemon
from device import WAIT_S, MakeDevice

KEY = "a-key-for-tests-0123456789"
NAME = "smollm2"
SMALL: dict[str, dict[str, Any]] = {"engine": {"slots": 2, "context_max": 256, "context_min": 256}}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[dict[str, Any]]:
    """The server, ready; gives the settings that lead to it."""
    folder, port = tmp_path_factory.mktemp("llama-server"), free_port()
    (folder / "key").write_text(KEY)
    options = {
        "model": str(small_model),
        "model_alias": NAME,
        "host": "127.0.0.1",
        "port": str(port),
        "n_ctx": "2048",
        "n_threads": "1",
        "n_threads_batch": "1",
        "api_key": KEY,
        "verbose": "false",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    log = folder / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/v1/models", process, log)
            yield {"url": f"http://127.0.0.1:{port}/v1", "model": NAME, "key_file": str(folder / "key")}
        finally:
            process.terminate()
            process.wait(WAIT_S)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 2 * WAIT_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        try:
            if httpx.get(url, headers={"authorization": f"Bearer {KEY}"}).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def test_it_answers_for_the_board(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any]
) -> None:
    """By name and because it is too long here: streamed, named, by its own words."""
    node = daemon(broker, {**SMALL, "upstream": large}, scripted=True).start()
    press = device(broker, "press")
    asked: dict[str, Any] = {"model": "large", "temperature": 0, "max_tokens": 24}
    away = press.answer(press.ask("What is the capital of France?", **asked)).check()
    assert "Paris" in away.text
    assert len(away.deltas()) > 1
    assert away.last["upstream"] == large["url"].split("/")[2]
    assert (away.last["node"], away.last["model"]) == (node.node, NAME)
    long = press.answer(press.ask("Say yes. " * 150, max_tokens=8)).check()
    assert long.last["upstream"] == away.last["upstream"]
    assert long.last["finish_reason"] in {"stop", "length"}
    health = node.wait_health(lambda h: h["upstream"]["done"] == 2)
    assert (health["upstream"]["state"], health["upstream"]["failed"]) == ("closed", 0)
    assert health["upstream"]["asked"] == 2
    assert health["upstream"]["busy_s"] > 0


def test_it_takes_no_schema(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any], small_model: Path
) -> None:
    """It refuses `json_schema` with status 500: the board answers, and others still go there."""
    node = daemon(broker, {"upstream": large, "model": {"path": str(small_model)}}).start()
    press = device(broker, "press")
    schema = {"type": "object", "properties": {"hot": {"type": "boolean"}}, "required": ["hot"]}
    shape = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    for number in range(4):
        asked = press.ask(f"Is {85 + number} C hot?", model="large", response_format=shape, max_tokens=24)
        answer = press.answer(asked)
        assert isinstance(answer.last["parsed"]["hot"], bool), answer.last
        assert "upstream" not in answer.last
    assert "json_schema" in node.wait_log("upstream_failed")["reason"]
    asked = press.ask("What is the capital of France?", model="large", temperature=0, max_tokens=24)
    assert press.answer(asked).check().last["upstream"]
    told = node.wait_health(lambda h: h["upstream"]["done"] == 1)["upstream"]
    assert (told["state"], told["shapes"], told["failed"]) == ("closed", "open", 3)


def test_it_refuses(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any], tmp_path: Path
) -> None:
    """With a wrong key the board answers itself, and the log says why."""
    (tmp_path / "wrong").write_text("not-the-key-of-that-server")
    sections = {"upstream": {**large, "key_file": str(tmp_path / "wrong")}}
    node = daemon(broker, sections, scripted=True).start()
    press = device(broker, "press")
    answer = press.answer(press.ask("tokens=2", model="large"))
    assert answer.text == "w0 w1 "
    assert "upstream" not in answer.last
    assert "401" in node.wait_log("upstream_failed")["reason"]
