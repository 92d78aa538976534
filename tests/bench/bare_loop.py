"""The yardstick: llama.cpp's forward pass in the barest of loops, in a process of its own.

Nothing of edged is imported: one sequence, greedy, no text made of the tokens. Reads one JSON object a line
from standard input and answers each with one on standard output. The first is the setup: `model` (path),
`slots`, `context` (tokens of a slot), `batch_tokens`, `decode_threads`, `prefill_threads`, `cores`,
`unified` (one KV cache for all slots). The others are runs: `prompt` (its text is repeated or cut to
`prompt_tokens` tokens) and `count` (tokens to write). Run by the benches beside it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

import llama_cpp as C  # noqa: N812 - it is the C interface, and reads as such


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
    for line in sys.stdin:
        answer(run(model, context, setup, json.loads(line)))


def run(model: Any, context: Any, setup: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """One prompt and `count` greedy tokens; seconds of each part."""
    vocab = C.llama_model_get_vocab(model)
    text = tokenize(vocab, order["prompt"])
    tokens = (text * (order["prompt_tokens"] // len(text) + 1))[: order["prompt_tokens"]]
    C.llama_memory_clear(C.llama_get_memory(context), True)
    batch = C.llama_batch_init(setup["batch_tokens"], 0, 1)
    sampler = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
    C.llama_sampler_chain_add(sampler, C.llama_sampler_init_greedy())
    begun = time.monotonic()
    C.llama_set_n_threads(context, setup["prefill_threads"], setup["prefill_threads"])
    for start in range(0, len(tokens), setup["batch_tokens"]):
        decode(context, batch, tokens[start : start + setup["batch_tokens"]], start)
    token = C.llama_sampler_sample(sampler, context, -1)
    first = time.monotonic()
    C.llama_set_n_threads(context, setup["decode_threads"], setup["decode_threads"])
    for position in range(len(tokens), len(tokens) + order["count"] - 1):
        decode(context, batch, [token], position)
        token = C.llama_sampler_sample(sampler, context, -1)
    ended = time.monotonic()
    C.llama_sampler_free(sampler)
    C.llama_batch_free(batch)
    return {"prefill_s": first - begun, "decode_s": ended - first}


def decode(context: Any, batch: Any, tokens: list[int], start: int) -> None:
    """One pass over consecutive tokens of sequence 0, logits for the last."""
    batch.n_tokens = len(tokens)
    for row, token in enumerate(tokens):
        batch.token[row], batch.pos[row] = token, start + row
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
        batch.logits[row] = row == len(tokens) - 1
    if C.llama_decode(context, batch) != 0:
        raise SystemExit("llama_decode failed")


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
