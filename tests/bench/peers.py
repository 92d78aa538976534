"""edged against llama.cpp's `llama-server` and llama-cpp-python's `Llama` class: what a device feels of each.

    python tests/bench/peers.py --llama-server PATH [--model smollm|r1|FILE] [--threads N] [--neighbours N]
        [--calibrate] [--json FILE]

Same model, cores, threads, slots, context and greedy sampling, in turns; edged is measured from MQTT publish to
MQTT delivery through a real Mosquitto, llama-server over HTTP on loopback with streaming, `Llama` in process (one
question at a time: it knows no more). `bare` is llama.cpp's C interface in the barest of loops (`bare_loop.py`),
which takes nothing in and sends nothing out: what can be had of these passes. Each computes token by token: edged
guesses none here, what `--draft-max 3` brings back and `tests/bench/speculation.py` measures. `--neighbours` are
programs that compute meanwhile; `--calibrate` has `edged calibrate --quick` run before. A ratio is the median over
neighbouring runs.

llama-server is built outside this repository from llama-cpp-python's source distribution, with the compiler's
options of `deploy/llama.cmake`, so that both have the same llama.cpp:

    export CFLAGS="-U__AMX_INT8__ -U__AVX512FP16__" CXXFLAGS="-U__AMX_INT8__ -U__AVX512FP16__"
    cmake -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF vendor/llama.cpp
    cmake --build build --target llama-server
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above
from bench.rig import Asked, BenchDevice, Worker  # noqa: E402
from broker import accepts, free_port  # noqa: E402

from edged.core.thinking import THINK  # noqa: E402
from edged.engine.environment import environment  # noqa: E402

TOPICS = ("the sea", "a pump", "a forest", "two trains", "a mine", "the moon", "a bakery", "an old radio")
CLIENTS = (4, 8)
RATIOS = (("edged", "llama-server"), ("bare", "llama-server"))
SETTLE_S = 0.3
SYSTEM = end_to_end.SENTENCE * 26
"""A system prompt of some 600 tokens."""


def story(number: int) -> str:
    """A question whose answer is long; each number another."""
    return (
        f"Write a very long story about {TOPICS[number % len(TOPICS)]}, with at least {number + 10} chapters."
    )


@dataclass(slots=True)
class Streamed:
    """An answer of llama-server: when it was asked for, when each piece came (monotonic seconds)."""

    sent: float
    pieces_at: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens written."""
        return int(self.last["tokens_predicted"])

    @property
    def done_at(self) -> float:
        """When the answer was complete."""
        return self.pieces_at[-1]

    @property
    def first_ms(self) -> float:
        """From the request to the first piece."""
        return 1000 * (self.pieces_at[0] - self.sent)

    @property
    def tokens_per_s(self) -> float:
        """All tokens but the first, between first and last piece."""
        return (self.tokens - 1) / (self.pieces_at[-1] - self.pieces_at[0])


class Server:
    """A running llama-server."""

    def __init__(self, port: int, *, thinks: bool) -> None:
        self._port = port
        self._thinks = thinks

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that its template makes of messages; thinking closed, as edged does for budget 0."""
        prompt = str(json.load(self._post("/apply-template", {"messages": messages}))["prompt"])
        return prompt + (THINK.closing if self._thinks else "")

    def ask(self, messages: list[dict[str, str]], count: int, *, cached: bool = False) -> Streamed:
        """Ask, from rest as edged is asked, and read the stream to its end."""
        body = {
            "prompt": self.render(messages),
            "n_predict": count,
            "temperature": 0,
            "top_k": 1,
            "stream": True,
            "cache_prompt": cached,
        }
        settle()  # making the prompt has woken it
        streamed = Streamed(time.monotonic())
        for line in self._post("/completion", body):
            if line.startswith(b"data: {"):
                streamed.pieces_at.append(time.monotonic())
                final = line
        streamed.last = json.loads(final.removeprefix(b"data: "))
        return streamed

    def complete(self, messages: list[dict[str, str]], fields: dict[str, Any]) -> tuple[str, int]:
        """Ask without a stream; returns text and tokens, "" and 0 where it refuses."""
        try:
            answer = json.load(self._post("/completion", {"prompt": self.render(messages), **fields}))
        except RuntimeError:
            return "", 0
        return str(answer["content"]), int(answer["tokens_predicted"])

    def _post(self, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=rig.WAIT_S)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"llama-server: {response.status} {response.read()[:300]!r}")
        return response


@contextlib.contextmanager
def llama_server(program: Path, setup: dict[str, Any], *, thinks: bool) -> Iterator[tuple[Server, int]]:
    """A llama-server with this set-up, and its process id."""
    port = free_port()
    arguments = {
        "--model": setup["model"],
        "--parallel": setup["slots"],
        "--ctx-size": setup["slots"] * setup["context"],
        "--threads": setup["decode_threads"],
        "--threads-batch": setup["prefill_threads"],
        "--port": port,
        "--reasoning-format": "none",
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    with subprocess.Popen(
        [str(program), *words, "--jinja"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, setup["cores"]),  # noqa: PLW1509 - before any thread of ours
    ) as process:
        try:
            end = time.monotonic() + 120
            while not (accepts(port) and healthy(port)):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{program} did not start")
                time.sleep(0.2)
            yield Server(port, thinks=thinks), process.pid
        finally:
            process.terminate()


def healthy(port: int) -> bool:
    """Whether the model is loaded."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health")
    return connection.getresponse().status == http.HTTPStatus.OK


