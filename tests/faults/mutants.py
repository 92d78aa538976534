"""A tiny GGUF, damaged copies of it, and what the engine process makes of each.

Run as a program (`python -m faults.mutants FILE SEED COUNT`) it has imported llama.cpp once and forks an engine for
each damaged copy, so that 200 loads take seconds: the child is `edged.engine.process.run` with the real loader, and
is given a question when it says that it is ready. Prints one JSON line a copy.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import gguf
import numpy as np
from configured import configured

from edged.core.question import Message
from edged.engine import loading, process
from edged.engine.channel import Channel
from edged.engine.messages import Configure, Ended, LoadFailed, Ready, Refused, Report, Submit

PATIENCE_S = 20.0
WIDTH, FEED_FORWARD = 32, 64


def write_tiny_model(path: Path) -> Path:
    """A llama network of one layer and 32 numbers, with a byte vocabulary: it loads in milliseconds."""
    random_numbers = np.random.default_rng(1)
    tokens = [*_byte_letters(), "<e>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    shapes = {
        "token_embd.weight": (257, WIDTH),
        "output_norm.weight": (WIDTH,),
        "output.weight": (257, WIDTH),
        "blk.0.attn_norm.weight": (WIDTH,),
        **{f"blk.0.attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_norm.weight": (WIDTH,),
        "blk.0.ffn_gate.weight": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_up.weight": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, FEED_FORWARD),
    }
    for name, shape in shapes.items():
        writer.add_tensor(name, random_numbers.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_letters() -> list[str]:
    """The letters that GPT-2's byte-level vocabularies write bytes as, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte if byte in plain else next(shifted)) for byte in range(256)]


def damaged(good: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and the bytes; never the good ones."""
    while True:
        at = rng.randrange(len(good))
        head = rng.randrange(4, min(len(good), 12_000))
        kind, bad = rng.choice(
            [
                ("truncated", good[:at]),
                ("truncated in the header", good[:head]),
                ("bit flipped in the header", _put(good, head, bytes([good[head] ^ 1 << rng.randrange(8)]))),
                ("rubbish in the header", _put(good, head, rng.randbytes(4))),
                ("huge number in the header", _put(good, head, b"\xff\xff\xff\xff\xff\xff\xff\x7f")),
                ("huge count", _put(good, rng.choice([8, 16]), rng.randbytes(8))),
                ("zeros in the weights", _put(good, at, bytes(4096))),
                ("rubbish in the weights", _put(good, at, rng.randbytes(4096))),
                ("another file", rng.randbytes(4096)),
                ("swapped halves", good[:4] + good[len(good) // 2 :] + good[4 : len(good) // 2]),
            ]
        )
        if bad != good:
            return kind, bad


def _put(data: bytes, at: int, piece: bytes) -> bytes:
    return (data[:at] + piece + data[at + len(piece) :])[: len(data)]


def configure(path: Path, sha256: str | None = None) -> Configure:
    """An order to load it, as small as can be."""
    return configured(model_path=str(path), sha256=sha256)


def outcome(path: Path) -> str:
    """Load a file in a process of its own and ask it a question; returns how that went."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_engine(theirs)
    theirs.close()
    ours.settimeout(PATIENCE_S)
    channel: Channel[Any, Any] = Channel(ours, cast("Any", Report))
    channel.send(configure(path))
    said = _hear(channel, channel.receive())
    channel.close()
    until_s = time.monotonic() + PATIENCE_S
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > until_s:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "hung"
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    return said or f"crashed ({code})"


def _hear(channel: Channel[Any, Any], reports: Iterator[Any]) -> str:
    for report in reports:
        match report:
            case LoadFailed():
                return "refused"
            case Ready():
                channel.send(_question())
            case Ended():
                return "loaded and answered"
            case Refused():
                return "loaded and refused"
    return ""


def _question() -> Submit:
    return Submit(
        number=1,
        client="c",
        messages=(Message("user", "ab"),),
        priority="normal",
        max_tokens=4,
        deadline=None,
        temperature=None,
        top_p=None,
        seed=1,
        stop=(),
        reasoning_mode="hide",
        reasoning_budget=None,
        stream=False,
    )


def _be_engine(sock: socket.socket) -> NoReturn:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    code = 70
    try:
        code = process.run(sock.detach(), loading.load)
    finally:
        os._exit(code)


def main() -> None:
    """Print what becomes of COUNT damaged copies."""
    good_path, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    good, rng = good_path.read_bytes(), random.Random(seed)  # noqa: S311 - damages, not secrets
    print(json.dumps({"kind": "good", "outcome": outcome(good_path)}), flush=True)
    path = good_path.with_name(f"mutant-{seed}.gguf")
    for _ in range(count):
        kind, bad = damaged(good, rng)
        path.write_bytes(bad)
        print(json.dumps({"kind": kind, "outcome": outcome(path)}), flush=True)


if __name__ == "__main__":
    main()
