"""llama-cpp-python's own `Llama` class as a peer, in a process of its own.

Reads one JSON object a line from standard input and answers each with one on standard output: first the setup
(`model`, `context`, `batch_tokens`, `decode_threads`, `prefill_threads`, `cores`), then runs (`prompt`, a
rendered text; `count`, tokens to write). Greedy, streamed, nothing cached between runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import llama_cpp


def main() -> None:
    """Serve setup and runs until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, setup["cores"])
    llama = llama_cpp.Llama(
        setup["model"],
        n_ctx=setup["context"],
        n_batch=setup["batch_tokens"],
        n_ubatch=setup["batch_tokens"],
        n_threads=setup["decode_threads"],
        n_threads_batch=setup["prefill_threads"],
        verbose=False,
    )
    answer({})
    for line in sys.stdin:
        answer(run(llama, json.loads(line)))


def run(llama: Any, order: dict[str, Any]) -> dict[str, Any]:
    """One prompt and its answer; seconds to the first piece, tokens per second after it."""
    llama.reset()  # else it goes on from what the last prompt shares with this one
    prompt = llama.tokenize(order["prompt"].encode(), add_bos=False, special=True)
    begun = time.monotonic()
    times = [
        time.monotonic()
        for _ in llama.create_completion(prompt, max_tokens=order["count"], temperature=0, stream=True)
    ]
    pieces = times[: order["count"]]  # one chunk a token, then the end
    return {
        "first_ms": 1000 * (pieces[0] - begun),
        "tokens_per_s": (len(pieces) - 1) / (pieces[-1] - pieces[0]),
        "tokens": len(pieces),
    }


def answer(fields: dict[str, Any]) -> None:
    """One line to standard output."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
