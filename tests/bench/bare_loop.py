"""The yardstick: llama.cpp's forward passes in the barest of loops, in a process of its own.

Nothing of edged is imported: greedy, no text made of the tokens, one thread of Python. Reads one JSON object a line
from standard input and answers each with one on standard output. The first is the setup: `model` (path), `slots`,
`context` (tokens of a slot), `batch_tokens`, `decode_threads`, `prefill_threads`, `cores`, `unified` (one KV cache
for all slots). The others are runs of `prompts`, rendered texts, one a slot, side by side: `count` (tokens to write
to each), `prompt_tokens` (the texts are repeated or cut to so many), `cached` (what the first slot holds of its
prompt from the run before is not read again). Run by the benches beside it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

import llama_cpp as C  # noqa: N812 - it is the C interface, and reads as such
import numpy as np

Row = tuple[int, int, int]
"""Token, position, slot."""


def main() -> None:
    """Serve setup and runs until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, setup["cores"])
    quiet = C.llama_log_callback(lambda *_: None)
    C.llama_log_set(quiet, ctypes.c_void_p(0))
    C.llama_backend_init()
    model = C.llama_model_load_from_file(os.fsencode(setup["model"]), C.llama_model_default_params())
    params = C.llama_context_default_params()
    params.n_ctx = setup["slots"] * setup["context"]
    params.n_seq_max = setup["slots"]
    params.n_batch = params.n_ubatch = setup["batch_tokens"]
    params.kv_unified = setup.get("unified", False)
    params.no_perf = True
    context = C.llama_init_from_model(model, params)
    width = C.llama_model_n_embd(model) // C.llama_model_n_head(model) * C.llama_model_n_head_kv(model)
    kv_bytes = params.n_ctx * C.llama_model_n_layer(model) * 2 * 2 * width  # keys and values in f16
    answer({"kv_bytes": kv_bytes, "weight_bytes": C.llama_model_size(model)})
    loop = Loop(model, context, setup)
    for line in sys.stdin:
        answer(loop.run(json.loads(line)))


class Loop:
    """A context, and what its first slot holds."""

    def __init__(self, model: Any, context: Any, setup: dict[str, Any]) -> None:
        self._model, self._context, self._setup = model, context, setup
        self._memory = C.llama_get_memory(context)
        self._batch = C.llama_batch_init(setup["batch_tokens"], 0, 1)
        self._vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
        self._held: list[int] = []

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Prompts, and `count` greedy tokens to each; seconds of each part, tokens that were read."""
        prompts = [self._tokens(text, order.get("prompt_tokens")) for text in order["prompts"]]
        kept = self._keep(prompts[0]) if order.get("cached") else self._keep([])
        read = [
            [(token, position, slot) for position, token in enumerate(prompt)][kept if slot == 0 else 0 :]
            for slot, prompt in enumerate(prompts)
        ]
        begun = time.monotonic()
        tokens = self._read(read)
        first = time.monotonic()
        self._threads("decode_threads")
        for number in range(order["count"] - 1):
            rows = [(token, len(prompts[slot]) + number, slot) for slot, token in enumerate(tokens)]
            tokens = self._decode(rows, set(range(len(rows))))
        ended = time.monotonic()
        self._held = prompts[0]
        C.llama_memory_seq_rm(self._memory, 0, len(prompts[0]), -1)
        return {"prefill_s": first - begun, "decode_s": ended - first, "read": sum(map(len, read))}

    def _keep(self, prompt: list[int]) -> int:
        """Empty all slots but for what the first holds of this prompt, less its last token; returns how much."""
        same = 0
        while same < min(len(prompt) - 1, len(self._held)) and prompt[same] == self._held[same]:
            same += 1
        for slot in range(self._setup["slots"]):
            C.llama_memory_seq_rm(self._memory, slot, same if slot == 0 else 0, -1)
        return same

    def _read(self, prompts: list[list[Row]]) -> list[int]:
        """Read prompts, as many whole ones in a pass as it takes, long ones in several; the first token of each."""
        self._threads("prefill_threads")
        room = self._setup["batch_tokens"]
        passes: list[list[Row]] = [[]]
        for prompt in prompts:
            if len(passes[-1]) + len(prompt) > room:
                passes.append([])
            for row in prompt:
                if len(passes[-1]) == room:
                    passes.append([])
                passes[-1].append(row)
        last = {prompt[-1] for prompt in prompts}
        tokens: list[int] = []
        for rows in filter(None, passes):
            tokens += self._decode(rows, {number for number, row in enumerate(rows) if row in last})
        return tokens

    def _decode(self, rows: list[Row], logits: set[int]) -> list[int]:
        """One pass; the likeliest token behind each row of `logits`."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for number, (token, position, slot) in enumerate(rows):
            batch.token[number], batch.pos[number] = token, position
            batch.n_seq_id[number], batch.seq_id[number][0] = 1, slot
            batch.logits[number] = number in logits
        if C.llama_decode(self._context, batch) != 0:
            raise SystemExit("llama_decode failed")
        return [self._likeliest(number) for number in sorted(logits)]

    def _likeliest(self, row: int) -> int:
        logits = C.llama_get_logits_ith(self._context, row)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self._vocabulary,))))

    def _threads(self, which: str) -> None:
        C.llama_set_n_threads(self._context, self._setup[which], self._setup[which])

    def _tokens(self, text: str, count: int | None) -> list[int]:
        tokens = tokenize(C.llama_model_get_vocab(self._model), text)
        return tokens if count is None else (tokens * (count // len(tokens) + 1))[:count]


def tokenize(vocab: Any, text: str) -> list[int]:
    """Tokens of a rendered prompt."""
    data = text.encode()
    found = (C.llama_token * (len(data) + 8))()
    return list(found[: C.llama_tokenize(vocab, data, len(data), found, len(data) + 8, False, True)])


def answer(fields: dict[str, Any]) -> None:
    """One line to standard output."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
