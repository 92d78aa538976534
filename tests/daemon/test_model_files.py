"""Model files as they come off bad cards, broken copies and wrong downloads: the node says why and goes on."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_gguf
from broker import Mosquitto
from daemon_process import MakeDaemon, Sections
from device import MakeDevice

from edged.engine.chat import CHATML

DAMAGE_BYTES = 4096
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
"""setpriv(1): takes root's right to read everything from a program."""


def missing(_path: Path, _model: Path) -> None:
    """No file at all."""


def empty(path: Path, _model: Path) -> None:
    """A file of no bytes."""
    path.touch()


def cut_in_the_header(path: Path, model: Path) -> None:
    """A copy that ended early."""
    path.write_bytes(_head(model, 1000))


def cut_in_the_weights(path: Path, model: Path) -> None:
    """A copy that ended in the middle."""
    path.write_bytes(_head(model, model.stat().st_size // 2))


def text(path: Path, _model: Path) -> None:
    """A web page, saved under the model's name."""
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")


def only_the_magic(path: Path, _model: Path) -> None:
    """The first four bytes of a model, and noise."""
    path.write_bytes(b"GGUF" + _noise(1, 10_000))


def directory(path: Path, _model: Path) -> None:
    """A folder of the model's name."""
    path.mkdir()


def pipe(path: Path, _model: Path) -> None:
    """A named pipe, which nobody writes to."""
    os.mkfifo(path)


def unreadable(path: Path, model: Path) -> None:
    """A file that may not be read."""
    shutil.copy(model, path)
    path.chmod(0)


SQUARE = (tiny_gguf.WIDTH, tiny_gguf.WIDTH)
WORDS = {"token_embd": (tiny_gguf.VOCABULARY, tiny_gguf.WIDTH)}


def for_embeddings(path: Path, _model: Path) -> None:
    """One that llama.cpp loads and computes: it was ready, and answered with control characters."""
    writer = tiny_gguf.begin(path, "llama", layers=1, kv_heads=tiny_gguf.HEADS)
    writer.add_causal_attention(value=False)
    attention = {f"blk.0.attn_{name}": SQUARE for name in ("q", "k", "v", "output")}
    tiny_gguf.finish(writer, {**WORDS, "output_norm": SQUARE[:1], **tiny_gguf.block(0), **attention})


def with_an_encoder(path: Path, _model: Path) -> None:
    """A T5, of which llama.cpp makes no context that can be used: the engine died at each start."""
    writer = tiny_gguf.begin(path, "t5", layers=1, kv_heads=tiny_gguf.HEADS)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_relative_attn_buckets_count(32)
    shapes: tiny_gguf.Shapes = {**WORDS, "output": WORDS["token_embd"]}
    for side, attentions in (("enc", ("attn",)), ("dec", ("attn", "cross_attn"))):
        own = f"{side}.blk.0."
        shapes |= {f"{side}.output_norm": SQUARE[:1], f"{own}attn_rel_b": (32, tiny_gguf.HEADS)}
        shapes |= {name.replace("blk.0.", own): size for name, size in tiny_gguf.block(0).items()}
        for attention in attentions:
            shapes[f"{own}{attention}_norm"] = SQUARE[:1]
            shapes |= {f"{own}{attention}_{name}": SQUARE for name in ("q", "k", "v", "o")}
    tiny_gguf.finish(writer, shapes)


UNUSABLE: dict[Callable[[Path, Path], None], str] = {
    missing: "No such file",
    empty: "no GGUF",
    cut_in_the_header: "llama.cpp cannot load",
    cut_in_the_weights: "llama.cpp cannot load",
    text: "no GGUF",
    only_the_magic: "llama.cpp cannot load",
    directory: "Is a directory",
    pipe: "no regular file",
    unreadable: "Permission denied; let the account of edged read the file",
    for_embeddings: "it is made for embeddings",
    with_an_encoder: "an encoder, as T5",
}
"""What makes the file, and what must stand in the reason."""


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - the same damage in every run


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
def test_unusable_file(  # noqa: PLR0917 - fixtures
    broker: Mosquitto,
    daemon: MakeDaemon,
    device: MakeDevice,
    small_model: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], None],
) -> None:
    """The node is online, `info` and log say what is wrong with which file, questions are refused with it."""
    path = tmp_path / "model.gguf"
    make(path, small_model)
    drop = WITHOUT_PRIVILEGE if make is unreadable and os.geteuid() == 0 else ()
    node = daemon(broker, {"model": {"path": str(path)}}, wrapper=drop).start(engine="failed")
    reason = node.wait_info(lambda info: info["engine"] == "failed")["reason"]
    assert str(path) in reason
    assert UNUSABLE[make] in reason
    assert node.wait_log("model_failed")["reason"] == reason
    asking = device(broker, "c1")
    refused = asking.answer(asking.ask("x")).check().last
    assert refused["code"] == "loading"
    assert reason in refused["message"]
    assert refused["retry_after_ms"] > 0
    assert node.wait_health(lambda h: h["engine"] == "failed")
    assert node.log("engine_gone") == []


