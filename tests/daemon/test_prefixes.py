"""Prompts that survive engine and daemon: read from disk where they are needed again, private, removable."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import Device, MakeDevice

from edged.client import Client

SYSTEM = (
    "You watch a hall with presses, pumps and fans; each has a number, a load, a temperature and a bearing at "
    "either end. Presses stand by the wall, pumps in the cellar and fans on the roof. What is hotter than 90 C is "
    "too hot, what is colder than 5 C is too cold, and what you do not know you say you do not know. You answer "
    "in one short sentence, in English, without repeating the question. "
)


def ask(device: Device, prompt: str, **fields: Any) -> int:
    """Ask with the common system prompt; returns how many tokens were not computed."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    job = device.ask(messages=messages, max_tokens=2, temperature=0, **fields)
    cached: int = device.answer(job).check().last["usage"]["cached_tokens"]
    return cached


def folder(node: DaemonProcess) -> Path:
    """Where the prompts lie."""
    return node.config.parent / "state" / "prefixes"


def wait_stored(node: DaemonProcess) -> int:
    """Until the store has a file; returns its size as told in health."""
    health = node.wait_health(lambda h: h.get("prefix_store", {}).get("bytes"), since=node.watcher.mark)
    size: int = health["prefix_store"]["bytes"]
    return size


@pytest.fixture
def node(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> DaemonProcess:
    """A node with the real small model, one slot, and a system prompt on disk that two questions began with.

    One thread, and half of the bytes a token: on a machine that is fast enough to compute a prompt sooner than the
    common SD card would give it, nothing is read, as it should be.
    """
    engine = {"slots": 1, "context_max": 512, "context_min": 512, "kv_type": "q8_0"}
    sections: dict[str, dict[str, Any]] = {
        "model": {"path": str(small_model)},
        "engine": {**engine, "decode_threads": 1, "prefill_threads": 1},
    }
    return daemon(broker, sections).start()


def test_a_common_prompt_survives(node: DaemonProcess, broker: Mosquitto, device: MakeDevice) -> None:
    """It is written when two have begun with it, and read after it has left the cache, a restart, a crash."""
    c1 = device(broker, "c1")
    assert ask(c1, "Is 85 C hot?") == 0
    shared = ask(c1, "What is above us?")
    assert shared > 80
    size = wait_stored(node)
    [path] = [file for file in folder(node).iterdir() if file.suffix == ".kv"]
    assert path.stat().st_size == size
    assert path.stat().st_mode & 0o777 == 0o600
    c1.answer(c1.ask("Something else, to fill the only slot", max_tokens=1))
    assert ask(c1, "And below?") >= shared - 1, "it was read from disk"
    assert node.wait_health(lambda h: h.get("prefix_store", {}).get("loads") == 1)
    node.terminate()
    node.start()
    assert ask(c1, "Who are you?", cache="bypass") == 0
    c1.answer(c1.ask("Something else again", max_tokens=1))
    assert ask(c1, "Is 3 C cold?") >= shared - 1
    node.terminate()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    node.start()
    assert ask(c1, "Is 4 C cold?") == 0, "a damaged file is not taken"
    assert node.wait_log("prefix_removed")["reason"] == "it is damaged"
    assert not path.exists()
    log = b"".join(node.raw).decode()
    assert "presses" not in log


def test_forgotten(node: DaemonProcess, broker: Mosquitto, device: MakeDevice) -> None:
    """A session that was told a fact is forgotten: nothing of it is in the journal, the cache or on disk."""
    c1 = device(broker, "c1")
    alone = c1.answer(c1.ask("Who are you?", max_tokens=2)).last["usage"]["prompt_tokens"]
    fact = "The code of the cellar door is 4711."
    messages = [{"role": "system", "content": SYSTEM + fact}, {"role": "user", "content": "Is it 12 C?"}]
    first = c1.answer(c1.ask(messages=messages, session="s", max_tokens=2, temperature=0)).last["usage"]
    assert ask(c1, "Is it warm?") > 60
    wait_stored(node)
    with Client(port=broker.port, name="c1", node=node.node) as client:
        assert client.forget_session("s") == "forgotten"
        assert client.forget_session("s") == "unknown"
    assert node.wait_log("prefixes_forgotten")["files"] >= 1
    assert not list(folder(node).glob("*.kv"))
    anew = c1.answer(c1.ask("Who are you?", session="s", max_tokens=2)).check()
    assert anew.replies[0]["history"] == 0
    assert anew.last["usage"]["prompt_tokens"] == alone
    again = c1.answer(c1.ask(messages=messages, max_tokens=2, temperature=0)).last["usage"]
    assert again["prompt_tokens"] == first["prompt_tokens"]
    assert again["cached_tokens"] < 20, "nothing but the template's own beginning stands there"
    node.terminate()
    with closing(sqlite3.connect(folder(node).parent / "journal.db")) as journal:
        kept = [*journal.execute("SELECT body, terminal FROM jobs WHERE session IS NULL AND finished_s > 0")]
        assert kept, "questions of no session stay"
        rest = [*journal.execute("SELECT body, terminal FROM jobs WHERE session IS NOT NULL")]
        rest += [*journal.execute("SELECT body, name FROM session_turns")]
        assert not any(b"4711" in bytes(str(row), "utf-8") for row in rest)


def test_forgotten_though_all_is_killed(node: DaemonProcess, broker: Mosquitto, device: MakeDevice) -> None:
    """The engine hangs, and the daemon is killed before it notices: what was called forgotten goes all the same."""
    c1 = device(broker, "c1")
    c1.answer(c1.ask("Who are you?", session="s", max_tokens=2))
    ask(c1, "Is 85 C hot?")
    ask(c1, "What is above us?")
    wait_stored(node)
    os.kill(node.engine_pid(), signal.SIGSTOP)
    with Client(port=broker.port, name="c1", node=node.node) as client:
        assert client.forget_session("s") == "forgotten"
    node.kill()
    assert list(folder(node).glob("*.kv"))
    node.start()
    assert node.wait_log("prefixes_forgotten")["files"] >= 1
    assert not list(folder(node).glob("*.kv"))
    end = time.monotonic() + 30
    # The engine's word on it comes behind its line of the log.
    while (folder(node).parent / "forget").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_switched_off(node: DaemonProcess, broker: Mosquitto, device: MakeDevice) -> None:
    """With 0 nothing is read or written, and what was there is removed."""
    c1 = device(broker, "c1")
    ask(c1, "Is 85 C hot?")
    ask(c1, "What is above us?")
    wait_stored(node)
    node.terminate()
    settings = node.config.read_text()
    node.config.write_text(settings.replace("[engine]", "[engine]\nprefix_store_bytes = 0"))
    node.start()
    assert not folder(node).exists()
    assert ask(c1, "Is 3 C cold?") == 0