def settle() -> None:
    """Let who was measured last come to rest.

    After their last work OpenMP's threads look for more for a while, llama-server's 300,000 times: whoever is
    measured next would pay for it.
    """
    time.sleep(SETTLE_S)


@dataclass(frozen=True, slots=True)
class Bench:
    """All that is compared."""

    devices: list[BenchDevice]
    server: Server
    high_level: Worker
    bare: Worker
    tokens: int

    def single(self, number: int) -> dict[str, float]:
        """One question at a time: decode rates."""
        messages = [{"role": "user", "content": story(number)}]
        settle()
        ours = self._ask(0, messages=messages, max_tokens=self.tokens).wait()
        theirs = self.server.ask(messages, self.tokens)
        settle()
        third = self.high_level.call({"prompt": self.server.render(messages), "count": self.tokens})
        settle()
        bare = self._run_bare(messages, count=self.tokens)
        return {
            "edged": ours.tokens_per_s,
            "llama-server": theirs.tokens_per_s,
            "Llama": third["tokens_per_s"],
            "bare": (self.tokens - 1) / bare["decode_s"],
        }

    def together(self, clients: int, number: int) -> dict[str, float]:
        """So many questions at once: tokens per second of all, from the first question to the last answer."""
        asked = [[{"role": "user", "content": story(number + client)}] for client in range(clients)]
        settle()
        begun = time.monotonic()
        running = [
            self._ask(client, messages=messages, max_tokens=self.tokens)
            for client, messages in enumerate(asked)
        ]
        ours = [each.wait() for each in running]
        ours_s = max(each.done_at for each in ours) - begun
        theirs: list[Streamed] = []
        threads = [
            threading.Thread(target=lambda m=messages: theirs.append(self.server.ask(m, self.tokens)))
            for messages in asked
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        theirs_s = max(each.done_at for each in theirs) - min(each.sent for each in theirs)
        settle()
        bare = self._run_bare(*asked, count=self.tokens)
        return {
            "edged": sum(each.tokens for each in ours) / ours_s,
            "llama-server": sum(each.tokens for each in theirs) / theirs_s,
            "bare": clients * self.tokens / (bare["prefill_s"] + bare["decode_s"]),
        }

    def first_piece(self, number: int, *, warm: bool) -> dict[str, float]:
        """Milliseconds to the first piece with a long system prompt, seen before or not."""
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": story(number)}]
        settle()
        ours = self._ask(0, messages=messages, max_tokens=2, cache="use" if warm else "bypass").wait()
        theirs = self.server.ask(messages, 2, cached=warm)
        settle()
        bare = self._run_bare(messages, count=1, cached=warm)
        return {
            "edged": ours.first_ms,
            "llama-server": theirs.first_ms,
            "bare": 1000 * bare["prefill_s"],
        }

    def _run_bare(self, *asked: list[dict[str, str]], count: int, cached: bool = False) -> dict[str, Any]:
        prompts = [self.server.render(messages) for messages in asked]
        found: dict[str, Any] = self.bare.call({"prompts": prompts, "count": count, "cached": cached})
        return found

    def _ask(self, device: int, **fields: Any) -> Asked:
        return self.devices[device].ask(None, reasoning={"budget": 0}, **fields)


def measure(bench: Bench, rounds: int) -> dict[str, dict[str, list[float]]]:
    """All comparisons, `rounds` times in turn."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, values: dict[str, float]) -> None:
        for who, value in values.items():
            found.setdefault(name, {}).setdefault(who, []).append(value)

    bench.single(0)
    bench.first_piece(0, warm=True)  # now the system prompt is known to both
    neighbours = rig.Neighbours()
    for number in range(rounds):
        note("decode, one question, tokens/s", bench.single(number))
        for clients in CLIENTS:
            note(f"decode, {clients} questions together, tokens/s", bench.together(clients, 10 * number))
        note("first piece, long system prompt, cold, ms", bench.first_piece(100 + number, warm=False))
        bench.first_piece(200 + number, warm=True)  # what came between may have pushed it out
        note("first piece, long system prompt, warm, ms", bench.first_piece(300 + number, warm=True))
        note("others' share of the cores", {"edged": neighbours.share()})
    return found


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, help="of an answer; 128 for smollm, 48 otherwise")
    parser.add_argument("--draft-max", type=int, default=0, help="of edged; 3 as it comes")
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    path = end_to_end.model_path(options.model)
    engine: dict[str, Any] = {"slots": max(CLIENTS), "draft_max": options.draft_max}
    if options.threads:
        engine |= {"decode_threads": options.threads, "prefill_threads": options.threads}
    sections = {"model": {"path": str(path)}, "engine": engine}
    with contextlib.ExitStack() as stack:
        broker, daemon = stack.enter_context(rig.node(sections, calibrated=options.calibrate))
        info = daemon.wait_info()
        setup = end_to_end.bare_setup(info, path)
        thinks = bool(info["model"]["reasoning"])
        server, pid = stack.enter_context(llama_server(options.llama_server, setup, thinks=thinks))
        high_level = stack.enter_context(contextlib.closing(Worker("high_level.py", setup)))
        bare = Worker("bare_loop.py", setup, environment(os.environ))
        stack.enter_context(contextlib.closing(bare))
        devices = [
            stack.enter_context(contextlib.closing(BenchDevice(broker, f"bench-{number}")))
            for number in range(max(CLIENTS))
        ]
        tokens = options.tokens or (128 if options.model == "smollm" else 48)
        with rig.busy(options.neighbours):
            found = measure(Bench(devices, server, high_level, bare, tokens), options.rounds)
        memory = {
            "edged": rig.together_bytes((daemon.pid, daemon.engine_pid())),
            "llama-server": rig.memory_bytes(pid)["VmRSS"],
        }
    result = {
        "machine": rig.machine(),
        "model": path.name,
        "threads": [info["decode_threads"], info["prefill_threads"]],
        "slots": info["slots"],
        "tokens": tokens,
        "draft_max": options.draft_max,
        "neighbours": options.neighbours,
        "calibrated": options.calibrate,
        "rounds": found,
        "ratios": {
            f"{one}:{other}": {
                name: round(rig.ratio(values[one], values[other]), 3)
                for name, values in found.items()
                if other in values
            }
            for one, other in RATIOS
        },
        "memory_bytes": memory,
    }
    tell(result)
    rig.save(options.json, result)


def tell(result: dict[str, Any]) -> None:
    """Print the table."""
    peers = ("edged", "llama-server", "Llama", "bare")
    ratios = result["ratios"]
    rows: list[tuple[str, ...]] = [("", *peers, *(name.replace(":", " : ") for name in ratios))]
    for name, values in result["rounds"].items():
        cells = [f"{statistics.median(values[who]):.2f}" if who in values else "" for who in peers]
        rows.append((name, *cells, *(f"x {of[name]:.3f}" if name in of else "" for of in ratios.values())))
    memory = [
        f"{result['memory_bytes'][who] / 1e6:.0f}" if who in result["memory_bytes"] else "" for who in peers
    ]
    rows.append(("memory at the end, MB", *memory, *("" for _ in ratios)))
    threads = " and ".join(str(count) for count in result["threads"])
    rig.show(f"{result['model']}, {threads} threads, {result['slots']} slots; medians", rows)


if __name__ == "__main__":
    main()