@pytest.mark.parametrize("begin", [missing, cut_in_the_weights], ids=lambda make: make.__name__)
def test_right_file_is_loaded_without_a_restart(  # noqa: PLR0917 - fixtures
    broker: Mosquitto,
    daemon: MakeDaemon,
    device: MakeDevice,
    small_model: Path,
    tmp_path: Path,
    begin: Callable[[Path, Path], None],
) -> None:
    """Once the right file stands in place the node loads it by itself, and says so."""
    path = tmp_path / "model.gguf"
    begin(path, small_model)
    node = daemon(broker, {"model": {"path": str(path)}}).start(engine="failed")
    pid, since = node.pid, node.watcher.mark
    shutil.copy(small_model, path)
    info = node.wait_info(lambda info: info["engine"] == "ready", since=since)
    assert "reason" not in info
    assert info["model"]["quantisation"] == "Q4_0"
    assert info["model"]["bytes"] == small_model.stat().st_size
    assert node.wait_event("engine_ready", since=since)
    asking = device(broker, "c1")
    assert asking.answer(asking.ask("Say hello.", max_tokens=4)).check().last["type"] == "done"
    assert node.pid == pid


def test_an_empty_template(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, tmp_path: Path
) -> None:
    """It is named, and the right one is taken without a restart; each question ended as `poison` before."""
    path = tmp_path / "chat.jinja"
    path.touch()
    node = daemon(broker, {"model": {"path": str(small_model), "chat_template": str(path)}})
    node.start(engine="failed")
    assert f"{path}: the chat template leaves out what is asked" in node.wait_log("model_failed")["reason"]
    since = node.watcher.mark
    path.write_text(CHATML)
    node.wait_info(lambda info: info["engine"] == "ready", since=since)
    asking = device(broker, "c1")
    assert asking.answer(asking.ask("Say hello.", max_tokens=4)).check().last["type"] == "done"


def test_sha256(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, tmp_path: Path
) -> None:
    """One changed byte is found by the digest, with both digests in the reason; the right file is taken."""
    path = tmp_path / "model.gguf"
    right = hashlib.sha256(small_model.read_bytes()).hexdigest()
    shutil.copy(small_model, path)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    sections: Sections = {"model": {"path": str(path), "sha256": right}}
    node = daemon(broker, sections).start(engine="failed")
    reason = node.wait_info(lambda info: info["engine"] == "failed")["reason"]
    assert right in reason
    assert hashlib.sha256(path.read_bytes()).hexdigest() in reason
    since = node.watcher.mark
    shutil.copy(small_model, path)
    assert node.wait_info(lambda info: info["engine"] == "ready", since=since)["model"]["sha256"] == right
    asking = device(broker, "c1")
    assert asking.answer(asking.ask("Say hello.", max_tokens=4)).check().last["type"] == "done"


@pytest.mark.parametrize("part", [4, 30, 2_000, 400_000, 0.5, 0.99])
def test_damage_that_no_digest_guards(  # noqa: PLR0917 - fixtures
    broker: Mosquitto,
    daemon: MakeDaemon,
    device: MakeDevice,
    small_model: Path,
    tmp_path: Path,
    part: float,
) -> None:
    """Noise somewhere in the file: the engine may take it, refuse it or die of it; the daemon tells and lives."""
    path = tmp_path / "model.gguf"
    shutil.copy(small_model, path)
    offset = part if part >= 1 else path.stat().st_size * part
    with path.open("r+b") as file:
        file.seek(int(offset))
        file.write(_noise(int(offset), DAMAGE_BYTES))
    node = daemon(broker, {"model": {"path": str(path)}}).launch()
    node.watcher.start()
    node.wait_online()
    pid = node.pid
    asking = device(broker, "c1")
    job = asking.ask("Say hello.", max_tokens=8, deadline_ms=20_000)
    last = asking.answer(job).check().last
    assert last["type"] == "done" or last["code"] in {"loading", "internal", "poison", "expired"}
    assert len(last.get("message", "a text")) > 5
    assert node.running
    assert node.pid == pid
    assert node.wait_health(since=node.watcher.mark)


@pytest.mark.parametrize(("context", "told"), [(8192, 0), (8193, 1)])
def test_a_context_beyond_what_it_was_trained_for(
    broker: Mosquitto, daemon: MakeDaemon, small_model: Path, context: int, told: int
) -> None:
    """It answers, and says why not to trust what it writes there: only the doctor told of it."""
    engine = {"context_max": context, "slots": 1}
    node = daemon(broker, {"model": {"path": str(small_model)}, "engine": engine}).start()
    assert node.wait_info()["model"]["context_trained"] == 8192
    lines = node.log("context_too_long")
    assert len(lines) == told
    assert all("lower engine.context_max" in line["reason"] for line in lines)
